"""Gaussian components drawn into an image, down to a floor below which nothing is seen."""

from __future__ import annotations

from math import ceil, exp, floor, log, sqrt

import numba
import numpy as np
from numpy.typing import NDArray

FLOOR = 0.02e-6
"""Jy/beam; far below any noise, so that no component is visibly cut off."""


@numba.njit(cache=True)
def render_gaussians(
    image: NDArray[np.float32],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    peak: NDArray[np.float64],
    covariance: NDArray[np.float64],
    least: float,
) -> None:
    """Add Gaussians to an image, evaluated at pixel centres.

    Parameters
    ----------
    image : (ny, nx) array of float32
        Changed in place.
    x, y : (n,) array
        Centres in zero-based pixels; they may lie outside.
    peak : (n,) array
        In the image's unit; may be negative.
    covariance : (n, 3) array
        ``(xx, xy, yy)``, beam included, pixels^2.
    least : float
        Values below it are left out.
    """
    ny, nx = image.shape
    for k in range(x.size):
        if abs(peak[k]) <= least:
            continue
        xx, xy, yy = covariance[k, 0], covariance[k, 1], covariance[k, 2]
        determinant = xx * yy - xy * xy
        a, b, c = yy / determinant, -xy / determinant, xx / determinant
        reach = 2.0 * log(abs(peak[k]) / least)
        height, width = sqrt(reach * yy), sqrt(reach * xx)
        for row in range(max(0, ceil(y[k] - height)), min(ny - 1, floor(y[k] + height)) + 1):
            dy = row - y[k]
            for column in range(max(0, ceil(x[k] - width)), min(nx - 1, floor(x[k] + width)) + 1):
                dx = column - x[k]
                distance = a * dx * dx + 2.0 * b * dx * dy + c * dy * dy
                if distance <= reach:
                    image[row, column] += np.float32(peak[k] * exp(-0.5 * distance))


@numba.njit(cache=True)
def render_stripes(
    image: NDArray[np.float32],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    peak: NDArray[np.float64],
    amplitude: float,
    folds: int,
    decay: float,
) -> None:
    """Add radial stripes around bright sources, as gain errors leave them.

    Parameters
    ----------
    image : (ny, nx) array of float32
        Changed in place.
    x, y, peak : (n,) array
        The sources.
    amplitude : float
        Of the stripes at the centre, as a share of the peak.
    folds : int
        Stripes around the circle.
    decay : float
        e-folding length in pixels; they end at four of these.
    """
    ny, nx = image.shape
    reach = 4.0 * decay
    for k in range(x.size):
        for row in range(max(0, ceil(y[k] - reach)), min(ny - 1, floor(y[k] + reach)) + 1):
            for column in range(max(0, ceil(x[k] - reach)), min(nx - 1, floor(x[k] + reach)) + 1):
                dx, dy = column - x[k], row - y[k]
                radius = sqrt(dx * dx + dy * dy)
                if 1.0 < radius <= reach:
                    wave = np.cos(folds * np.arctan2(dy, dx)) * exp(-radius / decay)
                    image[row, column] += np.float32(amplitude * peak[k] * wave)
