"""The beam of a field in its pixels."""

from __future__ import annotations

from math import cos, log, radians, sin

import numpy as np
from numpy.typing import NDArray

from survey_ml.field import Beam, Field
from survey_ml.zenithal import Zenithal


def find_covariance(beam: Beam) -> NDArray[np.float64]:
    """Return the (2, 2) covariance of a beam on the sky, east first, in arcsec^2."""
    east, north = sin(radians(beam.pa)), cos(radians(beam.pa))
    along = np.array([east, north])
    across = np.array([-north, east])
    variances = np.array([beam.major, beam.minor]) ** 2 / (8.0 * log(2.0))
    return variances[0] * np.outer(along, along) + variances[1] * np.outer(across, across)


def project_beam(field: Field) -> NDArray[np.float64]:
    """Return the (2, 2) covariance of a field's beam at its reference pixel, x first, in px^2."""
    # Pixel offsets to east and north in arcsec; the first axis of the projection grows eastwards.
    sky = field.sky if isinstance(field.sky, Zenithal) else field.sky.celestial
    matrix = np.asarray(sky.pixel_scale_matrix) * 3600.0
    inverse = np.linalg.inv(matrix)
    return inverse @ find_covariance(field.beam) @ inverse.T
