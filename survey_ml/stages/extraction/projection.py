"""Where pixels lie on the sky, and what a shape in pixels is there; all rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from survey_ml.field import Beam
from survey_ml.stages.noise.beam import find_covariance
from survey_ml.zenithal import Zenithal

if TYPE_CHECKING:
    from astropy.wcs import WCS

ARCSEC = np.degrees(1.0) * 3600.0
"""Arcsec in a radian."""


def locate(wcs: Zenithal | WCS, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return right ascension and declination in deg, (n, 2), of zero-based pixel positions.

    NaN where a position is outside the projection.
    """
    if len(x) == 0:
        return np.empty((0, 2))
    if isinstance(wcs, Zenithal):
        return wcs.locate(x, y)
    sky = np.asarray(wcs.all_pix2world(np.stack([x, y], axis=1), 0), dtype=np.float64)
    # Projections that wrap put the longitude first whatever the axes' names.
    if wcs.wcs.lng == 1:
        sky = sky[:, ::-1]
    sky[:, 0] %= 360.0
    return sky


def measure_jacobians(
    wcs: Zenithal | WCS, x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Measure the derivatives of the offsets to the east and north, in arcsec, by x and y, in pixels.

    Central differences over one pixel, of unit vectors, so that neither the pole nor the
    meridian is special.

    Parameters
    ----------
    x, y : (n,) float64
        Zero-based pixel positions.

    Returns
    -------
    (n, 2, 2) float64
        ``[[dE/dx, dE/dy], [dN/dx, dN/dy]]``.
    """
    n = len(x)
    shifts = np.array([(0.0, 0.0), (0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5)])
    sky = locate(wcs, (x + shifts[:, :1]).ravel(), (y + shifts[:, 1:]).ravel())
    lon, lat = np.radians(sky).T
    vector = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    vector = vector.reshape(5, n, 3)
    lon, lat = lon[:n], lat[:n]
    east = np.stack([-np.sin(lon), np.cos(lon), np.zeros(n)], axis=-1)
    north = np.stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)], axis=-1)
    jacobian = np.empty((n, 2, 2))
    for axis, (ahead, behind) in enumerate(((1, 2), (3, 4))):
        change = (vector[ahead] - vector[behind]) * ARCSEC
        jacobian[:, 0, axis] = (change * east).sum(axis=-1)
        jacobian[:, 1, axis] = (change * north).sum(axis=-1)
    return jacobian


def beam_precision(beam: Beam, jacobians: NDArray[np.float64]) -> NDArray[np.float64]:
    """Precision matrices ``(a, b, c)`` (n, 3) of the beam in pixels^-2 at places on the image."""
    inverse = np.linalg.inv(find_covariance(beam))
    matrix = np.swapaxes(jacobians, 1, 2) @ inverse @ jacobians
    return np.stack([matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 1]], axis=1)


def congruence(jacobians: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrices (n, 3, 3) that take ``(xx, xy, yy)`` of S to that of ``J S J^T``."""
    a, b = jacobians[:, 0, 0], jacobians[:, 0, 1]
    c, d = jacobians[:, 1, 0], jacobians[:, 1, 1]
    rows = [[a * a, 2 * a * b, b * b], [a * c, a * d + b * c, b * d], [c * c, 2 * c * d, d * d]]
    return np.moveaxis(np.array(rows), -1, 0)
