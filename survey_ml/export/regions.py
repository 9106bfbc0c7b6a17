"""Fitted ellipses as regions: DS9 (.reg) and CASA, CARTA (.crtf)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from survey_ml.export.schema import read_column
from survey_ml.export.spool import list_blocks

if TYPE_CHECKING:
    from survey_ml.export.options import ExportOptions

_SHAPED = ("sources", "components")
# In both formats the first semi-axis lies north at angle 0 once DS9's is given as the second:
# DS9 turns the axis along +x, CASA the axis along north, and both turn it eastwards.
_DS9_HEAD = "# Region file format: DS9 version 4.1\nglobal color={color} width=1\nicrs\n"
_DS9_LINE = 'ellipse(%.7f,%.7f,%.3f",%.3f",%.2f) # text={%s}\n'
_CRTF_HEAD = "#CRTFv0\nglobal coord=ICRS, color={color}\n"
_CRTF_LINE = "ellipse [[%.7fdeg, %.7fdeg], [%.3farcsec, %.3farcsec], %.2fdeg], label='%s'\n"
_COLORS = {"sources": "green", "components": "cyan"}


def export_regions(release: Any, folder: Path, options: ExportOptions) -> list[Path]:
    """Write ``.reg`` and ``.crtf`` of the sources and components."""
    paths = []
    for name in _SHAPED:
        if name in options.tables:
            for suffix in ("reg", "crtf"):
                paths.append(folder / f"{name}.{suffix}")
                write_regions(options.tables[name], paths[-1], color=_COLORS[name])
    return paths


def write_regions(table: pa.Table, path: Path, color: str = "green") -> None:
    """Write one ellipse a row: the half-maximum contour of the fitted shape, labelled by name.

    Rows whose position or size is not finite are left out.

    Parameters
    ----------
    table : pyarrow.Table
        With ra, dec, major, minor, pa and name.
    path : Path
        File to write; the suffix, ``.reg`` or ``.crtf``, decides on the format.
    color : str
        Of the lines.
    """
    is_ds9 = path.suffix == ".reg"
    with path.open("w", encoding="utf-8") as out:
        out.write((_DS9_HEAD if is_ds9 else _CRTF_HEAD).format(color=color))
        for rows in list_blocks(len(table)):
            out.writelines(_list_lines(table.slice(rows.start, rows.stop - rows.start), is_ds9))


def _list_lines(table: pa.Table, is_ds9: bool) -> Iterator[str]:
    ra, dec, major, minor, pa_ = (read_column(table, c) for c in ("ra", "dec", "major", "minor", "pa"))
    good = np.isfinite(ra) & np.isfinite(dec) & (major > 0) & (minor > 0)
    angle = np.where(np.isfinite(pa_), pa_, 0.0)
    axes = (minor / 2, major / 2) if is_ds9 else (major / 2, minor / 2)
    numbers = np.stack([ra, dec, *axes, angle], axis=1)[good].tolist()
    names = read_column(table, "name")[good].tolist()
    line = _DS9_LINE if is_ds9 else _CRTF_LINE
    return (line % (*row, name) for row, name in zip(numbers, names, strict=True))
