"""Gaussians on a pixel grid: axes and position angles to covariances, and beams."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

FWHM = sqrt(8.0 * log(2.0))
"""Full width at half maximum of a Gaussian in units of its sigma."""

Array = NDArray[np.float64]


def make_covariances(major: Array, minor: Array, pa: Array, pixel_scale: float) -> Array:
    """Return the covariances of elliptical Gaussians in pixels.

    Parameters
    ----------
    major, minor : (n,) array
        FWHM in arcsec.
    pa : (n,) array
        Position angle in deg, north through east; the image has north up and east left.
    pixel_scale : float
        arcsec.

    Returns
    -------
    (n, 3) array
        ``(xx, xy, yy)`` in pixels^2.
    """
    a = (np.asarray(major, float) / FWHM / pixel_scale) ** 2
    b = (np.asarray(minor, float) / FWHM / pixel_scale) ** 2
    sine, cosine = np.sin(np.radians(pa)), np.cos(np.radians(pa))
    # The major axis points along (-sin, cos): east is towards smaller x.
    return np.stack(
        [a * sine**2 + b * cosine**2, (b - a) * sine * cosine, a * cosine**2 + b * sine**2], axis=-1
    )


def convolve_peaks(flux: Array, intrinsic: Array, beam: Array) -> Array:
    """Return the peak surface brightness of Gaussians after convolution with the beam.

    Parameters
    ----------
    flux : (n,) array
        Jy.
    intrinsic : (n, 3) array
        Covariances before convolution, pixels^2.
    beam : (3,) array
        Covariance of the beam.

    Returns
    -------
    (n,) array
        Jy/beam: flux * sqrt(det beam / det total).
    """
    total = intrinsic + beam
    return flux * np.sqrt(measure_determinants(beam) / measure_determinants(total))


def measure_determinants(covariances: Array) -> Array:
    """Return the determinants of covariances ``(..., 3)``."""
    return covariances[..., 0] * covariances[..., 2] - covariances[..., 1] ** 2
