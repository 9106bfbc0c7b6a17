"""Arrow tables that carry the unit, UCD and description of each column in their schema."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from survey_ml.products import Column
from survey_ml.stage import Table

_VECTOR = re.compile(r"(\w+)\[(\d+)\]$")
_ARROW: dict[str, pa.DataType] = {
    "float64": pa.float64(),
    "float32": pa.float32(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "bool": pa.bool_(),
    "string": pa.string(),
}


def split_dtype(dtype: str) -> tuple[str, int]:
    """Split ``float32[64]`` into its element type and length; 0 for a scalar."""
    match = _VECTOR.match(dtype)
    return (match[1], int(match[2])) if match else (dtype, 0)


def make_field(column: Column) -> pa.Field:
    """Return the Arrow field of a column, with what is known of it as metadata."""
    kind, length = split_dtype(column.dtype)
    arrow = pa.list_(_ARROW[kind], length) if length else _ARROW[kind]
    about = {"unit": column.unit, "ucd": column.ucd, "description": column.description}
    return pa.field(column.name, arrow, metadata={k: v for k, v in about.items() if v})


def read_field(field: pa.Field) -> Column:
    """Return the column that an Arrow field describes; the inverse of `make_field`."""
    about = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
    arrow, suffix = field.type, ""
    if pa.types.is_fixed_size_list(arrow):
        arrow, suffix = arrow.value_type, f"[{arrow.list_size}]"
    kind = next(name for name, known in _ARROW.items() if arrow.equals(known))
    return Column(
        field.name,
        kind + suffix,
        about.get("unit", ""),
        about.get("ucd", ""),
        about.get("description", ""),
    )


def columns_in(table: pa.Table) -> tuple[Column, ...]:
    """Return the columns of an Arrow table with their units, UCDs and descriptions."""
    return tuple(read_field(field) for field in table.schema)


def make_table(
    data: Table,
    columns: Sequence[Column],
    missing: Mapping[str, NDArray[np.bool_]] | None = None,
    *,
    n_rows: int = 0,
) -> pa.Table:
    """Build an Arrow table.

    Parameters
    ----------
    data : mapping
        Column name to array of shape (n,), or (n, d) for a vector. A column that is absent is
        filled: NaN, 0, False or the empty string.
    columns : sequence of Column
        The columns wanted, in order.
    missing : mapping
        Column name to a mask of shape (n,); masked integers and booleans become null. Floats and
        strings have values of their own for that (NaN, empty).
    n_rows : int
        Rows, where ``data`` is empty.

    Returns
    -------
    pyarrow.Table
    """
    if data:
        n_rows = len(next(iter(data.values())))
    arrays = []
    for column in columns:
        values = data[column.name] if column.name in data else fill_column(column, n_rows)
        mask = missing.get(column.name) if missing else None
        arrays.append(_make_array(values, column, mask))
    return pa.Table.from_arrays(arrays, schema=pa.schema([make_field(column) for column in columns]))


def fill_column(column: Column, n_rows: int) -> NDArray[Any]:
    """Return ``n_rows`` of the value that stands for nothing: NaN, 0, False or the empty string."""
    kind, length = split_dtype(column.dtype)
    shape = (n_rows, length) if length else (n_rows,)
    if kind == "string":
        return np.full(shape, "", "U1")
    return np.full(shape, np.nan if kind.startswith("float") else 0, kind)


def _make_array(values: NDArray[Any], column: Column, mask: NDArray[np.bool_] | None) -> pa.Array:
    kind, length = split_dtype(column.dtype)
    arrow = _ARROW[kind]
    if kind != "string":
        values = np.ascontiguousarray(values, kind)
    if length:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), arrow), length)
    if mask is not None and mask.any() and kind in ("int64", "int32", "bool"):
        return pa.array(values, arrow, mask=mask)
    return pa.array(values, arrow)


def read_column(table: pa.Table, name: str) -> NDArray[Any]:
    """Return a column as a NumPy array, (n, d) for vectors; nulls as NaN, 0, False or empty."""
    chunked = table.column(name)
    kind, length = split_dtype(read_field(table.schema.field(name)).dtype)
    if length:
        flat = pa.concat_arrays([chunk.flatten() for chunk in chunked.chunks]) if chunked.num_chunks else None
        values = np.empty(0, kind) if flat is None else flat.to_numpy(zero_copy_only=False)
        return values.reshape(-1, length)
    if chunked.null_count:
        chunked = chunked.fill_null({"string": "", "bool": False}.get(kind, np.nan if "float" in kind else 0))
    values = chunked.to_numpy()
    if kind == "string":
        return values.astype(np.str_) if len(values) else np.empty(0, "U1")
    return values
