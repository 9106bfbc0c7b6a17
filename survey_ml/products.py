"""What flows between stages: named arrays, tables and summaries."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a product is held and stored."""

    ARRAY = "array"
    """A raster with the field's shape: one Zarr array a field, one shard a tile core."""
    TABLE = "table"
    """Rows with named columns: one Parquet part a tile (or a field, or the release)."""
    SUMMARY = "summary"
    """A small JSON object: one a unit of work, kept in its commit."""


@dataclass(frozen=True)
class Column:
    """One column of a table product.

    Parameters
    ----------
    name : str
        Column name in every export. One that ends in ``*``, such as ``morph_p_*``, stands for any
        number of columns with that beginning; which ones there are the rows tell, the same in
        every part of a release.
    dtype : str
        ``float64``, ``float32``, ``int64``, ``int32``, ``bool`` or ``string``; with a suffix
        such as ``float32[64]`` for a fixed-length vector a row, ``float32[*]`` for vectors of a
        length that the rows tell, the same in every part of a release.
    unit : str
        A VOUnit string, empty when there is none.
    ucd : str
        A UCD1+ word list, empty when there is none.
    description : str
        One plain sentence; in that of a family ``*`` stands for the rest of a column's name.
    """

    name: str
    dtype: str
    unit: str = ""
    ucd: str = ""
    description: str = ""

    @property
    def is_family(self) -> bool:
        """Whether it stands for all columns with its beginning."""
        return self.name.endswith("*")

    def stands_for(self, name: str) -> bool:
        """Tell whether this declares a column of a name."""
        if self.is_family:
            return len(name) >= len(self.name) and name.startswith(self.name[:-1])
        return name == self.name


@dataclass(frozen=True)
class Product:
    """Something a stage reads or writes.

    Parameters
    ----------
    name : str
        Unique over all stages; two stages may read it, only one may write it.
    kind : Kind
        Array, table or summary.
    dtype : str
        Of an array: a NumPy dtype name. Empty accepts any.
    dims : tuple of str
        ``("y", "x")`` for arrays; ``("component",)``, ``("source",)``, ``("island",)`` or
        ``("row",)`` for tables. Tables over ``("source",)`` have a ``source_id`` column and are
        joined to the source catalogue on export. Empty accepts any.
    optional : bool
        A reader does without it when no stage writes it.
    unit : str
        Of an array: a VOUnit string, ``image`` for the unit of the field's own image.
    columns : tuple of Column
        Of a table written by a third party. Built-in tables are in ``columns.yaml``.
    """

    name: str
    kind: Kind
    dtype: str = ""
    dims: tuple[str, ...] = ()
    optional: bool = False
    unit: str = ""
    columns: tuple[Column, ...] = ()


def array(name: str, dtype: str = "float32", *, unit: str = "image", optional: bool = False) -> Product:
    """Declare an array product over the field's pixels."""
    return Product(name, Kind.ARRAY, dtype, ("y", "x"), optional, unit)


def table(
    name: str, row: str = "row", *, columns: tuple[Column, ...] = (), optional: bool = False
) -> Product:
    """Declare a table product with one row a ``row`` (source, component, island or row)."""
    return Product(name, Kind.TABLE, "", (row,), optional, "", columns)


def summary(name: str, *, optional: bool = False) -> Product:
    """Declare a small JSON product."""
    return Product(name, Kind.SUMMARY, optional=optional)
