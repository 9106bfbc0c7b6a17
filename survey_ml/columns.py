"""Every column of every table, read once from ``columns.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from survey_ml.errors import PluginError
from survey_ml.products import Column, Product
from survey_ml.stage import Table


@cache
def _read_definitions() -> dict[str, Any]:
    """Parse the YAML; the C loader is ten times faster where it was built."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = files("survey_ml").joinpath("columns.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=loader)  # noqa: S506


def _find_table(name: str) -> dict[str, Any]:
    """Follow ``like`` to the definition of a built-in table."""
    tables = _read_definitions()["tables"]
    if name not in tables:
        raise KeyError(name)
    definition = tables[name]
    return _find_table(definition["like"]) if "like" in definition else definition


def table_names() -> tuple[str, ...]:
    """Return the names of the built-in tables."""
    return tuple(_read_definitions()["tables"])


@cache
def columns_of(table: str) -> tuple[Column, ...]:
    """Return all columns of a built-in table, in the order of the exports.

    Parameters
    ----------
    table : str
        Name under ``tables`` in ``columns.yaml``.

    Raises
    ------
    KeyError
        When there is no such table.
    """
    blocks = _read_definitions()["blocks"]
    rows: list[list[str]] = []
    for entry in _find_table(table)["columns"]:
        rows.extend(blocks[entry] if isinstance(entry, str) else [entry])
    return tuple(Column(*row) for row in rows)


@cache
def part_columns(table: str) -> tuple[Column, ...]:
    """Return the columns that a stage writes: those that are not added on assembly."""
    added = frozenset(_find_table(table).get("assembled", ()))
    return tuple(column for column in columns_of(table) if column.name not in added)


def assembled_columns(table: str) -> tuple[Column, ...]:
    """Return the columns that are added when the parts of a release are put together."""
    written = {column.name for column in part_columns(table)}
    return tuple(column for column in columns_of(table) if column.name not in written)


def expand_columns(columns: Sequence[Column], rows: Table) -> tuple[Column, ...]:
    """Put what rows hold in place of families of columns, and of vectors of a length not said.

    Parameters
    ----------
    columns : sequence of Column
        As declared.
    rows : Table
        Column name to array.

    Returns
    -------
    tuple of Column
        In the order declared; members of a family as the rows have them. A column is of the
        family with the longest beginning, unless it is declared by its own name. Columns that
        nothing declares are left out, and those that rows lack stay as they are.
    """
    own = {column.name for column in columns if not column.is_family}
    families = sorted((c for c in columns if c.is_family), key=lambda c: -len(c.name))
    members: dict[str, list[Column]] = {family.name: [] for family in families}
    for name in rows:
        family = next((c for c in families if c.stands_for(name)), None)
        if family is not None and name not in own:
            text = family.description.replace("*", name[len(family.name) - 1 :])
            members[family.name].append(replace(family, name=name, description=text))
    expanded = []
    for column in columns:
        expanded += members[column.name] if column.is_family else [column]
    return tuple(_measure_vector(column, rows) for column in expanded)


def _measure_vector(column: Column, rows: Table) -> Column:
    """Put the length of the vectors of a column in place of ``*``."""
    if not column.dtype.endswith("[*]") or column.name not in rows:
        return column
    values = np.asarray(rows[column.name])
    if values.ndim != 2 or not values.shape[1]:
        raise PluginError(
            f"column {column.name!r} has shape {values.shape}, not (n, d) with vectors of one length",
            "return an array of shape (0, d) where there is no row",
        )
    return replace(column, dtype=f"{column.dtype[:-2]}{values.shape[1]}]")


def columns_written(product: Product, rows: Table) -> tuple[Column, ...]:
    """Return the columns of a table part that a stage wrote.

    Those the product declares, else those of the built-in table of that name, else what the rows
    hold, without units or descriptions. Families stand for what the rows hold of them.

    Parameters
    ----------
    product : Product
        The table as declared.
    rows : Table
        The rows as returned.
    """
    if product.columns:
        return expand_columns(product.columns, rows)
    if product.name in table_names():
        return expand_columns(part_columns(product.name), rows)
    return tuple(Column(name, _name_dtype(name, np.asarray(values))) for name, values in rows.items())


def _name_dtype(name: str, values: np.ndarray) -> str:
    """Return the column dtype that holds ``values``."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind in "USOT":
        return "string"
    base = {"f": "float32" if size <= 4 else "float64", "b": "bool"}.get(kind)
    if kind in "iu":
        base = "int32" if size < 4 or (kind == "i" and size == 4) else "int64"
    if base is None or values.ndim > 2:
        raise PluginError(
            f"column {name!r} has dtype {values.dtype} and {values.ndim} axes",
            "Return numbers, booleans or strings with one row an object, or vectors of one length.",
        )
    return f"{base}[{values.shape[1]}]" if values.ndim == 2 else base
