"""VOTable: the description alone (for Parquet footers), or with rows as BINARY2."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from survey_ml.export.schema import columns_in, read_column, split_dtype

if TYPE_CHECKING:
    from survey_ml.export.options import ExportOptions
    from survey_ml.products import Column

_TYPES = {
    "float64": ("double", ">f8"),
    "float32": ("float", ">f4"),
    "int64": ("long", ">i8"),
    "int32": ("int", ">i4"),
    "bool": ("boolean", "S1"),
}
_ROWS_A_BLOCK = 30_000
_LINE = 57
"""Bytes a line of base64: 76 characters, as MIME has it."""


def export_votable(release: Any, folder: Path, options: ExportOptions) -> list[Path]:
    """Write one ``.vot`` a table."""
    paths = []
    for name, table in options.written.items():
        paths.append(folder / f"{name}.vot")
        write_votable(table, paths[-1], name, options.describe(name))
    return paths


def write_votable(table: pa.Table, path: Path, name: str, description: str = "") -> None:
    """Write an Arrow table as a VOTable 1.4 with BINARY2 rows.

    Parameters
    ----------
    table : pyarrow.Table
        With units, UCDs and descriptions in its schema.
    path : Path
        File to write.
    name, description : str
        Of the TABLE element.
    """
    head, tail = describe_votable(table, name, description).split("<!--DATA-->")
    with path.open("wb") as out:
        out.write(head.encode())
        if len(table):
            out.write(b'<DATA><BINARY2><STREAM encoding="base64">\n')
            _write_rows(table, out)
            out.write(b"</STREAM></BINARY2></DATA>")
        out.write(tail.encode())


def describe_votable(table: pa.Table, name: str, description: str = "") -> str:
    """Return a VOTable with all about the columns, and the mark ``<!--DATA-->`` where rows go."""
    fields = [_describe_field(column, table) for column in columns_in(table)]
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">',
        '<RESOURCE type="results">',
        '<COOSYS ID="icrs" system="ICRS"/>',
        f"<TABLE name={quoteattr(name)} nrows={quoteattr(str(len(table)))}>",
        f"<DESCRIPTION>{escape(description)}</DESCRIPTION>",
        *fields,
        "<!--DATA--></TABLE>",
        "</RESOURCE>",
        "</VOTABLE>",
        "",
    ]
    return "\n".join(lines)


def _describe_field(column: Column, table: pa.Table) -> str:
    kind, length = split_dtype(column.dtype)
    if kind == "string":
        datatype, size = _measure_strings(table, column.name)
        arraysize = str(size)
    else:
        datatype, arraysize = _TYPES[kind][0], str(length) if length else ""
    attributes = {
        "name": column.name,
        "datatype": datatype,
        "arraysize": arraysize,
        "unit": column.unit,
        "ucd": column.ucd,
        "ref": "icrs" if column.ucd.startswith("pos.eq.") else "",
    }
    text = " ".join(f"{key}={quoteattr(value)}" for key, value in attributes.items() if value)
    return f"<FIELD {text}><DESCRIPTION>{escape(column.description)}</DESCRIPTION></FIELD>"


def _measure_strings(table: pa.Table, name: str) -> tuple[str, int]:
    """Return the VOTable type and width that hold all of a column's strings."""
    column = table.column(name)
    if not len(table):
        return "char", 1
    ascii_only = bool(pc.all(pc.string_is_ascii(column), skip_nulls=True).as_py() in (True, None))
    width = pc.max(pc.utf8_length(column)).as_py() or 1
    return ("char" if ascii_only else "unicodeChar"), max(1, width)


def _write_rows(table: pa.Table, out: Any) -> None:
    # One fixed-size record a row: null bits first, then the fields, big-endian.
    columns = columns_in(table)
    wide = set()
    dtype: list[tuple[Any, ...]] = [("_null", "u1", ((len(columns) + 7) // 8,))]
    for column in columns:
        kind, length = split_dtype(column.dtype)
        if kind == "string":
            datatype, size = _measure_strings(table, column.name)
            if datatype == "unicodeChar":
                wide.add(column.name)
                size *= 2
            dtype.append((column.name, f"S{size}"))
        else:
            dtype.append((column.name, _TYPES[kind][1], *([(length,)] if length else [])))
    rest = b""
    for start in range(0, len(table), _ROWS_A_BLOCK):
        block = table.slice(start, _ROWS_A_BLOCK)
        rows = np.zeros(len(block), dtype)
        null = np.zeros((len(block), rows["_null"].shape[1] * 8), bool)
        for index, column in enumerate(columns):
            values = read_column(block, column.name)
            rows[column.name] = _encode(values, column.name in wide)
            null[:, index] = block.column(column.name).is_null().to_numpy()
        rows["_null"] = np.packbits(null, axis=1)
        data = rest + rows.tobytes()
        whole = len(data) - len(data) % _LINE
        _write_base64(data[:whole], out)
        rest = data[whole:]
    _write_base64(rest, out)


def _encode(values: NDArray[Any], wide: bool) -> NDArray[Any]:
    if values.dtype.kind == "b":
        return np.where(values, b"T", b"F")
    if values.dtype.kind != "U":
        return values
    if wide:
        return np.array([text.encode("utf-16-be", "replace") for text in values.tolist()])
    return values.astype("S")


def _write_base64(data: bytes, out: Any) -> None:
    if data:
        out.write(base64.encodebytes(data))
