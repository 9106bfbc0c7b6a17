"""Local maxima of an image, refined by a parabola."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True)
def find_peaks(
    image: NDArray[np.float32],
    background: NDArray[np.float32],
    rms: NDArray[np.float32],
    threshold: float,
    y0: int,
    y1: int,
    x0: int,
    x1: int,
) -> NDArray[np.int64]:
    """Find pixels above the threshold that none of their eight neighbours exceeds.

    Of equal neighbours the first in the order of rows is the peak.

    Parameters
    ----------
    image, background, rms : (ny, nx) arrays of float32
        NaN where there is no data.
    threshold : float
        In rms above the background.
    y0, y1, x0, x1 : int
        Part of the image to search; its neighbours may lie outside.

    Returns
    -------
    (n, 2) array of int64
        Rows and columns, in the order of rows.
    """
    ny, nx = image.shape
    found = np.empty((64, 2), dtype=np.int64)
    count = 0
    for y in range(y0, y1):
        for x in range(x0, x1):
            value = image[y, x] - background[y, x]
            if not (value > threshold * rms[y, x] and rms[y, x] > 0.0):
                continue
            highest = True
            for yy in range(max(0, y - 1), min(ny, y + 2)):
                for xx in range(max(0, x - 1), min(nx, x + 2)):
                    near = image[yy, xx] - background[yy, xx]
                    if near > value or (near == value and (yy < y or (yy == y and xx < x))):
                        highest = False
            if highest:
                if count == len(found):
                    more = np.empty((2 * count, 2), dtype=np.int64)
                    more[:count] = found
                    found = more
                found[count, 0], found[count, 1] = y, x
                count += 1
    return found[:count].copy()


def refine_peaks(
    image: NDArray[np.float32], peaks: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fit a parabola through the three pixels around each peak along rows and along columns.

    A Gaussian is a parabola in its logarithm, so logarithms are used where all three pixels are
    positive: exact for a noiseless source whose axes lie along rows and columns.

    Parameters
    ----------
    image : (ny, nx) array
        Background taken off.
    peaks : (n, 2) array of int64
        Rows and columns.

    Returns
    -------
    y, x, value : (n,) arrays of float64
        At most half a pixel from the peak's pixel; that pixel itself along an axis where a
        neighbour is missing.
    """
    ny, nx = image.shape
    y, x = peaks[:, 0], peaks[:, 1]
    middle = image[y, x].astype(np.float64)

    def refine(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
        usable = (before > 0.0) & (after > 0.0)
        a, b, c = (np.log(np.where(usable, v, 1.0)) for v in (before, middle, after))
        bend = 2.0 * b - a - c
        usable &= bend > 0.0
        shift = np.where(usable, 0.5 * (c - a) / np.where(usable, bend, 1.0), 0.0)
        shift = np.clip(shift, -0.5, 0.5)
        return shift, np.where(usable, 0.25 * (c - a) * shift, 0.0)

    def look(dy: int, dx: int) -> NDArray[np.float64]:
        inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
        value = image[np.clip(y + dy, 0, ny - 1), np.clip(x + dx, 0, nx - 1)].astype(np.float64)
        return np.where(inside & np.isfinite(value), value, 0.0)

    shift_y, gain_y = refine(look(-1, 0), look(1, 0))
    shift_x, gain_x = refine(look(0, -1), look(0, 1))
    return y + shift_y, x + shift_x, middle * np.exp(gain_y + gain_x)
