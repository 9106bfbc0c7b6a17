"""Array products as FITS images, streamed so that memory does not grow with the field."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from survey_ml.errors import StoreError
from survey_ml.export.pixels import read_made

if TYPE_CHECKING:
    from survey_ml.data.release import FieldView
    from survey_ml.export.options import ExportOptions
    from survey_ml.field import Field

_ROWS = 512
"""Rows held at once: the height of a chunk."""
_BLOCK = 2880
_BITPIX = {"f4": -32, "f8": -64, "u1": 8, "i2": 16, "i4": 32, "i8": 64}


def export_maps(release: Any, folder: Path, options: ExportOptions) -> list[Path]:
    """Write ``maps/FIELD.PRODUCT.fits`` for each product asked for.

    Raises
    ------
    StoreError
        When a product is asked for that no field has.
    """
    paths = []
    for product in options.maps:
        fields = [name for name in release.fields if product in release.field(name).products]
        if not fields:
            known = sorted({p for name in release.fields for p in release.field(name).products})
            raise StoreError(
                f"no field has a product {product} to write as a map",
                f"export.maps may name: {', '.join(known) or 'nothing in this release'}",
                stage="export",
            )
        for name in fields:
            view = release.field(name)
            path = folder / "maps" / f"{name}.{product}.fits"
            path.parent.mkdir(exist_ok=True)
            dtype = view.store.lazy(name, product).dtype
            write_map(path, view.info, product, dtype, partial(_read_rows, view, product))
            paths.append(path)
    return paths


def _read_rows(view: FieldView, product: str, y0: int, y1: int) -> NDArray[Any]:
    return read_made(view, product, (slice(y0, y1), slice(0, view.info.shape[1])))


def write_map(
    path: Path,
    field: Field,
    product: str,
    dtype: np.dtype[Any],
    read: Callable[[int, int], NDArray[Any]],
) -> None:
    """Write one image with the field's WCS and beam.

    Parameters
    ----------
    path : Path
        File to write.
    field : Field
        For shape, WCS, beam, frequency and unit.
    product : str
        Goes into the header.
    dtype : numpy.dtype
        Of the pixels: a float or integer that FITS knows.
    read : callable
        ``read(y0, y1)`` returns those rows, shape (y1 - y0, nx).
    """
    header = make_header(field, product, dtype)
    big_endian = dtype.newbyteorder(">")
    with path.open("wb") as out:
        out.write(header.tostring().encode("ascii"))
        for y0 in range(0, field.shape[0], _ROWS):
            rows = read(y0, min(y0 + _ROWS, field.shape[0]))
            out.write(np.ascontiguousarray(rows, big_endian).tobytes())
        out.write(b"\0" * (-out.tell() % _BLOCK))


def make_header(field: Field, product: str, dtype: np.dtype[Any]) -> fits.Header:
    """Return the header of a map: structure, WCS, beam, frequency and unit."""
    header = fits.Header()
    header["SIMPLE"] = True
    header["BITPIX"] = _BITPIX[dtype.newbyteorder("=").str[1:]]
    header["NAXIS"] = 2
    header["NAXIS1"], header["NAXIS2"] = field.shape[1], field.shape[0]
    for card in fits.Header.fromstring(field.header).cards:
        if card.keyword not in header and card.keyword not in ("", "COMMENT", "HISTORY", "END"):
            header.append(card)
    header["BMAJ"] = (field.beam.major / 3600.0, "[deg] FWHM of the beam")
    header["BMIN"] = (field.beam.minor / 3600.0, "[deg] FWHM of the beam")
    header["BPA"] = (field.beam.pa, "[deg] north through east")
    if dtype.kind == "f":
        header["BUNIT"] = field.unit
    if np.isfinite(field.frequency):
        header["RESTFRQ"] = (field.frequency, "[Hz] observing frequency")
    header["OBJECT"] = field.name
    header["BTYPE"] = product
    return header
