"""Put the table parts of a release together: one table each, with names, duplicates and joins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from survey_ml.export.duplicates import DUPLICATE, find_duplicates
from survey_ml.export.joins import Joined, has_one_row_each, join_sources
from survey_ml.export.names import make_unique, name_positions
from survey_ml.export.schema import fill_column, make_table, split_dtype
from survey_ml.products import Column, Kind, Product
from survey_ml.stage import Table

if TYPE_CHECKING:
    from survey_ml.data.commit import Commit
    from survey_ml.data.release import Release
    from survey_ml.field import Field

PREFIX = "SML"
_LEFT_OUT_WHEN_EMPTY = ("inverted",)
_PLACE = (
    Column("field", "string", "", "meta.id;obs.field", "Field it belongs to"),
    Column("tile", "string", "", "meta.id", "Tile that made the row"),
)


@dataclass(frozen=True)
class Part:
    """The rows of one unit of work."""

    field: str
    tile: str
    rows: Table


def assemble(
    release: Release, products: Mapping[str, Product] | None = None, prefix: str = PREFIX
) -> dict[str, pa.Table]:
    """Read all committed table parts of a release and make its catalogue of them.

    Rows are ordered by field and number, so that the result is the same for any tiling but for the
    column ``tile``. Tables over sources are joined to ``sources``; their columns are NaN, empty or
    null for a source that is not in them.

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
    from survey_ml.data.commit import read_table

    products = find_products() if products is None else products
    units: dict[str, list[Commit]] = {}
    for commit in release.commits().values():
        for name in commit.tables:
            units.setdefault(name, []).append(commit)
    fields = {name: release.field(name).info for name in release.fields}
    tables: dict[str, pa.Table] = {}
    joins: list[Joined] = []
    sources: dict[str, NDArray[Any]] | None = None
    for name in sorted(units):
        parts = [
            Part(c.unit.field, c.unit.tile, read_table(release.store, c.unit, name, c)) for c in units[name]
        ]
        columns = list_columns(name, products, parts)
        data = gather_rows(parts, columns)
        if name == "sources":
            sources = add_columns(data, columns, fields, prefix)
        elif name in products and is_over_sources(products[name]) and has_one_row_each(data):
            joins.append(Joined(name, columns, data))
        elif len(data["field"]) or name not in _LEFT_OUT_WHEN_EMPTY:
            tables[name] = make_table(add_columns(data, columns, fields, prefix), columns)
    if sources is not None:
        tables["sources"] = join_sources(sources, list_columns("sources", products), joins)
    else:
        tables |= {join.name: make_table(join.data, join.columns) for join in joins}
    return dict(sorted(tables.items()))


def find_products() -> dict[str, Product]:
    """Return the table products with columns of their own, of all registered stages."""
    from survey_ml.plugins import get_manager

    written = [product for spec in get_manager().stages() for product in spec.writes]
    return {p.name: p for p in written if p.kind is Kind.TABLE and p.columns}


def is_over_sources(product: Product) -> bool:
    """Tell whether a table has rows over sources and so joins them."""
    return product.dims == ("source",) and any(c.name == "source_id" for c in product.columns)


def list_columns(
    name: str, products: Mapping[str, Product], parts: Sequence[Part] = ()
) -> tuple[Column, ...]:
    """Return the columns of a table as exported.

    Of the column table; else as its stage declared them; else, when that stage is not installed any
    more, as the parts hold them.
    """
    from survey_ml.columns import columns_of, columns_written, table_names

    if name in table_names():
        return columns_of(name)
    declared = columns_written(products.get(name, Product(name, Kind.TABLE)), parts[0].rows if parts else {})
    return tuple(c for c in _PLACE if c.name not in {d.name for d in declared}) + declared


def gather_rows(parts: Iterable[Part], columns: Sequence[Column]) -> dict[str, NDArray[Any]]:
    """Concatenate parts and order the rows by field and number.

    Parameters
    ----------
    parts : iterable of Part
        In any order.
    columns : sequence of Column
        The columns wanted; one that a part lacks is filled, others are dropped.

    Returns
    -------
    dict
        Column name to array, with ``field`` and ``tile`` of the part.
    """
    ordered = sorted(parts, key=lambda part: (part.field, part.tile))
    lengths = [len(next(iter(part.rows.values()), ())) for part in ordered]
    data: dict[str, NDArray[Any]] = {}
    for column in columns:
        pieces = []
        for part, length in zip(ordered, lengths, strict=True):
            if column.name in part.rows:
                piece = np.asarray(part.rows[column.name])
            elif column.name in ("field", "tile"):
                piece = np.full(length, getattr(part, column.name))
            else:
                piece = fill_column(column, length)
            pieces.append(piece)
        kind = split_dtype(column.dtype)[0]
        empty = fill_column(column, 0)
        joined = np.concatenate(pieces) if pieces else empty
        data[column.name] = joined.astype(np.str_ if kind == "string" else kind, copy=False)
    return sort_rows(data, columns)


def sort_rows(data: dict[str, NDArray[Any]], columns: Sequence[Column]) -> dict[str, NDArray[Any]]:
    """Order rows by field and then by the table's own number, its first integer ``*_id`` column."""
    number = next((c.name for c in columns if c.name.endswith("_id") and c.dtype.startswith("int")), None)
    keys = (data[number], data["field"]) if number else (data["field"],)
    order = np.lexsort(keys)
    return {name: values[order] for name, values in data.items()}


def add_columns(
    data: dict[str, NDArray[Any]],
    columns: Sequence[Column],
    fields: Mapping[str, Field],
    prefix: str = PREFIX,
) -> dict[str, NDArray[Any]]:
    """Fill the columns that no stage writes: names, and duplicates in overlapping fields.

    Parameters
    ----------
    data : dict
        Ordered rows with all of ``columns``.
    columns : sequence of Column
        Of the table; what it does not have is not filled.
    fields : mapping
        Field name to `Field`, for beams and frequencies.
    prefix : str
        Acronym at the start of each name.
    """
    have = {column.name for column in columns}
    if not {"name", "ra", "dec"} <= have:
        return data
    data = data | {"name": make_unique(name_positions(data["ra"], data["dec"], prefix))}
    if not {"duplicate_of", "flags", "local_rms"} <= have or len(fields) < 2:
        return data
    names, code = np.unique(data["field"], return_inverse=True)
    info = [fields.get(str(name)) for name in names]
    radius = np.array([f.beam.major / 7200.0 if f else np.nan for f in info])
    frequency = np.array([f.frequency if f else np.nan for f in info])
    better = find_duplicates(
        data["ra"], data["dec"], code, radius[code], data["local_rms"], data["flags"], frequency[code]
    )
    is_duplicate = better >= 0
    data["duplicate_of"] = np.where(is_duplicate, data["name"][better], "")
    data["flags"] = np.where(is_duplicate, data["flags"] | DUPLICATE, data["flags"])
    return data
