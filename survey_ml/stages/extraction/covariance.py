"""Errors of a fit in correlated noise, and the test for a shape other than the beam's.

The fit weights pixels as if they were independent. With the Jacobian J and residual covariance
C, ``C_ij = rms_i rms_j acf(i - j)``, its parameters then scatter as
``H^-1 (J^T W C W J) H^-1`` with ``H = J^T W J`` (the sandwich of White 1980), whatever C is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from survey_ml.stages.extraction.algebra import factorise, solve
from survey_ml.stages.extraction.fit import count_parameters, fill_gradient
from survey_ml.stages.extraction.model import FIXED, FREE


@njit(cache=True, nogil=True)
def correlate_rows(rows: NDArray[Any], pixels: NDArray[Any], acf: NDArray[Any]) -> NDArray[Any]:
    """``R^T A R`` for weighted Jacobian rows R and the noise autocorrelation A.

    Parameters
    ----------
    rows : (m, p) float64
        One row a pixel.
    pixels : (m, 2) int64
        Row and column of each pixel, in raster order.
    acf : (2 k + 1, 2 k + 1) float64
        Autocorrelation by lag, one at the centre; zero is taken beyond.

    Returns
    -------
    (p, p) float64
    """
    m, p = rows.shape
    lag = acf.shape[0] // 2
    middle = np.zeros((p, p))
    mixed = np.empty(p)
    first = 0
    for i in range(m):
        yi, xi = pixels[i, 0], pixels[i, 1]
        # Only pixels after this one in raster order: the rest follows from symmetry.
        for j in range(p):
            mixed[j] = 0.5 * rows[i, j]
        first = i + 1
        while first < m:
            dy = pixels[first, 0] - yi
            if dy > lag:
                break
            dx = pixels[first, 1] - xi
            if -lag <= dx <= lag:
                value = acf[dy + lag, dx + lag]
                for j in range(p):
                    mixed[j] += value * rows[first, j]
            first += 1
        for j in range(p):
            left = rows[i, j]
            if left != 0.0:
                for k in range(p):
                    middle[j, k] += left * mixed[k]
    for j in range(p):
        for k in range(j + 1):
            total = middle[j, k] + middle[k, j]
            middle[j, k] = total
            middle[k, j] = total
    return middle


@njit(cache=True, nogil=True)
def estimate_covariance(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    n: int,
    weight: NDArray[Any],
    pixels: NDArray[Any],
    acf: NDArray[Any],
    residual: NDArray[Any],
    step: NDArray[Any],
) -> tuple[bool, NDArray[Any]]:
    """Sandwich covariance of the fitted parameters and the Gauss-Newton step from here.

    Parameters
    ----------
    theta, kinds, n : as for `fit_components`
    weight : (ny, nx) float64
        ``1 / rms``.
    pixels : (m, 2) int64
        Pixels that count.
    acf : (2 k + 1, 2 k + 1) float64
        Noise autocorrelation.
    residual : (ny, nx) float64
        Image minus model.
    step : (p,) float64
        Receives ``H^-1 J^T W r``; zero at the minimum over these pixels.

    Returns
    -------
    bool
        False when the parameters are degenerate; the matrix is then NaN.
    (p, p) float64
    """
    p = count_parameters(kinds, n)
    m = pixels.shape[0]
    rows = np.empty((m, p))
    hessian = np.zeros((p, p))
    step[:] = 0.0
    for i in range(m):
        y, x = pixels[i, 0], pixels[i, 1]
        w = weight[y, x]
        fill_gradient(theta, kinds, n, float(x), float(y), rows[i])
        for j in range(p):
            rows[i, j] *= w
        for j in range(p):
            step[j] += rows[i, j] * residual[y, x] * w
            for k in range(j + 1):
                hessian[j, k] += rows[i, j] * rows[i, k]
    factor = np.zeros((p, p))
    if m < p or not factorise(hessian, 0.0, factor):
        return False, np.full((p, p), np.nan)
    solve(factor, step)
    middle = correlate_rows(rows, pixels, acf)
    half = np.empty((p, p))
    column = np.empty(p)
    for j in range(p):
        column[:] = middle[:, j]
        solve(factor, column)
        half[:, j] = column
    covariance = np.empty((p, p))
    for j in range(p):
        column[:] = half[j, :]
        solve(factor, column)
        covariance[:, j] = column
    return True, covariance


@njit(cache=True, nogil=True)
def measure_shape_excess(
    theta: NDArray[Any],
    index: int,
    weight: NDArray[Any],
    pixels: NDArray[Any],
    acf: NDArray[Any],
    residual: NDArray[Any],
    out: NDArray[Any],
) -> float:
    """Test how significantly one point component differs from the beam's shape (a score test).

    One Gauss-Newton step of the free model from the point solution estimates the shape; its
    covariance under the point model makes the statistic chi^2 with 3 degrees of freedom
    whatever the noise correlation.

    Parameters
    ----------
    theta : (k, 6) float64
        Components; the one at ``index`` is a point.
    weight, pixels, acf, residual : as for `estimate_covariance`
        ``pixels`` around this component only.
    out : (9,) float64
        Receives the estimated change of the shape's covariance matrix ``(xx, xy, yy)`` in px^2
        and its covariance (upper triangle); NaN when there are too few pixels.

    Returns
    -------
    float
        The statistic; 0 when there are too few pixels or the source is not wider than the beam
        along any axis.
    """
    out[:] = np.nan
    one = theta[index : index + 1]
    kinds = np.full(1, FREE)
    step = np.empty(6)
    good, covariance = estimate_covariance(one, kinds, 1, weight, pixels, acf, residual, step)
    if not good:
        return 0.0
    factor = np.zeros((3, 3))
    if not factorise(covariance[3:, 3:], 0.0, factor):
        return 0.0
    solved = step[3:].copy()
    solve(factor, solved)
    statistic = solved[0] * step[3] + solved[1] * step[4] + solved[2] * step[5]
    # d(Sigma) = -Sigma dP Sigma turns the step in the precision matrix into one in the shape.
    a, b, c = theta[index, 3], theta[index, 4], theta[index, 5]
    det = a * c - b * b
    xx, xy, yy = c / det, -b / det, a / det
    jacobian = np.empty((3, 3))
    jacobian[0, 0], jacobian[0, 1], jacobian[0, 2] = -xx * xx, -2.0 * xx * xy, -xy * xy
    jacobian[1, 0], jacobian[1, 1], jacobian[1, 2] = -xx * xy, -(xx * yy + xy * xy), -xy * yy
    jacobian[2, 0], jacobian[2, 1], jacobian[2, 2] = -xy * xy, -2.0 * xy * yy, -yy * yy
    m = 3
    for i in range(3):
        out[i] = 0.0
        for j in range(3):
            out[i] += jacobian[i, j] * step[3 + j]
        for k in range(i, 3):
            out[m] = 0.0
            for j in range(3):
                for q in range(3):
                    out[m] += jacobian[i, j] * covariance[3 + j, 3 + q] * jacobian[k, q]
            m += 1
    widest = 0.5 * (out[0] + out[2]) + np.sqrt(0.25 * (out[0] - out[2]) ** 2 + out[1] ** 2)
    return statistic if widest > 0.0 else 0.0


@njit(cache=True, nogil=True)
def spread_covariance(
    covariance: NDArray[Any], kinds: NDArray[Any], n: int, index: int, out: NDArray[Any]
) -> int:
    """Copy the block of one component into ``out`` (6, 6), zero where it has no parameter.

    Returns the index of its first parameter.
    """
    out[:, :] = 0.0
    p0 = 0
    for k in range(index):
        if kinds[k] != FIXED:
            p0 += 6 if kinds[k] == FREE else 3
    width = 6 if kinds[index] == FREE else 3
    for i in range(width):
        for j in range(width):
            out[i, j] = covariance[p0 + i, p0 + j]
    return p0
