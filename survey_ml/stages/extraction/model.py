"""Elliptical Gaussians in precision-matrix parameters: values, rendering, validity.

A component is a row ``(A, x, y, a, b, c)``: peak, centre in pixels, and the precision matrix
``[[a, b], [b, c]]`` in pixels^-2 over ``(x, y)``, so that its value is
``A exp(-(a dx^2 + 2 b dx dy + c dy^2) / 2)``. Unlike axes and an angle, these parameters have no
degeneracy for a round source.
"""

from __future__ import annotations

from math import ceil, exp, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

FWHM = 2.0 * sqrt(2.0 * np.log(2.0))
"""Full width at half maximum of a Gaussian in units of its sigma."""

FIXED, POINT, FREE = 0, 1, 2
"""What a fit may change of a component: nothing; peak and position; also its shape."""


@njit(cache=True, nogil=True)
def evaluate(theta: NDArray[Any], n: int, x: float, y: float) -> float:
    """Sum of the first ``n`` components of ``theta`` (k, 6) at one position."""
    total = 0.0
    for k in range(n):
        dx = x - theta[k, 1]
        dy = y - theta[k, 2]
        q = theta[k, 3] * dx * dx + 2.0 * theta[k, 4] * dx * dy + theta[k, 5] * dy * dy
        if q < 60.0:
            total += theta[k, 0] * exp(-0.5 * q)
    return total


@njit(cache=True, nogil=True)
def span_ellipse(a: float, b: float, c: float, reach: float) -> tuple[float, float]:
    """Half width in x and half height in y of the ellipse at ``reach`` sigma."""
    det = a * c - b * b
    return reach * sqrt(c / det), reach * sqrt(a / det)


@njit(cache=True, nogil=True)
def add_component(patch: NDArray[Any], row: NDArray[Any], sign: float, reach: float) -> None:
    """Add ``sign`` times one component to ``patch`` (ny, nx) inside ``reach`` sigma, in place."""
    ny, nx = patch.shape
    hx, hy = span_ellipse(row[3], row[4], row[5], reach)
    limit = reach * reach
    y0 = max(0, ceil(row[2] - hy))
    y1 = min(ny - 1, int(row[2] + hy))
    x0 = max(0, ceil(row[1] - hx))
    x1 = min(nx - 1, int(row[1] + hx))
    for y in range(y0, y1 + 1):
        dy = y - row[2]
        for x in range(x0, x1 + 1):
            dx = x - row[1]
            q = row[3] * dx * dx + 2.0 * row[4] * dx * dy + row[5] * dy * dy
            if q <= limit:
                patch[y, x] += sign * row[0] * exp(-0.5 * q)


@njit(cache=True, nogil=True)
def area_ratio(row: NDArray[Any], beam: NDArray[Any]) -> float:
    """Area of a component over the beam's: its total flux over its peak.

    ``row`` is ``(A, x, y, a, b, c)`` and ``beam`` the beam's ``(a, b, c)``.
    """
    det = row[3] * row[5] - row[4] * row[4]
    return sqrt((beam[0] * beam[2] - beam[1] * beam[1]) / det)


@njit(cache=True, nogil=True)
def shape_is_valid(a: float, b: float, c: float, lowest: float, highest: float) -> bool:
    """Whether both eigenvalues of a precision matrix lie between two bounds (pixels^-2)."""
    mean = 0.5 * (a + c)
    half = sqrt(0.25 * (a - c) ** 2 + b * b)
    return mean - half >= lowest and mean + half <= highest


@njit(cache=True, nogil=True)
def render_components(
    model: NDArray[Any],
    theta: NDArray[Any],
    boxes: NDArray[Any],
    reach: float,
    origin: tuple[int, int] = (0, 0),
) -> None:
    """Add components to a model image, each inside its own box, in place.

    The boxes bound what a component can touch, so that a tile knows which islands outside its
    core it must measure.

    Parameters
    ----------
    model : (ny, nx) float32
        The image to add to.
    theta : (n, 6) float64
        Components in pixels of the field.
    boxes : (n, 4) int64
        ``y0, y1, x0, x1`` (half open) in the field that each component is clipped to.
    reach : float
        Also clipped to this many sigma.
    origin : tuple of int
        Row and column in the field of ``model[0, 0]``.
    """
    limit = reach * reach
    ny, nx = model.shape
    top, left = origin
    for k in range(theta.shape[0]):
        row = theta[k]
        hx, hy = span_ellipse(row[3], row[4], row[5], reach)
        y0 = max(max(top, boxes[k, 0]), ceil(row[2] - hy))
        y1 = min(min(top + ny, boxes[k, 1]) - 1, int(row[2] + hy))
        x0 = max(max(left, boxes[k, 2]), ceil(row[1] - hx))
        x1 = min(min(left + nx, boxes[k, 3]) - 1, int(row[1] + hx))
        for y in range(y0, y1 + 1):
            dy = y - row[2]
            for x in range(x0, x1 + 1):
                dx = x - row[1]
                q = row[3] * dx * dx + 2.0 * row[4] * dx * dy + row[5] * dy * dy
                if q <= limit:
                    model[y - top, x - left] += row[0] * exp(-0.5 * q)


@njit(cache=True, nogil=True)
def finish_maps(
    image: NDArray[Any], background: NDArray[Any], labels: NDArray[Any], model: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Blank a model where the image is blank, in place, and make the maps that follow from it.

    All in one pass: these maps are the size of the field, and memory is what they cost.

    Parameters
    ----------
    image, background, model : (ny, nx) float32
    labels : (ny, nx) int32
        Zero outside islands.

    Returns
    -------
    residual : (ny, nx) float32
        Image minus background minus model.
    mask : (ny, nx) uint8
        One on islands.
    """
    ny, nx = image.shape
    residual = np.empty((ny, nx), np.float32)
    mask = np.empty((ny, nx), np.uint8)
    for y in range(ny):
        for x in range(nx):
            value = image[y, x]
            if not np.isfinite(value):
                model[y, x] = np.float32(np.nan)
            residual[y, x] = value - background[y, x] - model[y, x]
            mask[y, x] = np.uint8(1) if labels[y, x] > 0 else np.uint8(0)
    return residual, mask
