"""The rows of all parts of a table, in the order of the catalogue, read where they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.export.schema import split_dtype
from survey_ml.export.spool import Spool
from survey_ml.products import Column
from survey_ml.stage import Table

_CODE = (Column("_field", "int32"), Column("_tile", "int32"))
_PLACE = ("field", "tile")


@dataclass(frozen=True)
class Part:
    """The rows of one unit of work."""

    field: str
    tile: str
    rows: Table


class Labels:
    """Numbers for names that many rows share; the same for all tables of a release."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def encode(self, names: Any, n_rows: int) -> NDArray[np.int32]:
        """Return a number a row, for one name or an array of names."""
        if isinstance(names, str):
            return np.full(n_rows, self._number(names), np.int32)
        known, inverse = np.unique(np.asarray(names).astype(np.str_), return_inverse=True)
        codes = np.array([self._number(str(name)) for name in known.tolist()], np.int32)
        return codes[inverse] if n_rows else np.zeros(0, np.int32)

    def _number(self, name: str) -> int:
        return self._codes.setdefault(name, len(self._codes))

    @property
    def names(self) -> NDArray[np.str_]:
        """Names by number."""
        return np.array(list(self._codes)) if self._codes else np.empty(0, "U1")

    def rank(self) -> NDArray[np.int32]:
        """Return the place of each number in the alphabet of the names."""
        rank = np.empty(len(self._codes), np.int32)
        rank[np.argsort(self.names, kind="stable")] = np.arange(len(self._codes), dtype=np.int32)
        return rank


class Gathered:
    """All rows of a table, ordered by field and by the table's own number.

    In memory are the order and what is asked for; the rows are mapped from disk.

    Attributes
    ----------
    name : str
        Of the table.
    columns : tuple of Column
        As wanted; a part that lacks one has nothing there.
    n_rows : int
    """

    def __init__(
        self,
        name: str,
        columns: Sequence[Column],
        parts: Iterable[Part],
        folder: Path,
        labels: Labels,
    ) -> None:
        self.name, self.columns = name, tuple(columns)
        self._labels = labels
        held = [column for column in self.columns if column.name not in _PLACE]
        with Spool(folder, (*held, *_CODE)) as spool:
            for part in parts:
                length = len(next(iter(part.rows.values()), ()))
                codes = {
                    f"_{place}": labels.encode(part.rows.get(place, getattr(part, place)), length)
                    for place in _PLACE
                }
                spool.add({**part.rows, **codes}, length)
        self._data = spool.map()
        self.n_rows = spool.n_rows
        self._order = self._sort()

    def _sort(self) -> NDArray[np.int64]:
        """Order rows by field and then by the first integer ``*_id`` column, else as they came."""
        number = next((c.name for c in self.columns if c.name.endswith("_id") and _is_whole(c)), None)
        field = self._labels.rank()[self._data["_field"]]
        keys = (self._data[number], field) if number else (field,)
        return np.asarray(np.lexsort(keys))

    def read(self, name: str, rows: Any = slice(None)) -> NDArray[Any]:
        """Return a column for some rows of the catalogue: a slice, or an array of row numbers."""
        raw = self._order[rows]
        if name in _PLACE:
            names = self._labels.names
            return names[self._data[f"_{name}"][raw]] if len(raw) else np.empty(0, "U1")
        return np.asarray(self._data[name][raw])

    def fields(self) -> NDArray[np.int32]:
        """Return the number of each row's field, shape (n,)."""
        return np.asarray(self._data["_field"][self._order])

    def field_names(self) -> NDArray[np.str_]:
        """Return the names of fields by number."""
        return self._labels.names


def _is_whole(column: Column) -> bool:
    return split_dtype(column.dtype)[0].startswith("int")
