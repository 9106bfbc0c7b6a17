"""Which part of a wide cutout a model is shown, and whether the source's island fits into it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from survey_ml.stage import Table
from survey_ml.stages.morphology.extent import Extent
from survey_ml.stages.morphology.sampling import Sampling


def find_shift(extent: Extent, side: int) -> tuple[int, int]:
    """Return rows and columns from a source's position to its middle, which stays in its cutout."""
    half = side // 2
    row, column = (min(max(place - side, -half), half) for place in extent.middle)
    return row, column


def find_window(side: int, shift: tuple[int, int]) -> tuple[slice, slice]:
    """Return the part of a cutout of twice the side whose middle is shifted."""
    row, column = (slice(side - side // 2 + by, side - side // 2 + by + side) for by in shift)
    return row, column


def place_islands(sources: Table, islands: Table, sampling: Sampling) -> NDArray[np.float64]:
    """Return the box of each source's island on its cutout.

    Returns
    -------
    (n, 4) array
        First and last row, first and last column, in pixels of the cutout from the source's; NaN
        where the island is not listed.
    """
    n = len(sources["source_id"])
    number = np.asarray(islands["island_id"])
    if not n or not len(number):
        return np.full((n, 4), np.nan)
    order = np.argsort(number, kind="stable")
    place = np.minimum(np.searchsorted(number[order], sources["island_id"]), len(number) - 1)
    row = order[place]
    inverse = np.linalg.inv(sampling.step)
    corners = []
    for px in ("x_min", "x_max"):
        for py in ("y_min", "y_max"):
            offset = np.stack([islands[px][row] - sampling.x, islands[py][row] - sampling.y], axis=1)
            corners.append(np.einsum("nij,nj->ni", inverse, offset))
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    box = np.stack([low[:, 1], high[:, 1], low[:, 0], high[:, 0]], axis=1)
    return np.where((number[row] == sources["island_id"])[:, None], box, np.nan)


def exceeds(box: NDArray[np.float64], shift: tuple[int, int], side: int) -> bool:
    """Tell whether the box of an island reaches beyond a cutout; NaN never does."""
    low, high = -(side // 2) - 0.5, side - side // 2 - 0.5
    rows, columns = box[:2] - shift[0], box[2:] - shift[1]
    return bool(min(rows[0], columns[0]) < low or max(rows[1], columns[1]) > high)
