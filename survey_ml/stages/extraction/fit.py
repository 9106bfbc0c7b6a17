"""Levenberg-Marquardt fit of one or more Gaussians to the pixels of their apertures."""

from __future__ import annotations

from math import ceil, exp, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from survey_ml.stages.extraction.algebra import factorise, solve
from survey_ml.stages.extraction.model import FIXED, FREE, shape_is_valid, span_ellipse

CONVERGED, HELD, UNCONVERGED, SINGULAR = 0, 1, 2, 3
"""How a fit ended; `HELD` is at a minimum but for components that would leave their bounds."""

APERTURES, APERTURE_GROWTH = 3, 1.5
"""How many apertures are tried where pixels are missing, and by how much each is wider."""


@njit(cache=True, nogil=True)
def count_parameters(kinds: NDArray[Any], n: int) -> int:
    """Count the parameters of ``n`` components: three for a point, six for a free shape."""
    p = 0
    for k in range(n):
        if kinds[k] != FIXED:
            p += 6 if kinds[k] == FREE else 3
    return p


@njit(cache=True, nogil=True)
def select_pixels(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    n: int,
    valid: NDArray[Any],
    radii: NDArray[Any],
    least: NDArray[Any],
) -> NDArray[Any]:
    """Pixels inside the apertures of the components that are being fitted.

    Parameters
    ----------
    theta : (k, 6) float64
        Components in patch coordinates, of which the first ``n`` count.
    kinds : (k,) int64
        `FIXED` components have no aperture.
    valid : (ny, nx) bool
        Pixels that may be used.
    radii : (3,) float64
        Aperture radius in sigma of the component, by kind.
    least : (3,) float64
        Least aperture radius in pixels, by kind: a sparsely sampled beam needs enough pixels.

    Returns
    -------
    (m, 2) int64
        Row and column, each pixel once, in raster order.
    """
    ny, nx = valid.shape
    # Only the box around the apertures is looked at: a patch may be as large as the field.
    boxes = np.empty((n, 4), np.int64)
    limits = np.empty(n)
    low_y, high_y, low_x, high_x = ny, 0, nx, 0
    for k in range(n):
        boxes[k] = 0
        if kinds[k] == FIXED:
            continue
        row = theta[k]
        det = row[3] * row[5] - row[4] * row[4]
        limits[k] = max(radii[kinds[k]] ** 2, least[kinds[k]] ** 2 * sqrt(det))
        hx, hy = span_ellipse(row[3], row[4], row[5], sqrt(limits[k]))
        boxes[k, 0] = max(0, ceil(row[2] - hy))
        boxes[k, 1] = min(ny - 1, int(row[2] + hy)) + 1
        boxes[k, 2] = max(0, ceil(row[1] - hx))
        boxes[k, 3] = min(nx - 1, int(row[1] + hx)) + 1
        low_y, high_y = min(low_y, boxes[k, 0]), max(high_y, boxes[k, 1])
        low_x, high_x = min(low_x, boxes[k, 2]), max(high_x, boxes[k, 3])
    chosen = np.zeros((max(0, high_y - low_y), max(0, high_x - low_x)), np.bool_)
    m = 0
    for k in range(n):
        row = theta[k]
        for y in range(boxes[k, 0], boxes[k, 1]):
            dy = y - row[2]
            for x in range(boxes[k, 2], boxes[k, 3]):
                dx = x - row[1]
                q = row[3] * dx * dx + 2.0 * row[4] * dx * dy + row[5] * dy * dy
                if q <= limits[k] and valid[y, x] and not chosen[y - low_y, x - low_x]:
                    chosen[y - low_y, x - low_x] = True
                    m += 1
    pixels = np.empty((m, 2), np.int64)
    m = 0
    for y in range(chosen.shape[0]):
        for x in range(chosen.shape[1]):
            if chosen[y, x]:
                pixels[m, 0] = y + low_y
                pixels[m, 1] = x + low_x
                m += 1
    return pixels


@njit(cache=True, nogil=True)
def fill_gradient(
    theta: NDArray[Any], kinds: NDArray[Any], n: int, x: float, y: float, row: NDArray[Any]
) -> float:
    """Value of the fitted components at one position and, in ``row``, its derivatives."""
    p = 0
    total = 0.0
    for k in range(n):
        kind = kinds[k]
        if kind == FIXED:
            continue
        a, b, c = theta[k, 3], theta[k, 4], theta[k, 5]
        dx = x - theta[k, 1]
        dy = y - theta[k, 2]
        u = a * dx + b * dy
        v = b * dx + c * dy
        q = u * dx + v * dy
        e = exp(-0.5 * q) if q < 60.0 else 0.0
        m = theta[k, 0] * e
        total += m
        row[p] = e
        row[p + 1] = m * u
        row[p + 2] = m * v
        if kind == FREE:
            row[p + 3] = -0.5 * m * dx * dx
            row[p + 4] = -m * dx * dy
            row[p + 5] = -0.5 * m * dy * dy
            p += 6
        else:
            p += 3
    return total


@njit(cache=True, nogil=True)
def build_normal(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    n: int,
    data: NDArray[Any],
    weight: NDArray[Any],
    pixels: NDArray[Any],
    hessian: NDArray[Any],
    gradient: NDArray[Any],
    row: NDArray[Any],
) -> float:
    """Fill ``J^T J`` (lower triangle) and ``J^T r`` of the weighted residuals; return chi^2."""
    p = gradient.shape[0]
    hessian[:, :] = 0.0
    gradient[:] = 0.0
    chi2 = 0.0
    for i in range(pixels.shape[0]):
        y, x = pixels[i, 0], pixels[i, 1]
        w = weight[y, x]
        residual = (data[y, x] - fill_gradient(theta, kinds, n, float(x), float(y), row)) * w
        chi2 += residual * residual
        for j in range(p):
            value = row[j] * w
            if value == 0.0:
                continue
            gradient[j] += value * residual
            value *= w
            for k in range(j + 1):
                hessian[j, k] += value * row[k]
    return chi2


@njit(cache=True, nogil=True)
def sum_squares(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    n: int,
    data: NDArray[Any],
    weight: NDArray[Any],
    pixels: NDArray[Any],
) -> float:
    """Weighted sum of squared residuals, as `build_normal` but without derivatives."""
    chi2 = 0.0
    for i in range(pixels.shape[0]):
        y, x = pixels[i, 0], pixels[i, 1]
        value = data[y, x]
        for k in range(n):
            if kinds[k] == FIXED:
                continue
            dx = x - theta[k, 1]
            dy = y - theta[k, 2]
            q = theta[k, 3] * dx * dx + 2.0 * theta[k, 4] * dx * dy + theta[k, 5] * dy * dy
            if q < 60.0:
                value -= theta[k, 0] * exp(-0.5 * q)
        chi2 += (value * weight[y, x]) ** 2
    return chi2


@njit(cache=True, nogil=True)
def take_step(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    n: int,
    step: NDArray[Any],
    anchor: NDArray[Any],
    lowest: float,
    highest: float,
    trial: NDArray[Any],
    outside: NDArray[Any],
) -> bool:
    """Put ``theta`` plus a step into ``trial``; return whether all components keep their bounds.

    Where they do not, ``outside`` (n,) receives which.
    """
    allowed = True
    p0 = 0
    for k in range(n):
        if kinds[k] == FIXED:
            continue
        width = 6 if kinds[k] == FREE else 3
        for j in range(6):
            trial[k, j] = theta[k, j] + (step[p0 + j] if j < width else 0.0)
        p0 += width
        if not keeps_bounds(trial[k], kinds[k], anchor[k], lowest, highest):
            allowed = False
    if not allowed:
        for k in range(n):
            outside[k] = kinds[k] != FIXED and not keeps_bounds(
                trial[k], kinds[k], anchor[k], lowest, highest
            )
    return allowed


@njit(cache=True, nogil=True)
def keeps_bounds(row: NDArray[Any], kind: int, anchor: NDArray[Any], lowest: float, highest: float) -> bool:
    """Whether a component is as near to its anchor, and of such a shape, as it has to be.

    One that is held has no say.
    """
    if anchor[3] != 0.0:
        return True
    if (row[1] - anchor[0]) ** 2 + (row[2] - anchor[1]) ** 2 > anchor[2] ** 2:
        return False
    return kind != FREE or shape_is_valid(row[3], row[4], row[5], lowest, highest)


@njit(cache=True, nogil=True)
def hold_components(
    kinds: NDArray[Any], n: int, anchor: NDArray[Any], hessian: NDArray[Any], gradient: NDArray[Any]
) -> None:
    """Take all parameters but the peaks of the held components out of the normal equations."""
    p = gradient.shape[0]
    p0 = 0
    for k in range(n):
        if kinds[k] == FIXED:
            continue
        width = 6 if kinds[k] == FREE else 3
        if anchor[k, 3] != 0.0:
            for j in range(p0 + 1, p0 + width):
                hessian[j, :] = 0.0
                for i in range(j, p):
                    hessian[i, j] = 0.0
                hessian[j, j] = 1.0
                gradient[j] = 0.0
        p0 += width


@njit(cache=True, nogil=True)
def fit_components(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    n: int,
    data: NDArray[Any],
    weight: NDArray[Any],
    pixels: NDArray[Any],
    anchor: NDArray[Any],
    lowest: float,
    highest: float,
) -> int:
    """Minimise the weighted squared residuals over the parameters of ``n`` components.

    Parameters
    ----------
    theta : (k, 6) float64
        Start; receives the solution.
    kinds : (k,) int64
        What may change of each component.
    data, weight : (ny, nx) float64
        Image and ``1 / rms``.
    pixels : (m, 2) int64
        Pixels that count.
    anchor : (k, 4) float64
        Starting ``(x, y)``, and how far from it the component may go, in pixels; the last column
        receives 1 where the component was held at a bound, else 0.
    lowest, highest : float
        Bounds on the eigenvalues of the precision matrices.

    Returns
    -------
    int
        `CONVERGED`, `HELD`, `UNCONVERGED` or `SINGULAR`.

    Notes
    -----
    Where the way down leads over a bound of one component, its position and shape stay where they
    are and the fit goes on with its peak and with all others: a component that wants to run away
    must not keep its neighbours from their minimum.
    """
    anchor[:n, 3] = 0.0
    p = count_parameters(kinds, n)
    if pixels.shape[0] < p or p == 0:
        return SINGULAR
    hessian = np.empty((p, p))
    factor = np.empty((p, p))
    gradient = np.empty(p)
    row = np.empty(p)
    step = np.empty(p)
    trial = theta[:n].copy()
    outside = np.zeros(n, np.bool_)
    damping = 1e-3
    ending = CONVERGED
    chi2 = build_normal(theta, kinds, n, data, weight, pixels, hessian, gradient, row)
    left = 60
    while left > 0:
        left -= 1
        accepted = False
        refused = False
        settled = False
        for _attempt in range(12):
            if not factorise(hessian, damping, factor):
                damping = max(10.0 * damping, 1e-6)
                continue
            step[:] = gradient
            solve(factor, step)
            expected = 0.0
            for j in range(p):
                expected += step[j] * gradient[j]
            # 1e-8 in chi^2 is 1e-4 of a standard error: far below what anyone reads.
            settled = expected < 1e-8
            if take_step(theta, kinds, n, step, anchor, lowest, highest, trial, outside):
                lower = sum_squares(trial, kinds, n, data, weight, pixels)
                if lower <= chi2:
                    accepted = True
                    settled |= chi2 - lower < 1e-12 * chi2 and damping < 1.0
                    break
            else:
                refused = True
            if settled:
                break
            damping *= 8.0
        if accepted:
            for k in range(n):
                if kinds[k] != FIXED:
                    theta[k] = trial[k]
        if settled and not refused:
            return ending
        if settled or not accepted:
            if not refused:
                return UNCONVERGED
            # Damped until it stands still, but not at a minimum: the way down leads over a bound.
            for k in range(n):
                if outside[k]:
                    anchor[k, 3] = 1.0
            ending = HELD
            left = 60
            damping = 1e-3
        else:
            damping = max(0.15 * damping, 1e-9)
        chi2 = build_normal(theta, kinds, n, data, weight, pixels, hessian, gradient, row)
        if ending == HELD:
            hold_components(kinds, n, anchor, hessian, gradient)
    return UNCONVERGED
