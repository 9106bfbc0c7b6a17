"""Files of cutouts: one ``.npz`` of plain arrays, to hand on what was cut from a release or elsewhere.

Keys: ``images`` (n, y, x) of uint8 or float32, ``names`` (n,) of str, ``ra`` and ``dec`` (n,) in deg,
``pixel_arcsec`` of one number or (n,); and ``label`` (n,) of str where classes are known.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from survey_ml.data.labelled.naming import number_classes
from survey_ml.errors import InputError
from survey_ml.labelled import LabelledImages, differ_in_scale, find_scale

LARGEST = 4 << 30
"""Bytes of all arrays together; a small file can claim any size."""

_KINDS = {"images": "uf", "names": "U", "ra": "fiu", "dec": "fiu", "pixel_arcsec": "fiu", "label": "U"}
_NEEDED = tuple(_KINDS)[:-1]


@dataclass(frozen=True, eq=False)
class CutoutFile:
    """What a file of cutouts holds.

    Attributes
    ----------
    images : (n, y, x) array of uint8 or float32
    names : (n,) array of str
    ra, dec : (n,) array of float64
        deg; NaN where not known.
    pixel_arcsec : (n,) array of float64
    label : (n,) array of str, or None
        Classes.
    """

    images: NDArray[Any]
    names: NDArray[np.str_]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    pixel_arcsec: NDArray[np.float64]
    label: NDArray[np.str_] | None = None


def write_cutout_file(
    path: str | Path,
    images: NDArray[Any],
    names: Sequence[str] | NDArray[np.str_],
    ra: ArrayLike,
    dec: ArrayLike,
    pixel_arcsec: ArrayLike,
    label: Sequence[str] | NDArray[np.str_] | None = None,
) -> Path:
    """Write a file of cutouts, whole or not at all.

    Parameters
    ----------
    path : str or Path
        Ends in ``.npz``; replaced if it is there.
    images : (n, y, x) array of uint8 or float32
        8-bit images are clipped already.
    names, ra, dec, label : (n,)
        As in `CutoutFile`.
    pixel_arcsec : float or (n,)

    Raises
    ------
    InputError
        When the arrays do not belong together.
    """
    target = Path(path)
    if target.suffix != ".npz":
        raise InputError(f"{target} does not end in .npz", "Name it so.")
    arrays: dict[str, NDArray[Any]] = {
        "images": np.asarray(images),
        "names": np.asarray(names, np.str_),
        "ra": np.asarray(ra, np.float64),
        "dec": np.asarray(dec, np.float64),
        "pixel_arcsec": np.asarray(pixel_arcsec, np.float64),
    }
    if label is not None:
        arrays["label"] = np.asarray(label, np.str_)
    _check(arrays, str(target))
    aside = target.with_name(f".{target.stem}.{os.getpid()}.npz")
    try:
        with aside.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def read_cutout_file(path: str | Path) -> CutoutFile:
    """Read a file of cutouts.

    Raises
    ------
    InputError
        When it is damaged, too large, or not what `write_cutout_file` writes.
    """
    place = Path(path)
    try:
        with zipfile.ZipFile(place) as archive:
            size = sum(member.file_size for member in archive.infolist())
            names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
        if size > LARGEST:
            raise InputError(f"{place} unpacks to {size >> 20} MiB", "Divide it.")
        if len(set(names)) != len(names):
            raise InputError(f"{place} holds an array twice", "Write it again.")
        with np.load(place, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in _KINDS if name in names}
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{place} does not exist", "Check the path.") from error
    except Exception as error:
        # A damaged archive raises BadZipFile, zlib.error, EOFError, ValueError, KeyError ...
        raise InputError(f"{place} cannot be read: {error}", "Write or copy the file again.") from error
    _check(found, str(place))
    n = len(found["images"])
    return CutoutFile(
        found["images"],
        found["names"],
        found["ra"].astype(np.float64),
        found["dec"].astype(np.float64),
        np.broadcast_to(found["pixel_arcsec"].astype(np.float64), n).copy(),
        found.get("label"),
    )


def label_cutouts(
    cutouts: CutoutFile, classes: Sequence[str] | None = None, place: str = "the file of cutouts"
) -> LabelledImages:
    """Turn cutouts with classes into labelled images, without a split.

    Raises
    ------
    InputError
        When they have no classes or pixels of several sizes, or as `number_classes` says.
    """
    if cutouts.label is None:
        raise InputError(f"{place} has no column label", "Write it with the classes of its images.")
    rows = [f"{place}, row {row} ({name})" for row, name in enumerate(cutouts.names.tolist())]
    labels, known = number_classes(cutouts.label.tolist(), rows, classes)
    pixels = cutouts.pixel_arcsec
    if differ_in_scale(pixels):
        raise InputError(
            f"{place} has pixels of {np.nanmin(pixels):g} to {np.nanmax(pixels):g} arcsec",
            "Bring its images to one scale.",
        )
    return LabelledImages(
        cutouts.images,
        labels,
        known,
        cutouts.names,
        cutouts.ra,
        cutouts.dec,
        np.full(len(labels), ""),
        pixel_arcsec=find_scale(pixels),
    )


def _check(arrays: dict[str, NDArray[Any]], place: str) -> None:
    def refuse(cause: str) -> InputError:
        return InputError(f"{place}: {cause}", "See survey_ml.data.labelled.product for the arrays.")

    if missing := [name for name in _NEEDED if name not in arrays]:
        raise refuse(f"there is no {', '.join(missing)}")
    images = arrays["images"]
    if images.ndim != 3 or images.dtype not in (np.uint8, np.float32) or not images.size:
        raise refuse(f"images are {images.dtype} {images.shape}, not (n, y, x) of uint8 or float32")
    for name, array in arrays.items():
        if array.dtype.kind not in _KINDS[name]:
            raise refuse(f"{name} cannot be {array.dtype}")
        single = name == "pixel_arcsec" and array.ndim == 0
        if name != "images" and array.shape != (len(images),) and not single:
            raise refuse(f"{len(images)} images, but {name} has the shape {array.shape}")
