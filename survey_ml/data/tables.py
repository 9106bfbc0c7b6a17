"""Tables between NumPy, Arrow and Parquet: the same rows always give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from survey_ml.errors import DamagedError, PluginError
from survey_ml.products import Column
from survey_ml.stage import Table

_DTYPE = re.compile(r"(float64|float32|int64|int32|bool|string)(?:\[(\d+)\])?")
_ARROW = {
    "float64": pa.float64(),
    "float32": pa.float32(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "bool": pa.bool_(),
    "string": pa.string(),
}


def split_dtype(column: Column) -> tuple[str, int]:
    """Return the scalar dtype of a column and the length of its vectors (0 for scalars).

    Raises
    ------
    PluginError
        When the dtype is not one of those named in `Column`.
    """
    match = _DTYPE.fullmatch(column.dtype)
    if match is None or (match[1] == "string" and match[2]):
        raise PluginError(
            f"column {column.name!r} has the unknown dtype {column.dtype!r}",
            "Use float64, float32, int64, int32, bool or string; float32[64] for vectors.",
        )
    return match[1], int(match[2] or 0)


def make_schema(columns: Sequence[Column], *, described: bool = True) -> pa.Schema:
    """Return the Arrow schema of columns.

    Unit, UCD and description become field metadata if ``described``; they treble a small file.
    """
    fields = []
    for column in columns:
        base, length = split_dtype(column)
        kind = pa.list_(_ARROW[base], length) if length else _ARROW[base]
        words = {"unit": column.unit, "ucd": column.ucd, "description": column.description}
        metadata = words if described else None
        fields.append(pa.field(column.name, kind, nullable=False, metadata=metadata))
    return pa.schema(fields)


def _convert(column: Column, values: Any, n_rows: int) -> pa.Array:
    """Return one column as Arrow, refusing what would lose data."""
    base, length = split_dtype(column)
    array = np.asarray(values)
    wanted = (n_rows, length) if length else (n_rows,)
    if array.size == 0 and n_rows == 0:
        array = np.empty(wanted, dtype=object if base == "string" else base)
    if array.shape != wanted:
        raise PluginError(f"column {column.name!r} has shape {array.shape}, {wanted} was expected")
    if base == "string":
        return pa.array([str(value) for value in array.tolist()], type=pa.string())
    if not np.can_cast(array.dtype, base, casting="same_kind"):
        raise PluginError(f"column {column.name!r} has dtype {array.dtype}, {base} was declared")
    cast = np.ascontiguousarray(array, dtype=base)
    if array.dtype.kind in "iu" and not np.array_equal(cast, array):
        raise PluginError(f"column {column.name!r} has values that do not fit {base}")
    if length:
        return pa.FixedSizeListArray.from_arrays(pa.array(cast.ravel()), length)
    return pa.array(cast)


def to_arrow(table: Table, columns: Sequence[Column], *, described: bool = True) -> pa.Table:
    """Turn rows into an Arrow table with exactly the given columns.

    Parameters
    ----------
    table : Table
        Column name to array of shape ``(n,)`` or ``(n, d)``.
    columns : sequence of Column
        What the table must hold, in order.
    described : bool
        Keep unit, UCD and description as field metadata.

    Raises
    ------
    PluginError
        When a column is missing, not declared, of another length or dtype.
    """
    names = [column.name for column in columns]
    missing = [name for name in names if name not in table]
    extra = [name for name in table if name not in names]
    if missing or extra:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has the undeclared {', '.join(extra)}"] if extra else []
        raise PluginError(f"the table {' and '.join(parts)}", "Return the declared columns, no others.")
    n_rows = len(np.asarray(table[names[0]])) if names else 0
    arrays = [_convert(column, table[column.name], n_rows) for column in columns]
    return pa.Table.from_arrays(arrays, schema=make_schema(columns, described=described))


def _to_numpy(values: pa.ChunkedArray) -> NDArray[Any]:
    """Return one Arrow column as an array of its own, writable and contiguous."""
    kind = values.type
    if pa.types.is_fixed_size_list(kind):
        flat = values.combine_chunks()
        length = kind.list_size
        if len(values) == 0:
            return np.empty((0, length), dtype=kind.value_type.to_pandas_dtype())
        return np.array(flat.flatten().to_numpy(zero_copy_only=False)).reshape(-1, length)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(values.to_pylist(), dtype=np.str_)
    return np.array(values.to_numpy(zero_copy_only=False))


def from_arrow(table: pa.Table) -> dict[str, NDArray[Any]]:
    """Turn an Arrow table into arrays: strings as ``<U``, vectors as ``(n, d)``."""
    return {name: _to_numpy(table.column(name)) for name in table.column_names}


def write_parquet_bytes(table: pa.Table) -> bytes:
    """Encode a table as Parquet (zstd); the bytes depend on nothing but the table."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        version="2.6",
        write_statistics=False,
        use_dictionary=[f.name for f in table.schema if pa.types.is_string(f.type)],
    )
    return sink.getvalue().to_pybytes()


def read_parquet_bytes(data: bytes) -> pa.Table:
    """Decode a Parquet file held in memory.

    Raises
    ------
    DamagedError
        When the bytes are not a whole Parquet file.
    """
    try:
        return pq.read_table(pa.BufferReader(data), use_threads=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError, ValueError) as error:
        raise DamagedError(f"a table part cannot be read: {error}", "Run the same command again.") from error
