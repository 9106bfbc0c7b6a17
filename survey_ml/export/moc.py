"""The footprint of a release: a MOC of the valid pixels."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from math import ceil, log2, pi, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.export.checksums import FOLDER
from survey_ml.export.pixels import read_made

if TYPE_CHECKING:
    from mocpy import MOC

    from survey_ml.data.release import Release
    from survey_ml.export.options import ExportOptions
    from survey_ml.field import Field

NAME = "footprint.moc.fits"
_WINDOW = 2048
"""Pixels a side read at once."""
_CELL_PX = 8
"""A cell is about this many pixels, so the footprint is true to that."""
_CELLS_A_SIDE = 512
"""Cells along a field at most; a very large field gets coarser cells."""
_DEEPEST = 20
_SKY = 4.0 * pi * np.rad2deg(1.0) ** 2
"""deg^2."""


def export_moc(release: Any, folder: Path, options: ExportOptions) -> list[Path]:
    """Write ``footprint.moc.fits`` of all fields together."""
    footprint: MOC | None = None
    for name in release.fields:
        view = release.field(name)
        if "image" not in view.products:
            continue
        moc = trace_field(view.info, partial(read_made, view, "image"))
        footprint = moc if footprint is None else footprint.union(moc)
    if footprint is None:
        return []
    path = folder / NAME
    footprint.save(path, format="fits", overwrite=True)
    return [path]


def measure_footprint(release: Release) -> float | None:
    """Return the area of sky in the footprint that was exported, overlaps counted once.

    Returns
    -------
    float or None
        deg^2, true to about a cell along the edges; None where no footprint was exported.
    """
    from mocpy import MOC

    data = release.store.medium.read(f"{FOLDER}/{NAME}")
    if data is None:
        return None
    with tempfile.NamedTemporaryFile(suffix=".fits") as file:
        # It is read by path only, and the release may be a URL.
        Path(file.name).write_bytes(data)
        return float(MOC.load(file.name, format="fits").sky_fraction) * _SKY


def choose_order(field: Field) -> int:
    """Return the HEALPix order whose cells suit a field."""
    side = field.pixel_scale * max(_CELL_PX, max(field.shape) / _CELLS_A_SIDE)
    # A cell of order k covers 4 pi / (12 * 4^k).
    return min(_DEEPEST, max(0, int(log2(sqrt(pi / 3.0) / np.deg2rad(side / 3600.0)))))


def trace_field(field: Field, read: Callable[[tuple[slice, slice]], NDArray[Any]]) -> MOC:
    """Return the MOC of a field's valid pixels.

    Parameters
    ----------
    field : Field
        For its WCS and shape.
    read : callable
        Takes a pair of slices and returns those pixels; NaN where there is no data. It is called
        for windows of at most 2048 x 2048, so memory does not grow with the field.

    Returns
    -------
    mocpy.MOC
        Cells that hold the centre of a block of about half a cell with a valid pixel.
    """
    import astropy.units as u
    from mocpy import MOC

    order = choose_order(field)
    cell = np.rad2deg(sqrt(pi / 3.0) / 2**order) * 3600.0 / field.pixel_scale
    block = max(1, int(cell / 2))
    footprint = MOC.new_empty(order)
    for y, x in _list_blocks(field.shape, block, read):
        ra, dec = field.wcs.all_pix2world(x, y, 0, ra_dec_order=True)
        good = np.isfinite(ra) & np.isfinite(dec)
        if good.any():
            cells = MOC.from_lonlat(ra[good] * u.deg, dec[good] * u.deg, max_norder=order)
            footprint = footprint.union(cells)
    return footprint


def _list_blocks(
    shape: tuple[int, int], block: int, read: Callable[[tuple[slice, slice]], NDArray[Any]]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield the centres (y, x) of blocks with a valid pixel, window by window."""
    step = ceil(_WINDOW / block) * block
    for y0 in range(0, shape[0], step):
        for x0 in range(0, shape[1], step):
            y1, x1 = min(y0 + step, shape[0]), min(x0 + step, shape[1])
            valid = np.isfinite(read((slice(y0, y1), slice(x0, x1))))
            rows, columns = np.arange(0, y1 - y0, block), np.arange(0, x1 - x0, block)
            hit = np.logical_or.reduceat(np.logical_or.reduceat(valid, rows, axis=0), columns, axis=1)
            iy, ix = np.nonzero(hit)
            last_y = np.minimum(rows + block, y1 - y0) - 1
            last_x = np.minimum(columns + block, x1 - x0) - 1
            yield y0 + (rows[iy] + last_y[iy]) / 2.0, x0 + (columns[ix] + last_x[ix]) / 2.0
