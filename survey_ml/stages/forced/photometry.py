"""Fluxes of points at given positions: a linear fit with errors that know the noise correlation."""

from __future__ import annotations

from math import exp, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from survey_ml.stages.extraction.algebra import factorise, solve
from survey_ml.stages.extraction.covariance import correlate_rows
from survey_ml.stages.extraction.fit import select_pixels
from survey_ml.stages.extraction.model import POINT, span_ellipse
from survey_ml.stages.extraction.settings import BLENDED, EDGE, POINT_MODEL, TRUNCATED

MOST_NEIGHBOURS = 24
"""Neighbours that are solved for with a position, the nearest."""


@njit(cache=True, nogil=True)
def _find_blanks(row: NDArray[Any], image: NDArray[Any], y0: int, x0: int, near: float) -> int:
    """Return flags for blank pixels within ``near`` px and under the model; ``row`` is in the field."""
    flags = 0
    ny, nx = image.shape
    hx, hy = span_ellipse(row[3], row[4], row[5], 3.0)
    hx, hy = max(hx, near), max(hy, near)
    inside = total = 0.0
    for y in range(int(np.ceil(row[2] - hy)), int(np.floor(row[2] + hy)) + 1):
        for x in range(int(np.ceil(row[1] - hx)), int(np.floor(row[1] + hx)) + 1):
            dx, dy = x - row[1], y - row[2]
            q = row[3] * dx * dx + 2.0 * row[4] * dx * dy + row[5] * dy * dy
            v, u = y - y0, x - x0
            blank = v < 0 or u < 0 or v >= ny or u >= nx or not np.isfinite(image[v, u])
            if q <= 9.0:
                value = exp(-0.5 * q)
                total += value
                inside += 0.0 if blank else value
            if blank and dx * dx + dy * dy <= near * near:
                flags |= EDGE
    if inside < 0.98 * total:
        flags |= TRUNCATED
    return flags


@njit(cache=True, nogil=True)
def _solve_block(
    theta: NDArray[Any],
    n: int,
    data: NDArray[Any],
    weight: NDArray[Any],
    valid: NDArray[Any],
    acf: NDArray[Any],
    radius: float,
    least: float,
) -> tuple[float, float]:
    """Solve for the peaks of ``n`` points together; return the first one's and its error."""
    kinds = np.full(n, POINT)
    radii, leasts = np.array([0.0, radius, radius]), np.array([0.0, least, least])
    pixels = select_pixels(theta, kinds, n, valid, radii, leasts)
    m = pixels.shape[0]
    rows = np.empty((m, n))
    hessian = np.zeros((n, n))
    peaks = np.zeros(n)
    for i in range(m):
        y, x = pixels[i, 0], pixels[i, 1]
        w = weight[y, x]
        for k in range(n):
            dx, dy = x - theta[k, 1], y - theta[k, 2]
            q = theta[k, 3] * dx * dx + 2.0 * theta[k, 4] * dx * dy + theta[k, 5] * dy * dy
            rows[i, k] = w * exp(-0.5 * q)
        for k in range(n):
            peaks[k] += rows[i, k] * w * data[y, x]
            for j in range(k + 1):
                hessian[k, j] += rows[i, k] * rows[i, j]
    factor = np.zeros((n, n))
    if m < n or m == 0 or not factorise(hessian, 0.0, factor):
        return np.nan, np.nan
    solve(factor, peaks)
    # The sandwich's first diagonal element: h^T M h with h the first column of the inverse.
    column = np.zeros(n)
    column[0] = 1.0
    solve(factor, column)
    middle = correlate_rows(rows, pixels, acf)
    variance = 0.0
    for i in range(n):
        for j in range(n):
            variance += column[i] * middle[i, j] * column[j]
    return peaks[0], sqrt(max(variance, 0.0))


@njit(cache=True, nogil=True)
def measure_positions(
    image: NDArray[Any],
    background: NDArray[Any],
    rms: NDArray[Any],
    origin: tuple[int, int],
    points: NDArray[Any],
    targets: NDArray[Any],
    acf: NDArray[Any],
    radius: float,
    least: float,
    reach: float,
    near: float,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Measure the flux of a point at each of some positions, neighbours within reach taken along.

    Each position is solved for with its own neighbours, so that its flux does not depend on which
    other positions a tile holds.

    Parameters
    ----------
    image, background, rms : (ny, nx) float32
        A window; NaN where there is no data.
    origin : tuple of int
        Row and column in the field of its first pixel.
    points : (n, 6) float64
        ``(1, x, y, a, b, c)`` of all positions in reach, pixels of the field, sorted by y.
    targets : (t,) int64
        Those to measure.
    acf : (2 k + 1, 2 k + 1) float64
        Noise autocorrelation.
    radius, least : float
        Radius of the pixels that count: in sigma of the beam, and at least in pixels.
    reach : float
        Neighbours nearer than this many pixels are solved for as well.
    near : float
        Blank pixels nearer than this count as an edge.

    Returns
    -------
    (t, 2) float64
        Flux and standard error; NaN where there are no pixels.
    (t,) int64
        Flags.
    """
    fluxes = np.empty((targets.shape[0], 2))
    flags = np.empty(targets.shape[0], np.int64)
    size = int(np.ceil(reach + 6.0 * least + near)) + 1
    block = np.empty((MOST_NEIGHBOURS + 1, 6))
    found = np.empty(MOST_NEIGHBOURS + 1, np.int64)
    apart = np.empty(MOST_NEIGHBOURS + 1)
    ny, nx = image.shape
    first = 0
    for t in range(targets.shape[0]):
        target = targets[t]
        x, y = points[target, 1], points[target, 2]
        while points[first, 2] < y - reach:
            first += 1
        n = 1
        found[0], apart[0] = target, 0.0
        other = first
        while other < points.shape[0] and points[other, 2] <= y + reach:
            distance = (points[other, 1] - x) ** 2 + (points[other, 2] - y) ** 2
            if other != target and distance <= reach * reach:
                at = min(n, MOST_NEIGHBOURS)
                if n <= MOST_NEIGHBOURS or distance < apart[MOST_NEIGHBOURS]:
                    while at > 1 and apart[at - 1] > distance:
                        apart[at], found[at] = apart[at - 1], found[at - 1]
                        at -= 1
                    apart[at], found[at] = distance, other
                    n = min(n + 1, MOST_NEIGHBOURS + 1)
            other += 1
        left, top = int(np.floor(x)) - size, int(np.floor(y)) - size
        shape = (2 * size + 2, 2 * size + 2)
        data, weight, valid = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.bool_)
        for v in range(shape[0]):
            for u in range(shape[1]):
                row, column = v + top - origin[0], u + left - origin[1]
                if row < 0 or column < 0 or row >= ny or column >= nx:
                    continue
                value = np.float64(image[row, column]) - np.float64(background[row, column])
                if np.isfinite(value) and rms[row, column] > 0.0:
                    data[v, u] = value
                    weight[v, u] = 1.0 / np.float64(rms[row, column])
                    valid[v, u] = True
        flag = POINT_MODEL | _find_blanks(points[target], image, origin[0], origin[1], near)
        for k in range(n):
            block[k] = points[found[k]]
            block[k, 1] -= left
            block[k, 2] -= top
        if n > 1 and apart[1] < near * near:
            flag |= BLENDED
        value, error = _solve_block(block, n, data, weight, valid, acf, radius, least)
        if not np.isfinite(value):
            value, error = _solve_block(block, 1, data, weight, valid, acf, radius, least)
        fluxes[t, 0], fluxes[t, 1] = value, error
        flags[t] = flag
    return fluxes, flags
