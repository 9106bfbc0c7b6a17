"""One FITS image in memory, for notebooks and trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from survey_ml.data.fits import FitsReader
from survey_ml.data.header import ADD_BEAM, ADD_UNIT
from survey_ml.data.inputs import name_field
from survey_ml.errors import InputError
from survey_ml.field import Field, Window

_HINTS = {
    ADD_BEAM: "Give it: open_image(path, beam_arcsec=(5.4, 5.4, 0.0)), major and minor axis in arcsec, "
    "position angle in deg.",
    ADD_UNIT: "Give it: open_image(path, unit='Jy/beam').",
}


@dataclass(frozen=True)
class _Assumed:
    """What to assume where the header lacks it."""

    beam_arcsec: tuple[float, float, float] | None
    frequency_hz: float | None
    unit: str | None


def open_image(
    path: str | Path,
    *,
    beam_arcsec: tuple[float, float, float] | None = None,
    frequency_hz: float | None = None,
    unit: str | None = None,
    hdu: str | int | None = None,
) -> tuple[NDArray[np.float32], Field]:
    """Read a FITS image, and what its header says, for `survey_ml.measure.measure_image`.

    The header is checked as in a release run, and what it says wins over what is given here.

    Parameters
    ----------
    path : str or Path
        Plain, tile-compressed (``.fz``) or gzipped; a path or a URL.
    beam_arcsec : tuple of float, optional
        Major and minor axis in arcsec and position angle in deg, for a header without a beam.
    frequency_hz : float, optional
        For a header without a frequency.
    unit : str, optional
        For a header without BUNIT, such as ``mJy/beam``.
    hdu : str or int, optional
        HDU by name or number; the first image when not given.

    Returns
    -------
    image : ndarray, shape (ny, nx)
        Jy/beam; NaN where there is no data.
    field : Field
        Shape, WCS, beam and frequency; its name is from the file's.

    Raises
    ------
    InputError
        When the image cannot be used: it says why and what to do.
    """
    where = str(path) if "://" in str(path) else str(Path(path).expanduser())
    with FitsReader(where, hdu) as reader:
        try:
            field, scale = reader.describe(_Assumed(beam_arcsec, frequency_hz, unit), name_field(where))
        except InputError as error:
            raise InputError(error.message, _HINTS.get(error.hint, error.hint)) from error
        image = reader.read(Window(0, field.shape[0], 0, field.shape[1]))
    return image * np.float32(scale), field
