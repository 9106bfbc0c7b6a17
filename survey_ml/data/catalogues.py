"""Catalogues that users bring, in whatever format they come."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import InputError, SurveyMLError

if TYPE_CHECKING:
    from astropy.table import Table

_FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".xml": "votable",
    ".parquet": "parquet",
    ".csv": "ascii.csv",
}


def is_catalogue(path: str | Path) -> bool:
    """Tell whether a file is a table by its ending, or, of FITS, by what is in it.

    A file that cannot be opened is none; whoever reads it as something else says what is wrong with it.
    """
    from astropy.io import fits

    file = Path(path).expanduser()
    form = _find_format(file)
    if form is None or not file.is_file():
        return False
    if form != "fits":
        return True
    try:
        with fits.open(file, memmap=True, lazy_load_hdus=True) as opened:
            kinds = [type(hdu) for hdu in opened]
    except OSError:
        return False
    return fits.BinTableHDU in kinds and not {fits.ImageHDU, fits.CompImageHDU} & set(kinds)


def read_catalogue(path: str, base: Path, wanted: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Read columns of a local catalogue.

    Parameters
    ----------
    path : str
        FITS, VOTable, Parquet or CSV; relative to ``base``.
    base : Path
        Folder of the release YAML.
    wanted : tuple of str
        Columns needed; upper and lower case are the same. Fluxes with a unit are taken to Jy.

    Returns
    -------
    dict
        All columns under lower-case names, shape (n,).

    Raises
    ------
    InputError
        When it cannot be read, lacks a column, or holds text in one of those needed.
    """
    from astropy.table import Table

    file = (base / Path(path).expanduser()).resolve()
    form = _find_format(file)
    if form is None:
        raise InputError(
            f"{path} has an unknown format", f"Give a file that ends in {', '.join(sorted(_FORMATS))}."
        )
    try:
        table = _read_parquet(file) if form == "parquet" else Table.read(file, format=form)
    except Exception as error:
        cause = error.message if isinstance(error, SurveyMLError) else str(error)
        raise InputError(f"{path} cannot be read: {cause}", f"Looked for at {file}.") from error
    names = {name.lower(): name for name in table.colnames}
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)}", f"It has {', '.join(table.colnames[:20])}."
        )
    columns = {}
    for lower, name in names.items():
        try:
            columns[lower] = _to_jansky(table[name])
        except (ValueError, TypeError):
            # Ragged lists or bytes that are no text: nothing of ours.
            if lower in wanted:
                raise InputError(
                    f"{path}: column {name} holds no numbers", "Write one number a row."
                ) from None
    text = [name for name in wanted if columns[name].dtype.kind != "f"]
    if text:
        raise InputError(
            f"{path}: column {', '.join(text)} holds no numbers", "Write numbers: angles in degrees."
        )
    if several := [name for name in wanted if columns[name].ndim != 1]:
        raise InputError(
            f"{path}: column {', '.join(several)} holds several numbers a row", "Write one a row."
        )
    return columns


def _find_format(file: Path) -> str | None:
    """Return the format that a file's ending names; one of ``.gz`` does not count."""
    return _FORMATS.get(Path(file.name.lower().removesuffix(".gz")).suffix)


def _read_parquet(file: Path) -> Table:
    """Read Parquet with the units in its schema; astropy's own reader wants more of a file than that."""
    from astropy.table import Table

    from survey_ml.data.tables import from_arrow, read_parquet_bytes

    arrow = read_parquet_bytes(file.read_bytes())
    table = Table(from_arrow(arrow))
    for field in arrow.schema:
        unit = (field.metadata or {}).get(b"unit", b"").decode()
        if unit:
            table[field.name].unit = unit
    return table


def _to_jansky(column: Any) -> NDArray[Any]:
    import astropy.units as u

    values = np.ma.filled(np.ma.asarray(column).astype(float), np.nan) if column.dtype.kind in "fiu" else None
    if values is None:
        if column.dtype.kind not in "SUO":
            return np.asarray(column)
        return np.asarray(np.ma.filled(np.ma.asarray(column).astype(str), ""))
    for target in (u.Jy / u.beam, u.Jy):
        if column.unit is not None and column.unit.is_equivalent(target):
            return values * float(column.unit.to(target))
    return np.asarray(values)
