"""Rows of one table matched to rows of another by field and number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from survey_ml.export.schema import fill_column, make_table
from survey_ml.products import Column
from survey_ml.stage import Table


@dataclass(frozen=True)
class Joined:
    """A table over sources, to be joined to them by field and source_id."""

    name: str
    columns: tuple[Column, ...]
    data: Table


def has_one_row_each(data: Table) -> bool:
    """Tell whether no source has two rows, without which a join would repeat sources."""
    pairs = encode_pairs(data["field"], data["source_id"])
    return len(np.unique(pairs)) == len(pairs)


def join_sources(
    sources: dict[str, NDArray[Any]], columns: Sequence[Column], joins: Sequence[Joined]
) -> pa.Table:
    """Append the columns of tables over sources to the sources, matched by field and source_id.

    A column whose name is taken gets the table's name in front. Where a source has no row, floats
    are NaN, strings empty, integers and booleans null.
    """
    data = dict(sources)
    out = list(columns)
    missing: dict[str, NDArray[np.bool_]] = {}
    for join in joins:
        row = match_rows(data["field"], data["source_id"], join.data["field"], join.data["source_id"])
        absent = row < 0
        for column in join.columns:
            if column.name in ("field", "tile", "source_id"):
                continue
            name = f"{join.name}_{column.name}" if column.name in data else column.name
            values = join.data[column.name]
            taken = values[row] if len(values) else fill_column(column, len(row))
            if absent.any():
                taken = taken.copy()
                taken[absent] = fill_column(column, 1)[0]
            data[name] = taken
            missing[name] = absent
            out.append(Column(name, column.dtype, column.unit, column.ucd, column.description))
    return make_table(data, out, missing)


def match_rows(
    field: NDArray[np.str_],
    number: NDArray[np.int64],
    in_field: NDArray[np.str_],
    in_number: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return for each (field, number) the row of the same pair in another table, or -1.

    Parameters
    ----------
    field, number : ndarray
        Shape (n,): what to look for.
    in_field, in_number : ndarray
        Shape (m,): where to look; of equal rows the first is found.

    Returns
    -------
    ndarray
        Shape (n,), int64.
    """
    n = len(number)
    if not len(in_number):
        return np.full(n, -1, np.int64)
    key = encode_pairs(np.concatenate([field, in_field]), np.concatenate([number, in_number]))
    order = np.argsort(key[n:], kind="stable")
    ordered = key[n:][order]
    place = np.minimum(np.searchsorted(ordered, key[:n]), len(ordered) - 1)
    return np.where(ordered[place] == key[:n], order[place], -1)


def encode_pairs(field: NDArray[np.str_], number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one integer for each (field, number), equal where both are; shape (n,)."""
    _, code = np.unique(field, return_inverse=True)
    numbers, rank = np.unique(number, return_inverse=True)
    return np.asarray(code.astype(np.int64) * max(1, len(numbers)) + rank)
