"""A field in squares, each large enough to be judged by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST_SIDE = 4
"""Squares along the longer side of a field: more could not be told apart on its map, and each costs as much
as the field."""


@dataclass(frozen=True, eq=False)
class Square:
    """A part of a field.

    Attributes
    ----------
    x, y : tuple of float
        From and to, pixels: an index less and plus a half.
    rows : (k,) array of int64
        Sources in it.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    rows: NDArray[np.int64]


def split_squares(x: ArrayLike, y: ArrayLike, shape: tuple[int, int], least: int) -> list[Square]:
    """Split a field into equal parts of about ``least`` sources or more.

    The parts do not go with the tiles that a field is processed in: what is found may not depend on these.

    Parameters
    ----------
    x, y : (n,) array
        Sources, zero-based pixels.
    shape : tuple of int
        ``(ny, nx)`` of the field.
    least : int
        Sources that one needs.

    Returns
    -------
    list of Square
        Row by row. Empty where not even two halves of the field would have as many each.
    """
    columns, rows = np.asarray(x, np.float64), np.asarray(y, np.float64)
    wanted = min(len(columns) // least, MOST_SIDE**2)
    if wanted < 2:
        return []
    ny, nx = shape
    across = int(np.clip(round(np.sqrt(wanted * nx / ny)), 1, min(wanted, MOST_SIDE)))
    down = int(np.clip(wanted // across, 1, MOST_SIDE))
    column = np.clip((columns + 0.5) * across / nx, 0, across - 1).astype(np.int64)
    row = np.clip((rows + 0.5) * down / ny, 0, down - 1).astype(np.int64)
    width, height = nx / across, ny / down
    return [
        Square(
            (i * width - 0.5, (i + 1) * width - 0.5),
            (j * height - 0.5, (j + 1) * height - 0.5),
            np.flatnonzero((column == i) & (row == j)).astype(np.int64),
        )
        for j in range(down)
        for i in range(across)
    ]
