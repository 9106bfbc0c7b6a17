"""Islands: connected pixels above a flood threshold that hold a pixel above a seed threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from survey_ml.field import Window


@dataclass(frozen=True)
class Islands:
    """Islands of a window, in the order of their brightest pixels, row by row.

    Everything is in pixels of the window, zero-based. Island ``i`` has label ``i + 1``.

    Parameters
    ----------
    boxes : (n, 4) array of int32
        ``y0, y1, x0, x1``, half open: rows ``y0:y1`` and columns ``x0:x1``.
    n_pixels : (n,) array of int64
    peak_y, peak_x : (n,) arrays of int32
        The brightest pixel in S/N; of equal ones the first row, then the first column.
    peak_snr : (n,) array of float32
    touches_blank : (n,) array of bool
        A pixel is next to one without data or to the border of the window.
    starts : (n + 1,) array of int64
        Pixels of island ``i`` are ``pixels[starts[i]:starts[i + 1]]``.
    pixels : array of int64
        Flat indices into the window, ascending in each island.
    """

    boxes: NDArray[np.int32]
    n_pixels: NDArray[np.int64]
    peak_y: NDArray[np.int32]
    peak_x: NDArray[np.int32]
    peak_snr: NDArray[np.float32]
    touches_blank: NDArray[np.bool_]
    starts: NDArray[np.int64]
    pixels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.n_pixels)

    def measure_clearance(self, window: Window, shape: tuple[int, int]) -> NDArray[np.int64]:
        """Return how far each island stays from where the window cuts the field.

        Parameters
        ----------
        window : Window
            Of the array that the islands were found in.
        shape : tuple of int
            Of the field; sides of the window on its border cut nothing.

        Returns
        -------
        (n,) array of int64
            Pixels between the island and the nearest such side, 0 where it touches one; a very large
            number where the window cuts nothing.
        """
        clearance = np.full(len(self), np.iinfo(np.int64).max)
        ny, nx = window.shape
        if window.y0 > 0:
            clearance = np.minimum(clearance, self.boxes[:, 0])
        if window.y1 < shape[0]:
            clearance = np.minimum(clearance, ny - self.boxes[:, 1])
        if window.x0 > 0:
            clearance = np.minimum(clearance, self.boxes[:, 2])
        if window.x1 < shape[1]:
            clearance = np.minimum(clearance, nx - self.boxes[:, 3])
        return clearance


def find_islands(
    image: NDArray[np.float32],
    background: NDArray[np.float32],
    rms: NDArray[np.float32],
    *,
    seed_snr: float = 5.0,
    flood_snr: float = 3.0,
) -> tuple[NDArray[np.int32], Islands]:
    """Find the 8-connected islands of an image.

    The S/N is ``(image - background) / rms`` in single precision. Pixels where that is
    not finite, or the rms not positive, belong to no island.

    Parameters
    ----------
    image, background, rms : (ny, nx) arrays of float32
    seed_snr : float
        An island has at least one pixel above it.
    flood_snr : float
        Every pixel of an island is above it.

    Returns
    -------
    labels : (ny, nx) array of int32
        Number of the island, from 1; 0 elsewhere.
    islands : Islands

    Raises
    ------
    ValueError
        If the seed threshold is below the flood threshold or the flood threshold is not positive.
    """
    if not seed_snr >= flood_snr > 0.0:
        raise ValueError(f"seed_snr {seed_snr} must be at least flood_snr {flood_snr}, and that above 0")
    arrays = [np.ascontiguousarray(a, dtype=np.float32) for a in (image, background, rms)]
    labels = np.zeros(arrays[0].shape, dtype=np.int32)
    rows, peak_snr, pixels = _flood(*arrays, np.float32(seed_snr), np.float32(flood_snr), labels)
    order = np.lexsort((rows[:, 5], rows[:, 4]))
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(rows[order, 6], out=starts[1:])
    pixels = _sort_islands(pixels, rows[:, 7], starts, order, labels)
    rows = rows[order]
    return labels, Islands(
        boxes=rows[:, :4].astype(np.int32),
        n_pixels=rows[:, 6].copy(),
        peak_y=rows[:, 4].astype(np.int32),
        peak_x=rows[:, 5].astype(np.int32),
        peak_snr=peak_snr[order],
        touches_blank=rows[:, 8] != 0,
        starts=starts,
        pixels=pixels,
    )


@numba.njit(cache=True, nogil=True, inline="always")
def _divide(value: np.float32, background: np.float32, rms: np.float32) -> np.float32:
    """Return the S/N of a pixel in single precision; NaN where it is not finite."""
    snr = (value - background) / rms if rms > np.float32(0.0) else np.float32(np.nan)
    return snr if np.isfinite(snr) else np.float32(np.nan)


@numba.njit(cache=True, nogil=True)
def _flood(
    image: NDArray[np.float32],
    background: NDArray[np.float32],
    rms: NDArray[np.float32],
    seed: np.float32,
    flood: np.float32,
    labels: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Flood from each seed that no island has yet, in the order of rows.

    Returns
    -------
    rows : (n, 9) array of int64
        y0, y1, x0, x1, peak row, peak column, pixels, start in the list of pixels, touches blank.
    peak_snr : (n,) array of float32
    pixels : array of int64
        Flat indices of all islands, one island after the other.
    """
    ny, nx = image.shape
    rows = np.empty((64, 9), dtype=np.int64)
    peaks = np.empty(64, dtype=np.float32)
    pixels = np.empty(4096, dtype=np.int64)
    count = 0
    end = 0
    hot = np.empty(nx, dtype=np.bool_)
    for y in range(ny):
        # A row at a time without branches is several times faster than asking each pixel.
        any_hot = False
        for x in range(nx):
            hot[x] = image[y, x] - background[y, x] > seed * rms[y, x] * np.float32(0.999)
            any_hot |= hot[x]
        if not any_hot:
            continue
        for x in range(nx):
            if not hot[x] or labels[y, x] != 0:
                continue
            if not _divide(image[y, x], background[y, x], rms[y, x]) > seed:
                continue
            if count == len(rows):
                more_rows = np.empty((2 * count, 9), dtype=np.int64)
                more_rows[:count] = rows
                rows = more_rows
                more_peaks = np.empty(2 * count, dtype=np.float32)
                more_peaks[:count] = peaks
                peaks = more_peaks
            start = end
            if end == len(pixels):
                more = np.empty(2 * end, dtype=np.int64)
                more[:end] = pixels
                pixels = more
            pixels[end] = y * nx + x
            end += 1
            labels[y, x] = count + 1
            at = start
            low_y, high_y, low_x, high_x = y, y, x, x
            peak, peak_y, peak_x = np.float32(-1.0), y, x
            blank = False
            while at < end:
                row, column = pixels[at] // nx, pixels[at] % nx
                at += 1
                value = _divide(image[row, column], background[row, column], rms[row, column])
                if value > peak or (value == peak and (row < peak_y or (row == peak_y and column < peak_x))):
                    peak, peak_y, peak_x = value, row, column
                low_y, high_y = min(low_y, row), max(high_y, row)
                low_x, high_x = min(low_x, column), max(high_x, column)
                for yy in range(row - 1, row + 2):
                    for xx in range(column - 1, column + 2):
                        if yy < 0 or yy >= ny or xx < 0 or xx >= nx:
                            blank = True
                            continue
                        if labels[yy, xx] != 0:
                            continue
                        near = _divide(image[yy, xx], background[yy, xx], rms[yy, xx])
                        if near > flood:
                            labels[yy, xx] = count + 1
                            if end == len(pixels):
                                more = np.empty(2 * end, dtype=np.int64)
                                more[:end] = pixels
                                pixels = more
                            pixels[end] = yy * nx + xx
                            end += 1
                        elif not np.isfinite(near):
                            blank = True
            rows[count, 0], rows[count, 1] = low_y, high_y + 1
            rows[count, 2], rows[count, 3] = low_x, high_x + 1
            rows[count, 4], rows[count, 5] = peak_y, peak_x
            rows[count, 6], rows[count, 7] = end - start, start
            rows[count, 8] = 1 if blank else 0
            peaks[count] = peak
            count += 1
    return rows[:count].copy(), peaks[:count].copy(), pixels[:end].copy()


@numba.njit(cache=True, nogil=True)
def _sort_islands(
    pixels: NDArray[np.int64],
    old_starts: NDArray[np.int64],
    starts: NDArray[np.int64],
    order: NDArray[np.int64],
    labels: NDArray[np.int32],
) -> NDArray[np.int64]:
    """Put the islands' pixels into the final order and number the labels after it."""
    nx = labels.shape[1]
    result = np.empty_like(pixels)
    for new in range(len(order)):
        begin = old_starts[order[new]]
        size = starts[new + 1] - starts[new]
        result[starts[new] : starts[new + 1]] = np.sort(pixels[begin : begin + size])
        for i in range(starts[new], starts[new + 1]):
            labels[result[i] // nx, result[i] % nx] = new + 1
    return result
