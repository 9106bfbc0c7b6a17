"""FITS and Parquet tables that say what their columns are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.table import Table as AstropyTable
from numpy.typing import NDArray

from survey_ml.export.schema import columns_in, read_column, split_dtype
from survey_ml.export.spool import list_blocks
from survey_ml.export.votable import describe_votable

if TYPE_CHECKING:
    from survey_ml.export.options import ExportOptions
    from survey_ml.field import Field
    from survey_ml.products import Column

_FITS = {"float64": "D", "float32": "E", "int64": "K", "int32": "J", "bool": "L"}
_FITS_BLOCK = 2880
_NULLS = {"int64": -(1 << 63), "int32": -(1 << 31), "bool": -1}
"""What stands for null in FITS; a boolean column with nulls is written as short integers."""


def export_fits(release: Any, folder: Path, options: ExportOptions) -> list[Path]:
    """Write one ``.fits`` a table."""
    paths = []
    cards = describe_fields([release.field(name).info for name in release.fields])
    for name, table in options.written.items():
        paths.append(folder / f"{name}.fits")
        write_fits(table, paths[-1], name, cards, release=options.release, version=options.version)
    return paths


def describe_fields(fields: Sequence[Field]) -> dict[str, tuple[str | float, str]]:
    """Return the header cards of what is the same for all fields: frame, frequency and beam.

    Parameters
    ----------
    fields : sequence of Field
        All that have rows in the table.

    Returns
    -------
    dict
        Keyword to value and comment. What differs between fields, or is unknown, is left out.
    """
    facts: list[dict[str, tuple[str | float, str]]] = []
    for field in fields:
        sky = field.wcs.wcs
        fact: dict[str, tuple[str | float, str]] = {}
        if sky.radesys.strip():
            fact["RADESYS"] = (sky.radesys.strip(), "frame of the positions")
        # ICRS has no equinox, but many readers look for one; its axes are those of J2000.
        if np.isfinite(sky.equinox) or fact.get("RADESYS", ("",))[0] == "ICRS":
            equinox = float(sky.equinox) if np.isfinite(sky.equinox) else 2000.0
            fact["EQUINOX"] = (equinox, "[yr] equinox of the positions")
        if np.isfinite(field.frequency):
            fact["RESTFRQ"] = (field.frequency, "[Hz] observing frequency of all fields")
        fact["BMAJ"] = (field.beam.major / 3600.0, "[deg] FWHM of the beam of all fields")
        fact["BMIN"] = (field.beam.minor / 3600.0, "[deg] FWHM of the beam of all fields")
        fact["BPA"] = (field.beam.pa, "[deg] north through east")
        facts.append(fact)
    if not facts:
        return {}
    same = {key: value for key, value in facts[0].items() if all(f.get(key) == value for f in facts)}
    # A part of a frame or of a beam would mislead.
    for group in (("RADESYS", "EQUINOX"), ("BMAJ", "BMIN", "BPA")):
        if not same.keys() >= set(group):
            same = {key: value for key, value in same.items() if key not in group}
    return same


def export_parquet(release: Any, folder: Path, options: ExportOptions) -> list[Path]:
    """Write one ``.parquet`` a table."""
    paths = []
    for name, table in options.written.items():
        paths.append(folder / f"{name}.parquet")
        write_parquet(table, paths[-1], name, options.describe(name))
    return paths


def write_fits(
    table: pa.Table,
    path: Path,
    name: str,
    cards: Mapping[str, tuple[str | float, str]] | None = None,
    *,
    release: str = "",
    version: str = "",
) -> None:
    """Write an Arrow table as a FITS binary table with TUNIT, TUCD and TCOMM for every column.

    There is no DATE card, so that the same table gives the same bytes.

    Parameters
    ----------
    table : pyarrow.Table
        With units, UCDs and descriptions in its schema.
    path : Path
        File to write.
    name : str
        EXTNAME, in capitals.
    cards : mapping, optional
        Keyword to value and comment, for the header of the table; see `describe_fields`.
    release, version : str
        For the primary header.
    """
    columns = columns_in(table)
    forms = [_choose_form(column, table) for column in columns]
    coldefs = [
        fits.Column(column.name, form.text, unit=column.unit or None, null=form.null)
        for column, form in zip(columns, forms, strict=True)
    ]
    hdu = fits.BinTableHDU.from_columns(coldefs, nrows=0)
    hdu.name = name.upper()
    hdu.header.update(cards or {})
    for number, column in enumerate(columns, start=1):
        # astropy writes no UCDs.
        if column.ucd:
            _set_card(hdu.header, f"TUCD{number}", column.ucd)
        if column.description:
            _set_card(hdu.header, f"TCOMM{number}", column.description)
    primary = fits.PrimaryHDU()
    primary.header["RELEASE"] = (release, "name of the release")
    primary.header["CREATOR"] = (f"survey_ml {version}".strip(), "software")
    primary.header["TABLE"] = (name, "rows of the first extension")
    hdus = fits.HDUList([primary, hdu])
    hdus.update_extend()
    hdu.header["NAXIS2"] = len(table)
    with path.open("wb") as out:
        out.write(primary.header.tostring().encode("ascii"))
        out.write(hdu.header.tostring().encode("ascii"))
        for rows in list_blocks(len(table)):
            out.write(_encode_rows(table.slice(rows.start, rows.stop - rows.start), columns, forms))
        out.write(b"\0" * (-out.tell() % _FITS_BLOCK))


def write_parquet(table: pa.Table, path: Path, name: str, description: str = "") -> None:
    """Write an Arrow table as Parquet, described twice in its footer.

    ``table_meta_yaml`` is what astropy's Parquet reader knows; ``IVOA.VOTable-Parquet.*`` is the
    VOParquet convention (IVOA Note "Parquet in the VO" 1.0) of TOPCAT, Firefly and astropy's
    ``parquet.votable``: a VOTable whose one TABLE has no data.

    Parameters
    ----------
    table : pyarrow.Table
        With units, UCDs and descriptions in its schema.
    path : Path
        File to write.
    name, description : str
        Of the table.
    """
    metadata: dict[str | bytes, str | bytes] = {
        "table_meta_yaml": _describe_astropy(table, name, description),
        "IVOA.VOTable-Parquet.version": "1.0",
        "IVOA.VOTable-Parquet.content": describe_votable(table, name, description).replace("<!--DATA-->", ""),
    }
    fields = []
    for column, known in zip(columns_in(table), table.schema, strict=True):
        if column.dtype == "string":
            # astropy's reader takes the width of strings from here.
            width = pa.compute.max(pa.compute.utf8_length(table.column(column.name))).as_py()
            metadata[f"table::len::{column.name}"] = str(width or 1)
        fields.append(known)
    pq.write_table(
        table.cast(pa.schema(fields)).replace_schema_metadata(metadata),
        path,
        compression="zstd",
        row_group_size=1 << 17,
    )


def to_astropy(table: pa.Table, name: str = "", description: str = "") -> AstropyTable:
    """Return an astropy Table with units and descriptions; the UCD is in a column's ``meta``."""
    out = AstropyTable(meta={k: v for k, v in (("name", name), ("description", description)) if v})
    for column in columns_in(table):
        out[column.name] = read_column(table, column.name)
        out[column.name].description = column.description or None
        if column.unit:
            out[column.name].unit = column.unit
        if column.ucd:
            out[column.name].meta["ucd"] = column.ucd
    return out


def _describe_astropy(table: pa.Table, name: str, description: str) -> str:
    from astropy.table import meta

    return "\n".join(meta.get_yaml_from_table(to_astropy(table.slice(0, 0), name, description)))


@dataclass(frozen=True)
class _Form:
    """How a column is stored: TFORM, the same for NumPy, and what stands for null."""

    text: str
    dtype: tuple[str, tuple[int, ...]]
    null: int | None = None


def _choose_form(column: Column, table: pa.Table) -> _Form:
    kind, length = split_dtype(column.dtype)
    if kind == "string":
        width = max([1, *(block.dtype.itemsize for block in _list_ascii(table, column.name))])
        return _Form(f"{width}A", (f"S{width}", ()))
    shape = (length,) if length else ()
    missing = bool(table.column(column.name).null_count) and not length
    if missing and kind == "bool":
        return _Form("I", (">i2", shape), _NULLS[kind])
    null = _NULLS[kind] if missing and kind in _NULLS else None
    code = "S1" if kind == "bool" else np.dtype(kind).newbyteorder(">").str
    return _Form(f"{length or ''}{_FITS[kind]}", (code, shape), null)


def _list_ascii(table: pa.Table, name: str) -> Iterator[NDArray[Any]]:
    """Yield a column of strings block by block."""
    for rows in list_blocks(len(table)):
        yield _to_ascii(read_column(table.slice(rows.start, rows.stop - rows.start), name))


def _encode_rows(table: pa.Table, columns: Sequence[Column], forms: Sequence[_Form]) -> bytes:
    """Return rows as FITS stores them: big-endian, one after the other."""
    dtype = [(column.name, *form.dtype) for column, form in zip(columns, forms, strict=True)]
    out = np.zeros(len(table), dtype)
    for column, form in zip(columns, forms, strict=True):
        values = read_column(table, column.name)
        if values.dtype.kind == "U":
            values = _to_ascii(values)
        elif values.dtype.kind == "b" and form.null is None:
            values = np.where(values, b"T", b"F")
        if form.null is not None:
            missing = table.column(column.name).is_null().to_numpy()
            values = np.where(missing, form.null, values.astype(form.dtype[0]))
        out[column.name] = values
    return out.tobytes()


def _to_ascii(values: NDArray[Any]) -> NDArray[Any]:
    try:
        return values.astype("S")
    except UnicodeEncodeError:
        return np.array([text.encode("ascii", "backslashreplace") for text in values.tolist()])


def _set_card(header: fits.Header, keyword: str, value: str) -> None:
    header[keyword] = value
