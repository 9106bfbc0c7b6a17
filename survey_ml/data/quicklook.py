"""Statistics and small pictures of images larger than memory: one block at a time, with dask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, nan, sqrt

import numpy as np
from numpy.typing import NDArray

from survey_ml.field import Window


@dataclass(frozen=True)
class Moments:
    """Counts, extremes and moments of the finite pixels of a block.

    Attributes
    ----------
    n_pixels, n_finite : int
        All pixels, and those that are neither NaN nor infinite.
    minimum, maximum, mean : float
        NaN where there is no finite pixel.
    squares : float
        Sum of squared differences from the mean.
    """

    n_pixels: int = 0
    n_finite: int = 0
    minimum: float = nan
    maximum: float = nan
    mean: float = nan
    squares: float = 0.0

    @property
    def std(self) -> float:
        """Standard deviation of the finite pixels."""
        return sqrt(self.squares / self.n_finite) if self.n_finite else nan


def measure_block(values: NDArray) -> Moments:
    """Return the moments of one block, summed in double precision."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Moments(values.size)
    mean = float(finite.mean(dtype=np.float64))
    squares = float(np.square(finite - np.float64(mean)).sum())
    return Moments(values.size, finite.size, float(finite.min()), float(finite.max()), mean, squares)


def merge_moments(parts: Iterable[Moments]) -> Moments:
    """Merge the moments of blocks (Chan, Golub & LeVeque 1983, eq. 2.1)."""
    total = Moments()
    for part in parts:
        n_pixels = total.n_pixels + part.n_pixels
        if not part.n_finite or not total.n_finite:
            known = part if part.n_finite else total
            total = Moments(n_pixels, known.n_finite, known.minimum, known.maximum, known.mean, known.squares)
            continue
        n_finite = total.n_finite + part.n_finite
        shift = part.mean - total.mean
        total = Moments(
            n_pixels,
            n_finite,
            min(total.minimum, part.minimum),
            max(total.maximum, part.maximum),
            total.mean + shift * part.n_finite / n_finite,
            total.squares + part.squares + shift**2 * total.n_finite * part.n_finite / n_finite,
        )
    return total


def choose_factor(shape: tuple[int, int], max_px: int) -> int:
    """Return how many pixels a side make one of a picture of at most ``max_px`` a side."""
    return max(1, ceil(max(shape) / max_px))


def bin_block(
    values: NDArray, window: Window, factor: int
) -> tuple[Window, NDArray[np.float64], NDArray[np.int64]]:
    """Sum the finite pixels of a block into the cells of a picture.

    Parameters
    ----------
    values : ndarray, shape (ny, nx)
        The block.
    window : Window
        Where it lies in the field.
    factor : int
        Pixels a cell along each axis; cells are anchored at pixel (0, 0) of the field.

    Returns
    -------
    cells : Window
        The cells that the block touches.
    sums, counts : ndarray
        Sum and number of finite pixels in each cell.
    """
    cells = Window(
        window.y0 // factor, ceil(window.y1 / factor), window.x0 // factor, ceil(window.x1 / factor)
    )
    rows = np.maximum(np.arange(cells.y0, cells.y1) * factor - window.y0, 0)
    columns = np.maximum(np.arange(cells.x0, cells.x1) * factor - window.x0, 0)
    finite = np.isfinite(values)
    clean = np.where(finite, values, 0).astype(np.float64)
    sums = np.add.reduceat(np.add.reduceat(clean, rows, axis=0), columns, axis=1)
    counts = np.add.reduceat(np.add.reduceat(finite.astype(np.int64), rows, axis=0), columns, axis=1)
    return cells, sums, counts


def join_cells(
    shape: tuple[int, int],
    factor: int,
    parts: Iterable[tuple[Window, NDArray[np.float64], NDArray[np.int64]]],
) -> NDArray[np.float32]:
    """Return the picture: the mean of the finite pixels of each cell, NaN where there is none."""
    ny, nx = ceil(shape[0] / factor), ceil(shape[1] / factor)
    sums, counts = np.zeros((ny, nx)), np.zeros((ny, nx), dtype=np.int64)
    for cells, part_sums, part_counts in parts:
        sums[cells.slices] += part_sums
        counts[cells.slices] += part_counts
    picture = np.full((ny, nx), np.nan, dtype=np.float32)
    np.divide(sums, counts, out=picture, where=counts > 0, casting="same_kind")
    return picture
