"""One plane of a small FITS file, with or without coordinates, for cutouts that people bring.

`survey_ml.data.fits` reads the images of a release and refuses what cannot be measured; here a beam,
coordinates and a unit may all be missing.
"""

from __future__ import annotations

import gzip
import io
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.data.header import check_polarisation, read_beam
from survey_ml.data.png import LARGEST
from survey_ml.errors import InputError

_UNITS = {"": 3600.0, "deg": 3600.0, "degree": 3600.0, "degrees": 3600.0, "arcmin": 60.0, "arcsec": 1.0}
"""Unit of an axis to arcsec."""


@dataclass(frozen=True)
class _Nothing:
    """What to assume where the header lacks it."""

    beam_arcsec: None = None
    frequency_hz: None = None
    unit: None = None


@dataclass(frozen=True, eq=False)
class PlaneImage:
    """A plane and what its header says of its scale.

    Attributes
    ----------
    image : (y, x) array of uint8 or float32
        uint8 from unscaled 8-bit pixels; NaN where there is no data in float32.
    pixel_arcsec : float
        Geometric mean of the pixel's sides; NaN where the header does not tell.
    beam_arcsec : float
        Geometric mean of the beam's axes; NaN where the header does not tell.
    """

    image: NDArray[Any]
    pixel_arcsec: float
    beam_arcsec: float


def read_plane_image(path: Path) -> PlaneImage:
    """Read the first image of a FITS file: plain, tile-compressed or gzipped.

    Axes beyond two must have one pixel.

    Raises
    ------
    InputError
        When it is no FITS file, is damaged, holds no image or a cube, or has more than `LARGEST` pixels.
    """
    from astropy.io import fits

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # Complaints about cards that are not used here.
            warnings.simplefilter("ignore")
            with fits.open(_unpack(file, path), memmap=False, do_not_scale_image_data=True) as opened:
                return _read_first(opened, path)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", "Check the path.") from error
    except Exception as error:
        # A broken file raises OSError, TypeError, ValueError, KeyError, VerifyError ...
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} cannot be read as FITS: {text}", "Write or copy the file again.") from error


def _unpack(file: Any, path: Path) -> Any:
    """Unpack gzip up to a size; the library would unpack more kinds, to any size."""
    start = file.read(6)
    file.seek(0)
    if start == b"SIMPLE":
        return file
    if start[:2] != b"\x1f\x8b":
        raise InputError(f"{path} is not a FITS file", "Give a FITS image.")
    most = 8 * LARGEST + (1 << 20)
    with gzip.open(file, "rb") as packed:
        content = packed.read(most + 1)
    if len(content) > most:
        raise InputError(f"{path} unpacks to more than {most >> 20} MiB", "Cut out the source.")
    return io.BytesIO(content)


def _read_first(opened: Any, path: Path) -> PlaneImage:
    for unit in opened:
        shape = tuple(getattr(unit, "shape", ()))
        if not unit.is_image or len(shape) < 2:
            continue
        if min(shape) == 0:
            raise InputError(f"{path} has an image without pixels", "Write the file again.")
        # A file may also claim tiles that are larger than its image.
        if max(math.prod(shape), math.prod(getattr(unit, "tile_shape", ()))) > LARGEST:
            raise InputError(
                f"{path} has {' x '.join(map(str, shape))} pixels, more than {LARGEST}", "Cut out the source."
            )
        if sum(size > 1 for size in shape) > 2:
            raise InputError(
                f"{path} is a cube of {' x '.join(map(str, shape))} pixels",
                "Write one plane a file, or an .npy of shape (n, y, x).",
            )
        header = unit.header
        check_polarisation(header)
        stored = np.asarray(unit.data)
        stored = stored.reshape([size for size in shape if size > 1] or [1])
        stored = stored if stored.ndim == 2 else stored.reshape(1, -1)
        return PlaneImage(_scale(stored, header), read_pixel_arcsec(header), _read_beam(header))
    raise InputError(f"{path} holds no image", "Give an image; tables are not read.")


def _scale(stored: NDArray[Any], header: Mapping[str, Any]) -> NDArray[Any]:
    scale, zero = float(header.get("BSCALE", 1.0)), float(header.get("BZERO", 0.0))
    blank = header.get("BLANK") if stored.dtype.kind in "iu" else None
    if stored.dtype == np.uint8 and (scale, zero, blank) == (1.0, 0.0, None):
        return stored.copy()
    # Values beyond float32 become infinite, which is no data.
    with np.errstate(over="ignore"):
        values = (stored.astype(np.float64) * scale + zero).astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    if blank is not None:
        values[stored == blank] = np.nan
    return values


def _read_beam(header: Mapping[str, Any]) -> float:
    try:
        beam = read_beam(header, None, _Nothing(), [])
    except InputError:
        return math.nan
    return math.sqrt(beam.major * beam.minor)


def read_pixel_arcsec(header: Mapping[str, Any]) -> float:
    """Return the geometric mean of a pixel's sides in arcsec; NaN where the header does not tell.

    Parameters
    ----------
    header : mapping
        With ``CDELT1`` and ``CDELT2``, with or without a PC matrix, or with a CD matrix. Without a unit they
        are degrees; a ``CTYPE1`` or ``CTYPE2`` that is no angle on the sky makes the answer NaN.
    """
    kinds = [str(header.get(f"CTYPE{axis}", "")).strip().upper()[:4] for axis in (1, 2)]
    if any(kind and kind.strip("-") not in ("RA", "DEC", "GLON", "GLAT", "ELON", "ELAT") for kind in kinds):
        return math.nan
    try:
        units = [_UNITS[str(header.get(f"CUNIT{axis}", "")).strip().lower()] for axis in (1, 2)]
        if "CD1_1" in header:
            rows = [[float(header.get(f"CD{i}_{j}", 0.0)) for j in (1, 2)] for i in (1, 2)]
        else:
            steps = [float(header[f"CDELT{axis}"]) for axis in (1, 2)]
            rows = [
                [steps[i - 1] * float(header.get(f"PC{i}_{j}", float(i == j))) for j in (1, 2)]
                for i in (1, 2)
            ]
    except (KeyError, TypeError, ValueError):
        return math.nan
    area = abs(rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]) * units[0] * units[1]
    return math.sqrt(area) if math.isfinite(area) and area > 0 else math.nan
