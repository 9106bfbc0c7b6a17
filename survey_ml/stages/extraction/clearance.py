"""Whether a window shows enough of the field for what its tile must measure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from survey_ml.field import Tile, Window


def find_exact(window: Window, shape: tuple[int, int], margin: int) -> Window:
    """Return the part of a window that is ``margin`` px from every side that cuts the field."""
    return Window(
        window.y0 + margin if window.y0 > 0 else 0,
        window.y1 - margin if window.y1 < shape[0] else shape[0],
        window.x0 + margin if window.x0 > 0 else 0,
        window.x1 - margin if window.x1 < shape[1] else shape[1],
    )


def shows_enough(
    image: NDArray[np.float32],
    background: NDArray[np.float32],
    rms: NDArray[np.float32],
    *,
    tile: Tile,
    shape: tuple[int, int],
    flood_snr: float,
    margin: int,
    pad: int,
) -> bool:
    """Tell whether all that reaches the core lies where the window's maps are exact.

    Parameters
    ----------
    image, background, rms : (ny, nx) float32
        Of the tile's window.
    tile : Tile
    shape : tuple of int
        Of the field.
    flood_snr : float
        What joins pixels into islands. Connected pixels count even without a seed in the window:
        the seed may be outside.
    margin : int
        Pixels from a cut side within which the maps, or what a fit looks at, may be inexact.
    pad : int
        An island matters when its box, grown by this much, touches the core.
    """
    window, core = tile.window, tile.core
    exact = find_exact(window, shape, margin)
    wanted = core.grow(pad, shape)
    if exact.y0 > wanted.y0 or exact.y1 < wanted.y1 or exact.x0 > wanted.x0 or exact.x1 < wanted.x1:
        return False
    cut = (exact.y0 > 0, exact.y1 < shape[0], exact.x0 > 0, exact.x1 < shape[1])
    if not any(cut):
        return True
    part = exact.inside(window)
    # A little below the threshold, so that rounding cannot hide a bridge.
    bright = image[part] - background[part] > np.float32(0.999 * flood_snr) * rms[part]
    labels, _ = ndimage.label(bright, structure=np.ones((3, 3)))
    sides = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    crossing = np.unique(np.concatenate([side for side, is_cut in zip(sides, cut, strict=True) if is_cut]))
    boxes = ndimage.find_objects(labels)
    for number in crossing[crossing > 0]:
        rows, columns = boxes[number - 1]
        if (
            rows.start + exact.y0 < wanted.y1
            and rows.stop + exact.y0 > wanted.y0
            and columns.start + exact.x0 < wanted.x1
            and columns.stop + exact.x0 > wanted.x0
        ):
            return False
    return True
