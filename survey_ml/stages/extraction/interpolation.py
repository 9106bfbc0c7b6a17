"""Maps from the nodes of the background mesh, interpolated pixel by pixel, compiled.

Without ``fastmath``, as in `survey_ml.stages.extraction.mesh`: a pixel gets the same bits in every
window.
"""

from __future__ import annotations

from math import isnan

import numba
import numpy as np
from numpy.typing import NDArray

NAN = np.float32(np.nan)


@numba.njit(cache=True, nogil=True)
def interpolate_nodes(
    image: NDArray[np.float32],
    nodes: NDArray[np.float64],
    y0: int,
    x0: int,
    first: tuple[int, int],
    step: int,
    background: NDArray[np.float32],
    rms: NDArray[np.float32],
) -> None:
    """Interpolate between the centres of cells, linearly in rows and columns; constant at the ends.

    An unknown node takes the mean of the known ones among the four around a pixel.

    Parameters
    ----------
    image : (ny, nx) array
        Blank pixels are blank in the result.
    nodes : (rows, columns, 2) array
        Mean and rms of the cells.
    y0, x0 : int
        Row and column in the field of ``image[0, 0]``.
    first : tuple of int
        Row and column of ``nodes[0, 0]`` among the field's cells.
    step : int
        Side of a cell.
    background, rms : (ny, nx) arrays
        Receive the result.
    """
    ny, nx = image.shape
    rows = len(nodes)
    # Twice the distance to the centre of the field's first cell: integers, hence exact.
    k_first = (2 * x0 - (step - 1)) // (2 * step)
    k_last = (2 * (x0 + nx - 1) - (step - 1)) // (2 * step)
    along = np.empty(nx)
    for x in range(nx):
        twice = 2 * (x + x0) - (step - 1)
        along[x] = (twice - 2 * step * (twice // (2 * step))) * (1.0 / (2.0 * step))
    corners = np.empty((k_last - k_first + 1, 2, 4))
    band = 0
    for y in range(ny):
        twice = 2 * (y + y0) - (step - 1)
        k = twice // (2 * step)
        fy = (twice - 2 * step * k) / (2.0 * step)
        if y == 0 or k != band:
            band = k
            top = min(max(k - first[0], 0), rows - 1)
            low = min(max(k + 1 - first[0], 0), rows - 1)
            _fill_corners(nodes, top, low, k_first - first[1], corners)
        x = 0
        for i in range(len(corners)):
            end = min(nx, (2 * step * (k_first + i + 1) + step - 1 + 1) // 2 - x0)
            corner = corners[i]
            b0 = corner[0, 0] + fy * (corner[0, 2] - corner[0, 0])
            b1 = corner[0, 1] + fy * (corner[0, 3] - corner[0, 1]) - b0
            r0 = corner[1, 0] + fy * (corner[1, 2] - corner[1, 0])
            r1 = corner[1, 1] + fy * (corner[1, 3] - corner[1, 1]) - r0
            for xx in range(x, end):
                fx = along[xx]
                known = image[y, xx] - image[y, xx] == np.float32(0.0)
                background[y, xx] = np.float32(b0 + fx * b1) if known else NAN
                rms[y, xx] = np.float32(r0 + fx * r1) if known else NAN
            x = end


@numba.njit(cache=True, nogil=True)
def _fill_corners(
    nodes: NDArray[np.float64], top: int, low: int, left: int, corners: NDArray[np.float64]
) -> None:
    """Collect the four nodes around each stretch of a row: (stretches, mean and rms, 4)."""
    columns = nodes.shape[1]
    for k in range(len(corners)):
        one = min(max(left + k, 0), columns - 1)
        two = min(max(left + k + 1, 0), columns - 1)
        for i in range(2):
            corner = corners[k, i]
            corner[0], corner[1] = nodes[top, one, i], nodes[top, two, i]
            corner[2], corner[3] = nodes[low, one, i], nodes[low, two, i]
            count = 0
            total = 0.0
            for j in range(4):
                if not isnan(corner[j]):
                    total += corner[j]
                    count += 1
            if 0 < count < 4:
                for j in range(4):
                    if isnan(corner[j]):
                        corner[j] = total / count
