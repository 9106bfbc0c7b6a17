"""Components that belong together: one source unless the model dips between them."""

from __future__ import annotations

from math import ceil, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from survey_ml.stages.extraction.model import FWHM, evaluate


@njit(cache=True, nogil=True)
def _find_root(parent: NDArray[Any], k: int) -> int:
    """Follow a union-find tree to its root."""
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@njit(cache=True, nogil=True)
def _stays_above(theta: NDArray[Any], n: int, i: int, j: int, weight: NDArray[Any], flood: float) -> bool:
    """Whether the model stays above the flood level along the line between two components."""
    dx, dy = theta[j, 1] - theta[i, 1], theta[j, 2] - theta[i, 2]
    steps = ceil(2.0 * sqrt(dx * dx + dy * dy))
    ny, nx = weight.shape
    for s in range(1, steps):
        x = theta[i, 1] + dx * s / steps
        y = theta[i, 2] + dy * s / steps
        column = min(max(round(x), 0), nx - 1)
        row = min(max(round(y), 0), ny - 1)
        if evaluate(theta, n, x, y) * weight[row, column] < flood:
            return False
    return True


@njit(cache=True, nogil=True)
def group_components(theta: NDArray[Any], n: int, weight: NDArray[Any], flood: float) -> NDArray[Any]:
    """Give each component of an island the number of its source.

    Two components join when the model along the line between them stays above ``flood`` rms and
    they are nearer than half the sum of their FWHMs along that line; joins are transitive.

    Parameters
    ----------
    theta : (k, 6) float64
        Components in patch coordinates, of which the first ``n`` count.
    weight : (ny, nx) float64
        ``1 / rms``.

    Returns
    -------
    (n,) int64
        Sources from 0 in the order of their first components.
    """
    parent = np.arange(n)
    for i in range(n):
        for j in range(i + 1, n):
            dx, dy = theta[j, 1] - theta[i, 1], theta[j, 2] - theta[i, 2]
            distance = sqrt(dx * dx + dy * dy)
            one, two = _find_root(parent, i), _find_root(parent, j)
            if one == two:
                continue
            near = True
            if distance > 0.0:
                # The precision along a unit vector u is u^T P u; sigma along it is its root's inverse.
                width = 0.0
                for k in (i, j):
                    along = theta[k, 3] * dx * dx + 2.0 * theta[k, 4] * dx * dy + theta[k, 5] * dy * dy
                    width += 0.5 * FWHM * distance / sqrt(along)
                near = distance < width
            if near and _stays_above(theta, n, i, j, weight, flood):
                parent[max(one, two)] = min(one, two)
    number = np.full(n, -1)
    group = np.empty(n, np.int64)
    count = 0
    for k in range(n):
        root = _find_root(parent, k)
        if number[root] < 0:
            number[root] = count
            count += 1
        group[k] = number[root]
    return group
