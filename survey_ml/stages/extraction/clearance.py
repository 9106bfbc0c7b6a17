"""Whether a window shows enough of the field for what its tile must measure."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from survey_ml.field import Tile, Window


def find_exact(window: Window, shape: tuple[int, int], margin: int) -> Window:
    """Return the part of a window that is ``margin`` px from every side that cuts the field."""
    return Window(
        window.y0 + margin if window.y0 > 0 else 0,
        window.y1 - margin if window.y1 < shape[0] else shape[0],
        window.x0 + margin if window.x0 > 0 else 0,
        window.x1 - margin if window.x1 < shape[1] else shape[1],
    )


def holds_core(tile: Tile, shape: tuple[int, int], margin: int, pad: int) -> bool:
    """Tell whether the exact part of a tile's window holds the core and ``pad`` px around it."""
    exact, wanted = find_exact(tile.window, shape, margin), tile.core.grow(pad, shape)
    return exact.y0 <= wanted.y0 and exact.y1 >= wanted.y1 and exact.x0 <= wanted.x0 and exact.x1 >= wanted.x1


def shows_enough(
    image: NDArray[np.float32],
    background: NDArray[np.float32],
    rms: NDArray[np.float32],
    *,
    window: Window,
    core: Window,
    shape: tuple[int, int],
    flood_snr: float,
    margin: int,
    pad: int,
) -> bool:
    """Tell whether all that reaches the core lies where measurements are exact.

    Parameters
    ----------
    image, background, rms : (ny, nx) float32
        Of the window.
    window : Window
        Where the maps are exact.
    core : Window
        Of the tile.
    shape : tuple of int
        Of the field.
    flood_snr : float
        What joins pixels into islands. Connected pixels count even without a seed in the window:
        the seed may be outside.
    margin : int
        Pixels from a cut side within which what a fit looks at may be cut off.
    pad : int
        An island matters when its box, grown by this much, touches the core.
    """
    exact = find_exact(window, shape, margin)
    cut = (exact.y0 > 0, exact.y1 < shape[0], exact.x0 > 0, exact.x1 < shape[1])
    if not any(cut):
        return True
    part = exact.inside(window)
    wanted = core.grow(pad, shape).inside(exact)
    return not _crosses(
        image[part],
        background[part],
        rms[part],
        # A little below the threshold, so that rounding cannot hide a bridge.
        np.float32(0.999 * flood_snr),
        cut,
        (wanted[0].start, wanted[0].stop, wanted[1].start, wanted[1].stop),
    )


@njit(cache=True, nogil=True)
def _crosses(
    image: NDArray[np.float32],
    background: NDArray[np.float32],
    rms: NDArray[np.float32],
    flood: np.float32,
    cut: tuple[bool, bool, bool, bool],
    wanted: tuple[int, int, int, int],
) -> bool:
    """Tell whether bright connected pixels lead from a side that is cut to near the core.

    ``cut`` tells it of the first and last row and the first and last column; near is where the box
    around the pixels touches ``wanted`` (y0, y1, x0, x1). Only what touches a cut side is looked at.
    """
    ny, nx = image.shape
    seen = np.zeros((ny, nx), np.bool_)
    stack = np.empty((1024, 2), np.int32)
    for side in range(4):
        if not cut[side]:
            continue
        for at in range(nx if side < 2 else ny):
            y = (0 if side == 0 else ny - 1) if side < 2 else at
            x = at if side < 2 else (0 if side == 2 else nx - 1)
            if seen[y, x] or not image[y, x] - background[y, x] > flood * rms[y, x]:
                continue
            seen[y, x] = True
            stack[0, 0], stack[0, 1] = y, x
            end = 1
            low_y, high_y, low_x, high_x = y, y, x, x
            while end > 0:
                end -= 1
                row, column = stack[end, 0], stack[end, 1]
                low_y, high_y = min(low_y, row), max(high_y, row)
                low_x, high_x = min(low_x, column), max(high_x, column)
                for v in range(max(0, row - 1), min(ny, row + 2)):
                    for u in range(max(0, column - 1), min(nx, column + 2)):
                        if seen[v, u] or not image[v, u] - background[v, u] > flood * rms[v, u]:
                            continue
                        seen[v, u] = True
                        if end == len(stack):
                            more = np.empty((2 * end, 2), np.int32)
                            more[:end] = stack
                            stack = more
                        stack[end, 0], stack[end, 1] = v, u
                        end += 1
            if low_y < wanted[1] and high_y >= wanted[0] and low_x < wanted[3] and high_x >= wanted[2]:
                return True
    return False
