"""Areas of constant value around an image: what a mosaic is padded with, not sky.

Some programs fill what was not observed with zeros, others with one value that differs by rounding.
Noise is never constant, so such areas tell nothing about the sky and would be taken for sky without
noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 5
"""Pixels a side of the least constant square: coarse quantisation makes smaller ones of noise."""

REACH = SIDE - 1
"""How far around a pixel it is looked at."""

ROUNDING = 2e-6
"""Relative difference of neighbours that counts as none: a few times the rounding of float32."""


def find_padding(image: NDArray[np.floating[Any]], top: int = 0) -> NDArray[np.bool_] | None:
    """Find the pixels that lie in a square of `SIDE` pixels of one value.

    Parameters
    ----------
    image : (ny, nx) array
        A window of a field; NaN is never padding.
    top : int
        Row of the field that the window starts with.

    Returns
    -------
    (ny, nx) array of bool, or None
        None where there is none. Right for pixels whose surroundings to `REACH` are in the window,
        or not in the field.
    """
    ny, nx = image.shape
    if min(ny, nx) < SIDE:
        return None
    # Each square holds a row whose number in the field is a multiple of REACH: a quick look first.
    first = -top % REACH
    if not _find_runs(image[first::REACH]).any():
        return None
    down = _all_of(_find_equal(image, 0), 0, SIDE - 1)
    square = _all_of(_find_runs(image), 0, SIDE) & down[:, : nx - REACH]
    if not square.any():
        return None
    found = np.zeros(image.shape, np.bool_)
    rows = np.zeros((ny, square.shape[1]), np.bool_)
    for shift in range(SIDE):
        rows[shift : shift + square.shape[0]] |= square
    for shift in range(SIDE):
        found[:, shift : shift + square.shape[1]] |= rows
    return found


def _find_equal(image: NDArray[np.floating[Any]], axis: int) -> NDArray[np.bool_]:
    """Whether each pixel equals the next one along an axis, but for rounding."""
    one, other = (image[:-1], image[1:]) if axis == 0 else (image[:, :-1], image[:, 1:])
    with np.errstate(invalid="ignore", over="ignore"):
        return np.abs(one - other) <= ROUNDING * np.abs(other)


def _find_runs(image: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Whether `SIDE` pixels of one value start at a pixel along its row."""
    return _all_of(_find_equal(image, 1), 1, SIDE - 1)


def _all_of(values: NDArray[np.bool_], axis: int, count: int) -> NDArray[np.bool_]:
    """Whether a value and the ``count - 1`` after it along an axis all hold."""
    size = values.shape[axis] - count + 1
    result = (values[:size] if axis == 0 else values[:, :size]).copy()
    for shift in range(1, count):
        part = values[shift : shift + size] if axis == 0 else values[:, shift : shift + size]
        result &= part
    return result
