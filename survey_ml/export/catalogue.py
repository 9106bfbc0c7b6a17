"""Put the table parts of a release together: one table each, with names, duplicates and joins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from survey_ml.errors import PluginError
from survey_ml.export.duplicates import DUPLICATE, find_duplicates
from survey_ml.export.gathering import Gathered, Labels, Part
from survey_ml.export.joins import Joined, has_one_row_each
from survey_ml.export.names import Names
from survey_ml.export.schema import make_table
from survey_ml.export.spool import find_scratch, list_blocks, map_table, open_scratch
from survey_ml.products import Column, Kind, Product

if TYPE_CHECKING:
    from survey_ml.data.commit import Commit
    from survey_ml.data.release import Release
    from survey_ml.data.store import ReleaseStore
    from survey_ml.field import Field

PREFIX = "SML"
_LEFT_OUT_WHEN_EMPTY = ("inverted",)
_PLACE = (
    Column("field", "string", "", "meta.id;obs.field", "Field it belongs to"),
    Column("tile", "string", "", "meta.id", "Tile that made the row"),
)


def assemble(
    release: Release, products: Mapping[str, Product] | None = None, prefix: str = PREFIX
) -> dict[str, pa.Table]:
    """Read all committed table parts of a release and make its catalogue of them.

    Rows are ordered by field and number, so that the result is the same for any tiling but for the
    column ``tile``. Tables over sources are joined to ``sources``; their columns are NaN, empty or
    null for a source that is not in them.

    The tables lie on disk and are mapped from there, so that memory does not grow with what is in
    the rows; what grows are the order, number, position and field of each, some 100 bytes.

    Parameters
    ----------
    release : Release
        An open release.
    products : mapping, optional
        Table products by name, for the columns of tables that are not built in; those of the
        registered stages when not given.
    prefix : str
        Acronym at the start of each name.

    Returns
    -------
    dict
        Table name to Arrow table; units, UCDs and descriptions are in the schema (`columns_in`).
    """
    products = find_products() if products is None else products
    units: dict[str, list[Commit]] = {}
    for commit in release.walk_commits():
        # Of many commits only what their parts are found and checked by.
        bare = replace(commit, made_by={}, summaries={}, info={})
        for name in commit.tables:
            units.setdefault(name, []).append(bare)
    fields = {name: release.field(name).info for name in release.fields}
    scratch, labels = find_scratch(release.store), Labels()
    tables: dict[str, pa.Table] = {}
    with open_scratch(scratch) as folder:
        joins: list[Gathered] = []
        sources: Gathered | None = None
        for name in sorted(units):
            commits = sorted(units.pop(name), key=lambda commit: (commit.unit.field, commit.unit.tile))
            parts = _read_parts(release.store, name, commits)
            first = next(parts)
            columns = list_columns(name, products, (first,))
            alike = _check_alike(products.get(name, Product(name, Kind.TABLE)), chain((first,), parts))
            gathered = Gathered(name, columns, alike, folder / name, labels)
            if name == "sources":
                sources = gathered
            elif name in products and is_over_sources(products[name]) and has_one_row_each(gathered):
                joins.append(gathered)
            elif gathered.n_rows or name not in _LEFT_OUT_WHEN_EMPTY:
                tables[name] = put_together(gathered, fields, prefix, scratch=scratch)
        if sources is not None:
            tables["sources"] = put_together(sources, fields, prefix, joins, scratch=scratch)
        else:
            tables |= {join.name: put_together(join, fields, None, scratch=scratch) for join in joins}
    return dict(sorted(tables.items()))


def _read_parts(store: ReleaseStore, name: str, commits: Sequence[Commit]) -> Iterator[Part]:
    from survey_ml.data.commit import read_table

    for commit in commits:
        yield Part(commit.unit.field, commit.unit.tile, read_table(store, commit.unit, name, commit))


def _check_alike(product: Product, parts: Iterator[Part]) -> Iterator[Part]:
    """Pass parts on; all must have the same columns of each family, and vectors of the same length.

    Raises
    ------
    PluginError
        Names the first two that differ: to fill in what one lacks would hide that models differ.
    """
    from survey_ml.columns import expand_columns, part_columns, table_names

    declared = part_columns(product.name) if product.name in table_names() else product.columns
    loose = [column for column in declared if column.is_family or column.dtype.endswith("[*]")]
    known: tuple[frozenset[Column], Part] | None = None
    for part in parts:
        found = frozenset(expand_columns(loose, part.rows))
        known = known or (found, part)
        if found != known[0]:
            first = known[1]
            names = ", ".join(sorted({f"{c.name} {c.dtype}" for c in found ^ known[0]})[:6])
            raise PluginError(
                f"table {product.name} has other columns in tile {part.tile} of field {part.field} than in "
                f"tile {first.tile} of field {first.field}: {names}",
                "a stage returns the same columns for every tile, also for one without rows",
                stage="export",
            )
        yield part


def find_products() -> dict[str, Product]:
    """Return the table products of all registered stages."""
    from survey_ml.plugins import get_manager

    written = [product for spec in get_manager().stages() for product in spec.writes]
    return {p.name: p for p in written if p.kind is Kind.TABLE}


def is_over_sources(product: Product) -> bool:
    """Tell whether a table has rows over sources and so joins them."""
    from survey_ml.columns import columns_of, table_names

    columns = product.columns
    if not columns and product.name in table_names():
        columns = columns_of(product.name)
    return product.dims == ("source",) and any(c.name == "source_id" for c in columns)


def list_columns(
    name: str, products: Mapping[str, Product], parts: Sequence[Part] = ()
) -> tuple[Column, ...]:
    """Return the columns of a table as exported.

    Of the column table; else as its stage declared them; else, when that stage is not installed any
    more, as the parts hold them.
    """
    from survey_ml.columns import columns_of, columns_written, expand_columns, table_names

    rows = parts[0].rows if parts else {}
    if name in table_names():
        return expand_columns(columns_of(name), rows)
    declared = columns_written(products.get(name, Product(name, Kind.TABLE)), rows)
    return tuple(c for c in _PLACE if c.name not in {d.name for d in declared}) + declared


def put_together(
    table: Gathered,
    fields: Mapping[str, Field],
    prefix: str | None = PREFIX,
    joins: Sequence[Gathered] = (),
    *,
    scratch: Path | None = None,
) -> pa.Table:
    """Make the catalogue's table of gathered rows, block by block, on disk.

    Columns that no stage writes are filled: names, and duplicates in overlapping fields.

    Parameters
    ----------
    table : Gathered
        The rows.
    fields : mapping
        Field name to `Field`, for beams and frequencies.
    prefix : str or None
        Acronym at the start of each name; with None no column is filled.
    joins : sequence of Gathered
        Tables over sources, whose columns are appended; see `Joined`.
    scratch : Path, optional
        Where the rows lie; see `survey_ml.export.spool.find_scratch`.
    """
    have = {column.name for column in table.columns}
    names: Names | None = None
    better: NDArray[np.int64] | None = None
    if prefix is not None and {"name", "ra", "dec"} <= have:
        names = Names(table.read("ra"), table.read("dec"), prefix)
        if {"duplicate_of", "flags", "local_rms"} <= have and len(fields) > 1:
            better = _find_better(table, fields)
    joined = []
    taken = set(have)
    for join in joins:
        joined.append(Joined(join, table, taken))
    columns = [*table.columns, *(column for join in joined for column in join.columns)]

    def make_block(rows: slice) -> pa.Table:
        data = {column.name: table.read(column.name, rows) for column in table.columns}
        missing: dict[str, NDArray[np.bool_]] = {}
        if names is not None:
            data["name"] = names.read(rows)
        if names is not None and better is not None:
            is_duplicate = better[rows] >= 0
            data["duplicate_of"] = np.where(is_duplicate, names.read(np.maximum(better[rows], 0)), "")
            data["flags"] = np.where(is_duplicate, data["flags"] | DUPLICATE, data["flags"])
        for join in joined:
            found, absent = join.read(rows)
            data |= found
            missing |= dict.fromkeys(found, absent)
        return make_table(data, columns, missing)

    empty = make_table({}, columns)
    return map_table(empty.schema, (make_block(rows) for rows in list_blocks(table.n_rows)), scratch)


def _find_better(table: Gathered, fields: Mapping[str, Field]) -> NDArray[np.int64]:
    """Return for each row the row of a better measurement in another field, or -1."""
    code = table.fields()
    info = [fields.get(str(name)) for name in table.field_names()]
    radius = np.array([f.beam.major / 7200.0 if f else np.nan for f in info])
    frequency = np.array([f.frequency if f else np.nan for f in info])
    flags, noise = table.read("flags"), table.read("local_rms")
    return find_duplicates(
        table.read("ra"), table.read("dec"), code, radius[code], noise, flags, frequency[code]
    )
