"""The catalogue under the column names that PyBDSF gives its source and Gaussian lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from survey_ml.columns import columns_of
from survey_ml.export.joins import encode_pairs, match_rows
from survey_ml.export.schema import columns_in, make_table, read_column
from survey_ml.products import Column

DEG = 1.0 / 3600.0
# PyBDSF's name, ours, and the factor between them. Sizes are in degrees there.
_SHARED: tuple[tuple[str, str, float], ...] = (
    ("RA", "ra", 1.0),
    ("E_RA", "ra_err", 1.0),
    ("DEC", "dec", 1.0),
    ("E_DEC", "dec_err", 1.0),
    ("Total_flux", "total_flux", 1.0),
    ("E_Total_flux", "total_flux_err", 1.0),
    ("Peak_flux", "peak_flux", 1.0),
    ("E_Peak_flux", "peak_flux_err", 1.0),
    ("Xposn", "x", 1.0),
    ("Yposn", "y", 1.0),
    ("Maj", "major", DEG),
    ("E_Maj", "major_err", DEG),
    ("Min", "minor", DEG),
    ("E_Min", "minor_err", DEG),
    ("PA", "pa", 1.0),
    ("E_PA", "pa_err", 1.0),
    ("DC_Maj", "dc_major", DEG),
    ("E_DC_Maj", "dc_major_err", DEG),
    ("DC_Min", "dc_minor", DEG),
    ("E_DC_Min", "dc_minor_err", DEG),
    ("DC_PA", "dc_pa", 1.0),
)
_ISLAND: tuple[tuple[str, str], ...] = (
    ("Isl_Total_flux", "total_flux"),
    ("E_Isl_Total_flux", "total_flux_err"),
    ("Isl_rms", "local_rms"),
    ("Resid_Isl_rms", "residual_rms"),
)
_KEPT = ("name", "field", "duplicate_of", "flags")
"""Columns without a counterpart there that a user of several fields needs; they come last, before those
that other stages have joined to sources."""


def rename_tables(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the tables with ``sources`` and ``components`` as PyBDSF's srl and gaul lists.

    ``Source_id``, ``Isl_id`` and ``Gaus_id`` are running numbers from 0 over the whole release,
    so that they are unique where ours are unique within a field. ``S_Code`` is S for one Gaussian
    alone in its island, C for one Gaussian that shares its island, M for several. Columns that are
    not measured here (polarisation, spectral index, ``*_img_plane``) are absent. Other tables stay.

    Parameters
    ----------
    tables : mapping
        As `survey_ml.export.catalogue.assemble` returns them.
    """
    out = dict(tables)
    if "sources" not in tables:
        return out
    sources = tables["sources"]
    islands = tables.get("islands")
    code = _classify(sources)
    out["sources"] = _rename(
        sources,
        [("Source_id", np.arange(len(sources))), ("Isl_id", _number_islands(sources, islands))],
        islands,
        code,
        _place_brightest(sources, tables.get("components")),
    )
    if "components" in tables:
        components = tables["components"]
        parent = _find(components, sources, "source_id")
        ids = [
            ("Gaus_id", np.arange(len(components))),
            ("Isl_id", _number_islands(components, islands)),
            ("Source_id", parent),
            ("Wave_id", np.zeros(len(components), np.int64)),
        ]
        has_parent = parent >= 0
        codes = np.where(has_parent, code[parent], "S") if len(code) else np.full(len(components), "S")
        out["components"] = _rename(components, ids, islands, codes, {})
    return out


def _rename(
    table: pa.Table,
    ids: Sequence[tuple[str, NDArray[np.int64]]],
    islands: pa.Table | None,
    code: NDArray[np.str_],
    more: Mapping[str, tuple[str, NDArray[Any]]],
) -> pa.Table:
    about = {column.name: column for column in columns_in(table)}
    data: dict[str, NDArray[Any]] = {}
    columns: list[Column] = []

    def add(name: str, values: NDArray[Any], like: Column, unit: str | None = None) -> None:
        data[name] = values
        unit = like.unit if unit is None else unit
        columns.append(Column(name, like.dtype, unit, like.ucd, like.description))

    for name, values in ids:
        text = "Running number from 0 over the release"
        add(name, values, Column(name, "int64", "", "meta.id", text))
    for name, ours, factor in _SHARED:
        unit = "deg" if factor != 1.0 else None
        add(name, read_column(table, ours) * factor, about[ours], unit)
        if ours == "dc_pa":
            # PyBDSF writes 0 where there is nothing to deconvolve.
            data[name] = np.nan_to_num(data[name], nan=0.0)
    for name, (ours, values) in more.items():
        add(name, values, about[ours])
    add("Isl_mean", read_column(table, "background"), about["background"])
    if islands is not None and len(islands):
        row = _find(table, islands, "island_id")
        described = {column.name: column for column in columns_in(islands)}
        for name, ours in _ISLAND:
            values = np.where(row >= 0, read_column(islands, ours)[row], np.nan)
            add(name, values, described[ours])
    else:
        add("Isl_rms", read_column(table, "local_rms"), about["local_rms"])
    text = "S single Gaussian alone in its island, C single Gaussian with others in it, M several Gaussians"
    add("S_Code", code, Column("S_Code", "string", "", "meta.code.class", text))
    measured = {column.name for kind in ("sources", "components") for column in columns_of(kind)}
    joined = [name for name in about if name not in measured]
    for name in (*_KEPT, *joined):
        if name in about:
            add(name, read_column(table, name), about[name])
    return make_table(data, columns, {name: table.column(name).is_null().to_numpy() for name in joined})


def _find(table: pa.Table, other: pa.Table, number: str, other_number: str = "") -> NDArray[np.int64]:
    """Return for each row of a table the row of another with the same field and number, or -1."""
    return match_rows(
        read_column(table, "field"),
        read_column(table, number),
        read_column(other, "field"),
        read_column(other, other_number or number),
    )


def _number_islands(table: pa.Table, islands: pa.Table | None) -> NDArray[np.int64]:
    if islands is not None:
        return _find(table, islands, "island_id")
    key = encode_pairs(read_column(table, "field"), read_column(table, "island_id"))
    return np.unique(key, return_inverse=True)[1].astype(np.int64)


def _classify(sources: pa.Table) -> NDArray[np.str_]:
    """Return S, C or M for each source."""
    island = encode_pairs(read_column(sources, "field"), read_column(sources, "island_id"))
    _, inverse, counts = np.unique(island, return_inverse=True, return_counts=True)
    several = read_column(sources, "n_components") > 1
    return np.where(several, "M", np.where(counts[inverse] > 1, "C", "S"))


def _place_brightest(sources: pa.Table, components: pa.Table | None) -> dict[str, tuple[str, NDArray[Any]]]:
    """Return the position of each source's brightest component, whose number it bears."""
    if components is None or not len(components):
        return {}
    row = _find(sources, components, "source_id", "component_id")
    names = {"RA_max": "ra", "E_RA_max": "ra_err", "DEC_max": "dec", "E_DEC_max": "dec_err"}
    return {
        name: (ours, np.where(row >= 0, read_column(components, ours)[row], np.nan))
        for name, ours in names.items()
    }
