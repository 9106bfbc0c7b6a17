"""Catalogues to compare with: read, and matched on the sky."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from survey_ml.errors import InputError

_FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".xml": "votable",
    ".parquet": "parquet",
    ".csv": "ascii.csv",
}


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
        When it cannot be read or lacks a column.
    """
    from astropy.table import Table

    file = (base / Path(path).expanduser()).resolve()
    suffixes = "".join(file.suffixes[-2:]).removesuffix(".gz")
    form = _FORMATS.get(Path(f"x{suffixes}").suffix)
    if form is None:
        raise InputError(
            f"{path} has an unknown format", f"Give a file that ends in {', '.join(sorted(_FORMATS))}."
        )
    try:
        table = Table.read(file, format=form)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read: {error}", "Check the path; it is relative to the YAML."
        ) from error
    names = {name.lower(): name for name in table.colnames}
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)}", f"It has {', '.join(table.colnames[:20])}."
        )
    return {lower: _to_jansky(table[name]) for lower, name in names.items()}


def _to_jansky(column: Any) -> NDArray[Any]:
    import astropy.units as u

    values = np.ma.filled(np.ma.asarray(column).astype(float), np.nan) if column.dtype.kind in "fiu" else None
    if values is None:
        return np.asarray(column).astype(str) if column.dtype.kind in "SUO" else np.asarray(column)
    for target in (u.Jy / u.beam, u.Jy):
        if column.unit is not None and column.unit.is_equivalent(target):
            return values * float(column.unit.to(target))
    return np.asarray(values)


def to_unit_vectors(ra: NDArray[Any], dec: NDArray[Any]) -> NDArray[np.float64]:
    """Return unit vectors of positions in deg, shape (n, 3)."""
    longitude, latitude = np.deg2rad(ra), np.deg2rad(dec)
    cos = np.cos(latitude)
    return np.stack([cos * np.cos(longitude), cos * np.sin(longitude), np.sin(latitude)], axis=-1)


def match_nearest(
    ra: NDArray[Any], dec: NDArray[Any], other_ra: NDArray[Any], other_dec: NDArray[Any], radius: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match two catalogues one to one: pairs that are each other's nearest within a radius.

    Parameters
    ----------
    ra, dec, other_ra, other_dec : ndarray
        Shape (n,) and (m,), deg.
    radius : float
        arcsec.

    Returns
    -------
    one, two : ndarray
        Rows of the two catalogues, shape (k,).
    """
    if not len(ra) or not len(other_ra):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    a, b = to_unit_vectors(ra, dec), to_unit_vectors(other_ra, other_dec)
    reach = 2.0 * np.sin(np.deg2rad(radius / 3600.0) / 2.0)
    _, nearest_b = cKDTree(b).query(a, distance_upper_bound=reach)
    _, nearest_a = cKDTree(a).query(b, distance_upper_bound=reach)
    one = np.flatnonzero(nearest_b < len(b))
    two = nearest_b[one]
    mutual = nearest_a[two] == one
    return one[mutual], two[mutual]


def measure_offsets(
    ra: NDArray[Any], dec: NDArray[Any], other_ra: NDArray[Any], other_dec: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far east and north the first positions lie of the second, in arcsec; shape (n,) each."""
    east = (np.asarray(ra) - other_ra + 180.0) % 360.0 - 180.0
    return east * np.cos(np.deg2rad(other_dec)) * 3600.0, (np.asarray(dec) - other_dec) * 3600.0
