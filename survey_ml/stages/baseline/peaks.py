"""Local maxima of an image, refined by a paraboloid."""

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
    """Take the top of the paraboloid through the logarithms of the pixels around each peak.

    The logarithm of a Gaussian is a paraboloid, so this is exact for a source without noise.

    Parameters
    ----------
    image : (ny, nx) array
        Background taken off.
    peaks : (n, 2) array of int64
        Rows and columns.

    Returns
    -------
    shift_y, shift_x : (n,) arrays of float64
        From the peak's pixel to the top, at most a pixel; zero along an axis where a neighbour is
        missing or not positive.
    value : (n,) array of float64
        Height of the top.
    """
    ny, nx = image.shape
    y, x = peaks[:, 0], peaks[:, 1]
    middle = np.log(image[y, x].astype(np.float64))

    def look(dy: int, dx: int) -> NDArray[np.float64]:
        inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
        value = image[np.clip(y + dy, 0, ny - 1), np.clip(x + dx, 0, nx - 1)].astype(np.float64)
        usable = inside & (value > 0.0) & np.isfinite(value)
        return np.where(usable, np.log(np.where(usable, value, 1.0)), np.nan)

    def differ(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
        slope, bend = 0.5 * (after - before), 2.0 * middle - before - after
        usable = bend > 0.0
        return np.where(usable, slope, 0.0), np.where(usable, bend, np.inf)

    slope_y, bend_y = differ(look(-1, 0), look(1, 0))
    slope_x, bend_x = differ(look(0, -1), look(0, 1))
    twist = 0.25 * (look(1, 1) + look(-1, -1) - look(1, -1) - look(-1, 1))
    usable = np.isfinite(bend_y) & np.isfinite(bend_x) & (twist * twist < bend_y * bend_x)
    twist = np.where(usable, twist, 0.0)
    # The top is where the slopes vanish: bend_y dy - twist dx = slope_y, and the same for x.
    flatten = 1.0 - twist / bend_y * (twist / bend_x)
    shift_y = np.clip((slope_y / bend_y + twist / bend_y * (slope_x / bend_x)) / flatten, -1.0, 1.0)
    shift_x = np.clip((slope_x / bend_x + twist / bend_x * (slope_y / bend_y)) / flatten, -1.0, 1.0)
    gain = 0.5 * (slope_y * shift_y + slope_x * shift_x)
    return shift_y, shift_x, np.exp(middle + gain)
