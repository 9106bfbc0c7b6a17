"""Sums and moments over an island's pixels, for what no Gaussian describes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def sum_variance(weight: NDArray[Any], own: NDArray[Any], acf: NDArray[Any]) -> float:
    """Variance of the sum of the island's pixels in noise of the given autocorrelation.

    ``weight`` is ``1 / rms``.
    """
    ny, nx = own.shape
    lag = acf.shape[0] // 2
    total = 0.0
    for y in range(ny):
        for x in range(nx):
            if not own[y, x]:
                continue
            mixed = 0.0
            for v in range(max(0, y - lag), min(ny, y + lag + 1)):
                for u in range(max(0, x - lag), min(nx, x + lag + 1)):
                    if own[v, u]:
                        mixed += acf[v - y + lag, u - x + lag] / weight[v, u]
            total += mixed / weight[y, x]
    # A measured autocorrelation need not be positive definite.
    return max(total, 0.0)


@njit(cache=True, nogil=True)
def measure_moments(image: NDArray[Any], own: NDArray[Any], beam: NDArray[Any], row: NDArray[Any]) -> float:
    """Describe positive pixels by one Gaussian of the same sum, centre and second moments.

    The moments count each pixel by its brightness. The shape is at least the beam's.

    Parameters
    ----------
    image : (ny, nx) float64
        Background taken off.
    own : (ny, nx) bool
        Pixels that count.
    beam : (3,) float64
        Precision matrix ``(a, b, c)`` of the beam.
    row : (6,) float64
        Receives ``(A, x, y, a, b, c)``.

    Returns
    -------
    float
        The sum of the pixels; the row is NaN when it is not positive.
    """
    total = sx = sy = 0.0
    for y in range(own.shape[0]):
        for x in range(own.shape[1]):
            if own[y, x] and image[y, x] > 0.0:
                total += image[y, x]
                sx += image[y, x] * x
                sy += image[y, x] * y
    if not total > 0.0:
        row[:] = np.nan
        return 0.0
    sx /= total
    sy /= total
    xx = xy = yy = 0.0
    for y in range(own.shape[0]):
        for x in range(own.shape[1]):
            if own[y, x] and image[y, x] > 0.0:
                share = image[y, x] / total
                xx += share * (x - sx) ** 2
                xy += share * (x - sx) * (y - sy)
                yy += share * (y - sy) ** 2
    det0 = beam[0] * beam[2] - beam[1] * beam[1]
    det = xx * yy - xy * xy
    row[1], row[2] = sx, sy
    if det * det0 <= 1.0 or xx <= 0.0:
        row[3:] = beam
    else:
        row[3], row[4], row[5] = yy / det, -xy / det, xx / det
    det = row[3] * row[5] - row[4] * row[4]
    row[0] = total * np.sqrt(det) / (2.0 * np.pi)
    return total
