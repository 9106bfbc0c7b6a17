"""Peaks of an island by the height they stand above the saddle to a higher peak."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def find_peaks(
    snr: NDArray[Any], own: NDArray[Any], prominence: float, least: float, most: int
) -> NDArray[Any]:
    """Find the pixels that stand ``prominence`` above the saddle to any higher peak.

    Pixels are taken from the brightest down and joined to the regions that they touch; where two
    regions meet, the lower of their peaks has its saddle (persistence of the superlevel sets).

    Parameters
    ----------
    snr : (ny, nx) float64
        Brightness in units of the local rms.
    own : (ny, nx) bool
        Pixels of the island.
    prominence, least : float
        Least height above the saddle, and least brightness of all but the highest peak.
    most : int
        At most this many peaks are kept, the brightest.

    Returns
    -------
    (n, 2) int64
        Row and column, brightest first; ties go to the lower row, then the lower column.
    """
    ny, nx = snr.shape
    n = 0
    for y in range(ny):
        for x in range(nx):
            if own[y, x]:
                n += 1
    flat = np.empty(n, np.int64)
    value = np.empty(n)
    n = 0
    for y in range(ny):
        for x in range(nx):
            if own[y, x]:
                flat[n] = y * nx + x
                value[n] = -snr[y, x]
                n += 1
    order = np.argsort(value, kind="mergesort")  # stable: equal pixels stay in raster order
    rank = np.full((ny, nx), -1, np.int64)
    parent = np.empty(n, np.int64)
    kept = np.zeros(n, np.bool_)
    for i in range(n):
        pixel = flat[order[i]]
        level = -value[order[i]]
        y, x = pixel // nx, pixel % nx
        parent[i] = i
        rank[y, x] = i
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                v, u = y + dy, x + dx
                if v < 0 or u < 0 or v >= ny or u >= nx or rank[v, u] < 0 or rank[v, u] == i:
                    continue
                # Roots are the highest pixel of a region because ranks rise downhill.
                one = i
                while parent[one] != one:
                    one = parent[one]
                other = rank[v, u]
                while parent[other] != other:
                    parent[other] = parent[parent[other]]
                    other = parent[other]
                if one == other:
                    continue
                low, high = max(one, other), min(one, other)
                top = -value[order[low]]
                if low != i and top - level >= prominence and top >= least:
                    kept[low] = True
                parent[low] = high
    if n > 0:
        kept[0] = True
    count = 0
    for i in range(n):
        if kept[i] and count < most:
            count += 1
    found = np.empty((count, 2), np.int64)
    count = 0
    for i in range(n):
        if kept[i] and count < found.shape[0]:
            found[count, 0] = flat[order[i]] // nx
            found[count, 1] = flat[order[i]] % nx
            count += 1
    return found
