"""Small symmetric matrices for the kernels: systems below about 60 unknowns, and what bounds a shape."""

from __future__ import annotations

from math import sqrt
from typing import Any

from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def factorise(matrix: NDArray[Any], damping: float, factor: NDArray[Any]) -> bool:
    """Cholesky-factorise ``matrix`` with its diagonal raised by ``1 + damping``.

    Parameters
    ----------
    matrix : (p, p) float64
        Symmetric; the lower triangle is read.
    damping : float
        Relative addition to the diagonal (Marquardt 1963).
    factor : (p, p) float64
        Receives the lower triangle.

    Returns
    -------
    bool
        False when the matrix is not positive definite.
    """
    p = matrix.shape[0]
    for i in range(p):
        for j in range(i + 1):
            total = matrix[i, j]
            if i == j:
                total *= 1.0 + damping
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            if i == j:
                # Relative to the diagonal: rounding can leave a singular matrix just positive.
                if not total > 1e-13 * matrix[i, i]:
                    return False
                factor[i, i] = sqrt(total)
            else:
                factor[i, j] = total / factor[j, j]
    return True


@njit(cache=True, nogil=True)
def solve(factor: NDArray[Any], vector: NDArray[Any]) -> None:
    """Solve ``L L^T x = vector`` in place, ``factor`` being ``L``."""
    p = vector.shape[0]
    for i in range(p):
        total = vector[i]
        for k in range(i):
            total -= factor[i, k] * vector[k]
        vector[i] = total / factor[i, i]
    for i in range(p - 1, -1, -1):
        total = vector[i]
        for k in range(i + 1, p):
            total -= factor[k, i] * vector[k]
        vector[i] = total / factor[i, i]


@njit(cache=True, nogil=True)
def bound_precision(beam: NDArray[Any], max_scale: float) -> tuple[float, float]:
    """Return the least and the greatest curvature of a shape in any direction, px^-2.

    Parameters
    ----------
    beam : (3,) float64
        Precision matrix ``(xx, xy, yy)`` of the beam, px^-2.
    max_scale : float
        Length of the longest shape over the beam's major axis; the narrowest is half the beam's minor axis.
    """
    mean = 0.5 * (beam[0] + beam[2])
    half = sqrt(0.25 * (beam[0] - beam[2]) ** 2 + beam[1] ** 2)
    return (mean - half) / max_scale**2, 4.0 * (mean + half)
