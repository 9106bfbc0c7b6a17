"""Axes, angles and deconvolved sizes from covariance matrices on the sky, with errors.

A Gaussian of covariance S seen through a beam of covariance B is one of S + B, so deconvolution is
a subtraction, and errors follow by first-order propagation (Wild 1970, Aust. J. Phys. 23, 113,
gives the same in terms of axes and angles).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from survey_ml.stages.extraction.model import FWHM

ANGLE_LIMIT = 90.0 / np.sqrt(3.0)
"""Standard deviation in deg of an angle of which nothing is known."""

LIMIT_SIGMA = 1.645
"""One-sided 95 % of a normal distribution."""


class Axes(NamedTuple):
    """Axes of ellipses, one row each: FWHM in arcsec, angles in deg north through east."""

    major: NDArray[np.float64]
    major_err: NDArray[np.float64]
    minor: NDArray[np.float64]
    minor_err: NDArray[np.float64]
    pa: NDArray[np.float64]
    pa_err: NDArray[np.float64]
    variance: NDArray[np.float64]
    """Variance along the major axis, arcsec^2; negative where the beam is wider."""
    variance_err: NDArray[np.float64]


def measure_axes(shape: NDArray[np.float64], covariance: NDArray[np.float64]) -> Axes:
    """Turn covariance matrices into axes and angles.

    Parameters
    ----------
    shape : (n, 3) float64
        ``(ee, en, nn)`` in arcsec^2.
    covariance : (n, 3, 3) float64
        Its error covariance.

    Returns
    -------
    Axes
        An axis whose variance is negative has length zero; its error is then the length that one
        standard error of the variance allows.
    """
    ee, en, nn = shape.T
    mean, half = 0.5 * (ee + nn), np.hypot(0.5 * (nn - ee), en)
    angle = 0.5 * np.arctan2(2.0 * en, nn - ee)
    s, c = np.sin(angle), np.cos(angle)
    # Derivatives of the two eigenvalues and of the angle by (ee, en, nn).
    slopes = [
        np.stack([s * s, 2.0 * s * c, c * c], axis=-1),
        np.stack([c * c, -2.0 * s * c, s * s], axis=-1),
        np.stack([s * c, c * c - s * s, -s * c], axis=-1),
    ]
    errors = [np.sqrt(np.maximum(np.einsum("ni,nij,nj->n", g, covariance, g), 0.0)) for g in slopes]
    lengths = []
    for value, error in ((mean + half, errors[0]), (mean - half, errors[1])):
        length = np.sqrt(np.maximum(value, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            linear = 0.5 * error / length
        # The square root is steep near zero, where the linear error would be anything.
        bounded = np.sqrt(np.maximum(value, 0.0) + error) - length
        lengths.append((FWHM * length, FWHM * np.where(value > error, linear, bounded)))
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = np.degrees(errors[2] / (2.0 * half))
    turn = np.where(errors[2] > 0.0, np.fmin(turn, ANGLE_LIMIT), 0.0)
    (major, major_err), (minor, minor_err) = lengths
    pa = np.degrees(angle) % 180.0
    return Axes(major, major_err, minor, minor_err, pa, turn, mean + half, errors[0])


def limit_size(variance: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    """95 % upper limit on a FWHM in arcsec from the variance along it and its error, arcsec^2."""
    return FWHM * np.sqrt(np.maximum(variance, 0.0) + LIMIT_SIGMA * error)
