"""The cells of the background mesh: gathering, masking and clipping, compiled.

No function here is compiled with ``fastmath``: sums keep their order, so that a cell gives the same
bits whatever window it is in.
"""

from __future__ import annotations

from math import erf, exp, isnan, pi, sqrt
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

MIN_SAMPLES = 24
"""Fewer samples than this tell no rms."""

GOOD_SHARE = 0.2
"""A box with less than this share of its samples left grows."""

LEAST_SHARE = 0.1
"""A grown box of which sources leave less than this tells of their skirts, not of the noise."""

INFINITE = np.float32(np.inf)


class Cells(NamedTuple):
    """Sorted samples of all cells, with running sums about the median of each cell.

    Parameters
    ----------
    values : (rows, columns, n) array of float32
        Sorted; NaN, if any, last.
    counts : (rows, columns) array of int32
        Samples that are not NaN.
    middles : (rows, columns) array of float64
        Medians.
    sums, squares : (rows, columns, n + 1) arrays of float64
        Sums of the first 0, 1, ... samples less the median, and of their squares.
    """

    values: NDArray[np.float32]
    counts: NDArray[np.int32]
    middles: NDArray[np.float64]
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]


@numba.njit(cache=True, nogil=True)
def gather_samples(
    image: NDArray[np.float32], y0: int, x0: int, step: int, stride: int
) -> NDArray[np.float32]:
    """Collect every ``stride``-th pixel of the field's lattice by cell; NaN where there is none.

    Returns
    -------
    (rows, columns, n) array of float32
        For the cells that the window touches; n = (step / stride)^2.
    """
    ny, nx = image.shape
    side = step // stride
    row0, column0 = y0 // step, x0 // step
    rows = (y0 + ny - 1) // step - row0 + 1
    columns = (x0 + nx - 1) // step - column0 + 1
    samples = np.full((rows, columns, side * side), np.nan, dtype=np.float32)
    first_x = -x0 % stride
    for y in range(-y0 % stride, ny, stride):
        row = (y + y0) // step - row0
        at = ((y + y0) % step) // stride * side
        # Counters in place of a division at every sample.
        column = (first_x + x0) // step - column0
        within = ((first_x + x0) % step) // stride
        for x in range(first_x, nx, stride):
            value = image[y, x]
            if value - value == np.float32(0.0):
                samples[row, column, at + within] = value
            within += 1
            if within == side:
                within = 0
                column += 1
    return samples


def sum_sorted(values: NDArray[np.float32]) -> Cells:
    """Count and sum sorted samples; cells that are mostly one value are blank, not noise."""
    rows, columns, n = values.shape
    counts = np.empty((rows, columns), dtype=np.int32)
    middles = np.empty((rows, columns), dtype=np.float64)
    sums = np.empty((rows, columns, n + 1), dtype=np.float64)
    squares = np.empty((rows, columns, n + 1), dtype=np.float64)
    _sum_sorted(values, counts, middles, sums, squares)
    return Cells(values, counts, middles, sums, squares)


@numba.njit(cache=True, nogil=True)
def _sum_sorted(
    values: NDArray[np.float32],
    counts: NDArray[np.int32],
    middles: NDArray[np.float64],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    """Fill the arrays of `Cells`."""
    rows, columns, n = values.shape
    for row in range(rows):
        for column in range(columns):
            cell = values[row, column]
            count = n
            while count > 0 and isnan(cell[count - 1]):
                count -= 1
            # A run longer than half of the samples must reach over the middle of the sorted list.
            half = count // 2
            if count > 1:
                low, high = half, half
                while low > 0 and cell[low - 1] == cell[half]:
                    low -= 1
                while high < count - 1 and cell[high + 1] == cell[half]:
                    high += 1
                if 2 * (high - low + 1) > count:
                    count = 0
            counts[row, column] = count
            middle = np.float64(cell[half]) if count > 0 else 0.0
            middles[row, column] = middle
            total = 0.0
            square = 0.0
            sums[row, column, 0] = 0.0
            squares[row, column, 0] = 0.0
            for i in range(count):
                value = cell[i] - middle
                total += value
                square += value * value
                sums[row, column, i + 1] = total
                squares[row, column, i + 1] = square


@numba.njit(cache=True, nogil=True, inline="always")
def _count_below(cell: NDArray[np.float32], count: int, limit: float) -> int:
    """Count the samples of a sorted cell below a limit."""
    low = 0
    while count > 0:
        # Without a branch on the sample, which no processor could foretell.
        half = (count + 1) >> 1
        low += half if cell[low + half - 1] < limit else 0
        count -= half
    return low


def find_truncated_moments(low: float, high: float) -> tuple[float, float]:
    """Return mean and rms of a unit normal variable that is kept between ``-low`` and ``high``."""
    kept = 0.5 * (erf(high / sqrt(2.0)) + erf(low / sqrt(2.0)))
    at_low, at_high = (exp(-0.5 * x * x) / sqrt(2.0 * pi) / kept for x in (low, high))
    mean = at_low - at_high
    return mean, sqrt(1.0 - low * at_low - high * at_high - mean * mean)


@numba.njit(cache=True, nogil=True, inline="always")
def _move_below(cell: NDArray[np.float32], count: int, limit: float, at: int) -> int:
    """Count the samples of a sorted cell below a limit, starting from a good guess."""
    while at < count and cell[at] < limit:
        at += 1
    while at > 0 and not cell[at - 1] < limit:
        at -= 1
    return at


@numba.njit(cache=True, nogil=True)
def _clip_box(
    cells: Cells,
    box: tuple[int, int, int, int],
    middle: float,
    rms: float,
    clip: tuple[float, float],
    moments: tuple[float, float],
    found: NDArray[np.int64],
) -> tuple[float, float]:
    """Clip the samples of a box of cells until none comes or goes.

    Each time mean and rms become those of the normal variable whose kept part has the mean and
    rms of the samples that are left. The limits move little from one time to the next, so each
    cell remembers in ``found`` (n, 2) where they were.

    Returns
    -------
    mean, rms : float
        NaN where the samples do not spread or too few are left.
    """
    y0, y1, x0, x1 = box
    last = -1
    for _ in range(30):
        low, high = middle - clip[0] * rms, middle + clip[1] * rms
        count = 0
        total = 0.0
        square = 0.0
        i = 0
        for y in range(y0, y1):
            for x in range(x0, x1):
                n = cells.counts[y, x]
                if n == 0:
                    i += 1
                    continue
                cell = cells.values[y, x]
                if last < 0:
                    first = _count_below(cell, n, low)
                    end = _count_below(cell, n, high)
                else:
                    first = _move_below(cell, n, low, found[i, 0])
                    end = _move_below(cell, n, high, found[i, 1])
                found[i, 0], found[i, 1] = first, end
                i += 1
                m = end - first
                shift = cells.middles[y, x] - middle
                linear = cells.sums[y, x, end] - cells.sums[y, x, first]
                total += linear + m * shift
                square += (
                    cells.squares[y, x, end]
                    - cells.squares[y, x, first]
                    + 2.0 * shift * linear
                    + m * shift * shift
                )
                count += m
        if count < MIN_SAMPLES:
            return np.nan, np.nan
        mean = total / count
        variance = square / count - mean * mean
        if not variance > 0.0:
            return np.nan, np.nan
        rms = sqrt(variance) / moments[1]
        middle += mean - moments[0] * rms
        if count == last:
            break
        last = count
    return middle, rms


def measure_boxes(
    cells: Cells,
    whole: Cells,
    reference: NDArray[np.float64] | None,
    reach: int,
    escalation: int,
    clip: tuple[float, float],
    part: tuple[int, int, int, int] | None = None,
) -> NDArray[np.float64]:
    """Measure background and rms in the box of cells around each cell.

    Where less than a fifth of a box is left, it grows by one cell at a time; if that leaves too
    little, the reference stands, or else the cells are taken whole, sources and all.

    Parameters
    ----------
    cells, whole : Cells
        Without and with the samples on sources.
    reference : (rows, columns, 2) array or None
        Mean and rms to start from; quartiles of the cell where None.
    reach, escalation : int
        Cells on each side of the middle one, and by how many that may grow.
    clip : tuple of float
        How far below and above the mean samples are kept, in rms.
    part : tuple of int, optional
        ``row0, row1, column0, column1`` (half open) of the cells that are wanted; all by default.

    Returns
    -------
    (rows, columns, 2) array of float64
        Mean and rms; NaN where unknown and outside ``part``.
    """
    rows, columns = cells.counts.shape
    nodes = np.full((rows, columns, 2), np.nan)
    start = reference if reference is not None else np.empty((0, 0, 2))
    moments = find_truncated_moments(*clip)
    _measure_boxes(
        cells, whole, start, reach, escalation, clip, moments, part or (0, rows, 0, columns), nodes
    )
    return nodes


@numba.njit(cache=True, nogil=True)
def _count_box(cells: Cells, y0: int, y1: int, x0: int, x1: int) -> int:
    """Count the samples of a box of cells."""
    count = 0
    for y in range(y0, y1):
        for x in range(x0, x1):
            count += cells.counts[y, x]
    return count


@numba.njit(cache=True, nogil=True)
def _measure_boxes(
    cells: Cells,
    whole: Cells,
    reference: NDArray[np.float64],
    reach: int,
    escalation: int,
    clip: tuple[float, float],
    moments: tuple[float, float],
    part: tuple[int, int, int, int],
    nodes: NDArray[np.float64],
) -> None:
    """Fill ``nodes``; see `measure_boxes`."""
    rows, columns, n = cells.values.shape
    found = np.empty(((2 * (reach + escalation) + 1) ** 2, 2), dtype=np.int64)
    for row in range(part[0], part[1]):
        for column in range(part[2], part[3]):
            for attempt in range(escalation + 2):
                used = cells
                more = attempt
                wanted = MIN_SAMPLES
                if attempt == 0:
                    wanted = max(MIN_SAMPLES, int(GOOD_SHARE * n * (2 * reach + 1) ** 2))
                if attempt > escalation:
                    used = whole
                    more = 0
                y0, y1 = max(0, row - reach - more), min(rows, row + reach + more + 1)
                x0, x1 = max(0, column - reach - more), min(columns, column + reach + more + 1)
                if 0 < attempt <= escalation:
                    wanted = max(wanted, int(LEAST_SHARE * _count_box(whole, y0, y1, x0, x1)))
                if _count_box(used, y0, y1, x0, x1) < wanted:
                    continue
                middle, rms = np.nan, np.nan
                if reference.size > 0:
                    middle, rms = reference[row, column]
                if attempt > escalation and not isnan(rms):
                    # Sources all over: clipping would start from quiet values and end at theirs.
                    nodes[row, column, 0] = middle
                    nodes[row, column, 1] = rms
                    break
                if isnan(rms):
                    middle, rms = _guess(used, y0, y1, x0, x1)
                middle, rms = _clip_box(used, (y0, y1, x0, x1), middle, rms, clip, moments, found)
                if not isnan(rms):
                    nodes[row, column, 0] = middle
                    nodes[row, column, 1] = rms
                    break


@numba.njit(cache=True, nogil=True)
def _guess(cells: Cells, y0: int, y1: int, x0: int, x1: int) -> tuple[float, float]:
    """Guess median and rms of a box by its quietest cell, from the two lower quartiles."""
    middle, rms = np.nan, np.nan
    for y in range(y0, y1):
        for x in range(x0, x1):
            count = cells.counts[y, x]
            if count < MIN_SAMPLES:
                continue
            cell = cells.values[y, x]
            spread = 1.4826 * (cells.middles[y, x] - np.float64(cell[count // 4]))
            if spread > 0.0 and not spread >= rms:
                middle, rms = cells.middles[y, x], spread
    return middle, rms


@numba.njit(cache=True, nogil=True)
def find_references(nodes: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Give each cell the values of the lower quartile in rms of the cells at most ``reach`` away."""
    rows, columns = nodes.shape[:2]
    reference = np.full(nodes.shape, np.nan)
    # Only the lower quartile is kept in order.
    most = ((2 * reach + 1) ** 2 - 1) // 4 + 1
    means, spreads = np.empty(most), np.empty(most)
    for row in range(rows):
        for column in range(columns):
            count = 0
            for y in range(max(0, row - reach), min(rows, row + reach + 1)):
                for x in range(max(0, column - reach), min(columns, column + reach + 1)):
                    spread = nodes[y, x, 1]
                    if isnan(spread):
                        continue
                    count += 1
                    if count > most and not spread < spreads[most - 1]:
                        continue
                    at = min(count, most) - 1
                    while at > 0 and spreads[at - 1] > spread:
                        means[at], spreads[at] = means[at - 1], spreads[at - 1]
                        at -= 1
                    means[at], spreads[at] = nodes[y, x, 0], spread
            if count > 0:
                reference[row, column, 0] = means[(count - 1) // 4]
                reference[row, column, 1] = spreads[(count - 1) // 4]
    return reference


@numba.njit(cache=True, nogil=True)
def mask_sources(
    image: NDArray[np.float32],
    samples: NDArray[np.float32],
    reference: NDArray[np.float64],
    y0: int,
    x0: int,
    step: int,
    stride: int,
    grow: int,
    threshold: float,
) -> None:
    """Blank the samples within ``grow`` rows and columns of a pixel above the threshold, in place."""
    ny, nx = image.shape
    side = step // stride
    columns = samples.shape[1]
    row0, column0 = y0 // step, x0 // step
    for y in range(ny):
        row = (y + y0) // step - row0
        for column in range(columns):
            limit = np.float32(reference[row, column, 0] + threshold * reference[row, column, 1])
            first = max(0, (column + column0) * step - x0)
            last = min(nx, (column + column0 + 1) * step - x0)
            # Most stretches hold no source: a look without branches is several times faster.
            hot = False
            for x in range(first, last):
                hot |= (image[y, x] > limit) & (image[y, x] < INFINITE)
            if not hot:
                continue
            for x in range(first, last):
                if not (image[y, x] > limit and image[y, x] < INFINITE):
                    continue
                low_y, low_x = max(0, y - grow), max(0, x - grow)
                for yy in range(low_y + -(low_y + y0) % stride, min(ny, y + grow + 1), stride):
                    at = ((yy + y0) % step) // stride * side
                    for xx in range(low_x + -(low_x + x0) % stride, min(nx, x + grow + 1), stride):
                        samples[
                            (yy + y0) // step - row0,
                            (xx + x0) // step - column0,
                            at + ((xx + x0) % step) // stride,
                        ] = np.nan
