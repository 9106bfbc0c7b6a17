"""Pixels of a release in which some tiles may never have been made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import DamagedError
from survey_ml.field import split_tiles

if TYPE_CHECKING:
    from survey_ml.data.release import FieldView


def read_made(view: FieldView, product: str, window: tuple[slice, slice]) -> NDArray[Any]:
    """Read a window of an array; NaN (0 for integers) in tiles that were set aside.

    Parameters
    ----------
    view : FieldView
        The field.
    product : str
        The array.
    window : tuple of slice
        Rows and columns, inside the field.

    Raises
    ------
    DamagedError
        When a tile that was made is missing or differs from its checksum.
    """
    try:
        return view.store.lazy(view.name, product)[window]
    except DamagedError:
        return _read_by_tile(view, product, window)


def _read_by_tile(view: FieldView, product: str, window: tuple[slice, slice]) -> NDArray[Any]:
    from survey_ml.data.commit import list_commits

    store, name = view.store, view.name
    lazy = store.lazy(name, product)
    made = {path for commit in list_commits(store, name).values() for path in commit.files}
    (y0, y1), (x0, x1) = ((part.start, part.stop) for part in window)
    out = np.full((y1 - y0, x1 - x0), np.nan if lazy.dtype.kind == "f" else 0, lazy.dtype)
    for tile in split_tiles(view.info.shape, store.core(name), 0):
        core = tile.core
        top, bottom = max(core.y0, y0), min(core.y1, y1)
        left, right = max(core.x0, x0), min(core.x1, x1)
        # A tile that was made must be whole: reading it names what is wrong with it.
        if top < bottom and left < right and store.shard_path(name, product, core) in made:
            part = lazy[top:bottom, left:right]
            out[top - y0 : bottom - y0, left - x0 : right - x0] = part
    return out
