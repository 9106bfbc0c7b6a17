"""Rows of one table matched to rows of another by field and number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.export.schema import fill_column
from survey_ml.products import Column

if TYPE_CHECKING:
    from survey_ml.export.gathering import Gathered


def has_one_row_each(table: Gathered) -> bool:
    """Tell whether no source has two rows, without which a join would repeat sources."""
    pairs = encode_pairs(table.fields(), table.read("source_id"))
    return len(np.unique(pairs)) == len(pairs)


class Joined:
    """The columns of a table over sources, matched to sources by field and source_id.

    A column whose name is taken gets the table's name in front. Where a source has no row, floats
    are NaN, strings empty, integers and booleans null.

    Parameters
    ----------
    table : Gathered
        The table over sources.
    sources : Gathered
        The sources.
    taken : set of str
        Names of columns so far; those of this table are added.
    """

    def __init__(self, table: Gathered, sources: Gathered, taken: set[str]) -> None:
        self._table = table
        self._row = match_rows(
            sources.fields(), sources.read("source_id"), table.fields(), table.read("source_id")
        )
        self._source: dict[str, Column] = {}
        columns = []
        for column in table.columns:
            if column.name in ("field", "tile", "source_id"):
                continue
            name = f"{table.name}_{column.name}" if column.name in taken else column.name
            taken.add(name)
            self._source[name] = column
            columns.append(Column(name, column.dtype, column.unit, column.ucd, column.description))
        self.columns = tuple(columns)

    def read(self, rows: slice) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
        """Return the columns for some sources, and which of these sources have no row."""
        row = self._row[rows]
        absent = row < 0
        found: dict[str, NDArray[Any]] = {}
        for name, column in self._source.items():
            values = self._table.read(column.name, row[~absent])
            whole = fill_column(column, len(row))
            if whole.dtype.kind == "U":
                whole = whole.astype(values.dtype)
            whole[~absent] = values
            found[name] = whole
        return found, absent


def match_rows(
    field: NDArray[Any],
    number: NDArray[np.int64],
    in_field: NDArray[Any],
    in_number: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return for each (field, number) the row of the same pair in another table, or -1.

    Parameters
    ----------
    field, number : ndarray
        Shape (n,): what to look for; fields by name or by number.
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


def encode_pairs(field: NDArray[Any], number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one integer for each (field, number), equal where both are; shape (n,)."""
    _, code = np.unique(field, return_inverse=True)
    numbers, rank = np.unique(number, return_inverse=True)
    return np.asarray(code.astype(np.int64) * max(1, len(numbers)) + rank)
