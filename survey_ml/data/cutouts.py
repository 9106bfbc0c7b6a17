"""Cutouts that people bring, in any format, one after the other."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.data.labelled.product import read_cutout_file
from survey_ml.data.packing import require_regular
from survey_ml.data.planes import read_plane_image
from survey_ml.data.png import LARGEST, read_png
from survey_ml.errors import InputError

FITS = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz", ".fz")
ENDINGS = (*FITS, ".png", ".npy", ".npz")
"""How files are told apart; upper and lower case are the same."""

LEAST = 8
"""Pixels a side. An array (y, x, 3) of colours would pass for y images of 3 columns."""


@dataclass(frozen=True, eq=False)
class Cutout:
    """One image around one source.

    Attributes
    ----------
    input : str
        The file.
    index : int
        Number in the file, from 0.
    image : (y, x) array of uint8 or float32
        NaN where there is no data, in float32.
    eight_bit : bool
        Taken as clipped already.
    pixel_arcsec : float
        NaN where not known.
    beam_arcsec : float
        Geometric mean of the beam's axes; NaN where not known.
    """

    input: str
    index: int
    image: NDArray[Any]
    eight_bit: bool
    pixel_arcsec: float = math.nan
    beam_arcsec: float = math.nan


@dataclass(frozen=True)
class UnreadableCutout:
    """An input that no image could be read from.

    Attributes
    ----------
    input : str
        The file or folder.
    cause, remedy : str
        What is wrong, and what to do about it.
    """

    input: str
    cause: str
    remedy: str


def read_cutouts(paths: Iterable[str | Path]) -> Iterator[Cutout | UnreadableCutout]:
    """Read images one after the other; only one is in memory at a time.

    Parameters
    ----------
    paths : iterable of str or Path
        FITS and PNG images, ``.npy`` of shape (n, y, x) or (y, x), ``.npz`` files of cutouts, and folders of
        these, which are taken in the order of their names with all that is below them.

    Yields
    ------
    Cutout or UnreadableCutout
        In the order given. A file that cannot be read does not end the others.
    """
    for path in paths:
        place = Path(path).expanduser()
        if place.is_dir():
            yield from _read_folder(place)
        else:
            yield from _read_guarded(place)


def read_single(path: Path) -> Cutout:
    """Read a file of one image.

    Raises
    ------
    InputError
        When it cannot be read or holds several.
    """
    cutouts = _read_file(path)
    first = next(cutouts)
    if next(cutouts, None) is not None:
        raise InputError(f"{path} holds more than one image", "Give a file an image.")
    return first


def _read_folder(folder: Path) -> Iterator[Cutout | UnreadableCutout]:
    closed: list[OSError] = []
    files = sorted(file for file in _list_files(folder, closed) if _find_ending(file))
    for error in closed:
        yield _excuse(Path(error.filename), error)
    if not files and not closed:
        yield UnreadableCutout(
            str(folder), f"the folder {folder} has no images", f"Give files that end in {', '.join(ENDINGS)}."
        )
    for file in files:
        yield from _read_guarded(file)


def _list_files(folder: Path, closed: list[OSError]) -> Iterator[Path]:
    """Yield all files below a folder, through links too, each folder once; note what cannot be entered."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=closed.append):
        if (real := Path(place).resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()  # of several ways to one folder the first by name is taken
        yield from (Path(place) / name for name in files)


def _read_guarded(path: Path) -> Iterator[Cutout | UnreadableCutout]:
    try:
        yield from _read_file(path)
    except InputError as error:
        yield UnreadableCutout(str(path), error.message, error.hint)
    except OSError as error:
        yield _excuse(path, error)


def _excuse(path: Path, error: OSError) -> UnreadableCutout:
    cause = f"{path} cannot be read: {error.strerror or error}"
    return UnreadableCutout(str(path), cause, "Check the path and its permissions.")


def _find_ending(path: Path) -> str:
    """Return the ending that tells the format; empty for all others, and for hidden files."""
    name = path.name.lower()
    return "" if name.startswith(".") else next((end for end in ENDINGS if name.endswith(end)), "")


def _read_file(path: Path) -> Iterator[Cutout]:
    ending = _find_ending(path)
    if not path.exists():
        raise InputError(f"{path} does not exist", "Check the path.")
    require_regular(path)
    if ending in FITS:
        plane = read_plane_image(path)
        yield _make_cutout(path, 0, plane.image, plane.pixel_arcsec, plane.beam_arcsec)
    elif ending == ".png":
        yield _make_cutout(path, 0, read_png(path))
    elif ending == ".npy":
        for index, image in enumerate(_open_stack(path)):
            yield _make_cutout(path, index, np.array(image))
    elif ending == ".npz":
        stack = read_cutout_file(path)
        for index, image in enumerate(stack.images):
            yield _make_cutout(path, index, image, float(stack.pixel_arcsec[index]))
    else:
        raise InputError(f"{path} has an unknown format", f"Give a file that ends in {', '.join(ENDINGS)}.")


def _make_cutout(
    path: Path, index: int, image: NDArray[Any], pixel: float = math.nan, beam: float = math.nan
) -> Cutout:
    _check_shape(path, index, image.shape)
    if image.dtype == np.uint8:
        return Cutout(str(path), index, image, True, pixel, beam)
    # Values beyond float32 become infinite, which is no data.
    with np.errstate(over="ignore"):
        values = image.astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    return Cutout(str(path), index, values, False, pixel, beam)


def _check_shape(path: Path, index: int, shape: tuple[int, ...]) -> None:
    if min(shape) < LEAST or math.prod(shape) > LARGEST:
        raise InputError(
            f"{path}: image {index} has {shape[0]} x {shape[1]} pixels",
            f"Give images of at least {LEAST} pixels a side and {LARGEST} in all; arrays are (n, y, x).",
        )


def _open_stack(path: Path) -> NDArray[Any]:
    """Map an array of images (n, y, x); nothing of it is read yet."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OverflowError) as error:
        raise InputError(
            f"{path} cannot be read as an array: {error}",
            "Write it again with numpy.save; arrays of objects are not read.",
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uif":
        raise InputError(f"{path} holds no array of real numbers", "Write brightnesses with numpy.save.")
    if array.ndim not in (2, 3) or not array.size:
        raise InputError(
            f"{path} has the shape {array.shape}", "Give an array of shape (n, y, x) or (y, x) with pixels."
        )
    _check_shape(path, 0, array.shape[-2:])  # before any of them is copied
    return array if array.ndim == 3 else array[None]
