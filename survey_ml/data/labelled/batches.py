"""Batches of images as CIFAR-10 has them: pickles in a folder or a ``.tar.gz``, read without trusting them.

A pickle is a program. Here only instructions that build plain containers, numbers, text and bytes are let
through, and where it names a numpy function a stand-in of this file is called, which makes arrays of 8-bit
numbers and text and nothing else. So no bytes from the file reach numpy's own unpickling.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import pickletools
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import InputError

LARGEST = 128 << 20
"""Bytes of all batches together; those that were published take 14 to 29 MB."""

META = "batches.meta"
TEST = "test_batch"
TRAIN = "data_batch_"

_BUILDING = frozenset(
    [
        *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "EMPTY_LIST", "EMPTY_TUPLE"),
        *("EMPTY_DICT", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL"),
        *("REDUCE", "BUILD"),
    ]
)
"""Instructions that the published files use, and their shorter spellings."""


@dataclass(frozen=True)
class Batches:
    """All batches of a data set.

    Attributes
    ----------
    images : (n, y, x) array of uint8
    labels : (n,) array of int64
        Numbers of `classes`.
    classes : tuple of str
        As the file names them.
    names : (n,) array of str
        File names of the images that the batches were made of.
    split : (n,) array of str
        ``train`` or ``test``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    names: NDArray[np.str_]
    split: NDArray[np.str_]


def read_batches(path: Path) -> Batches:
    """Read the batches of a folder or a ``.tar.gz``, in the order of their numbers.

    Raises
    ------
    InputError
        When they cannot be read, are not what was published, or hold more than arrays.
    """
    files = _read_folder(path) if path.is_dir() else _read_archive(path)
    if META not in files or TEST not in files or len(files) < 3:
        raise InputError(
            f"{path} holds no batches: {META}, {TEST} and {TRAIN}1 are looked for",
            "Give the archive as published, or the folder that it unpacks to.",
        )
    meta = load_plain(files.pop(META), f"{path}: {META}")
    classes = meta.get("label_names") if isinstance(meta, dict) else None
    if not (isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)):
        _refuse(f"{path}: {META}", "it names no classes")
    order = sorted(
        files, key=lambda name: (name == TEST, int(name.removeprefix(TRAIN)) if name != TEST else 0)
    )
    parts = [_read_batch(load_plain(files.pop(name), f"{path}: {name}"), f"{path}: {name}") for name in order]
    if len({part[0].shape[1:] for part in parts}) != 1:
        _refuse(str(path), "its batches have images of different sizes")
    labels = np.concatenate([part[1] for part in parts])
    if labels.size and labels.max() >= len(classes):
        _refuse(str(path), f"there is a label {labels.max()}, but {len(classes)} classes")
    split = [
        np.full(len(part[1]), "test" if name == TEST else "train")
        for name, part in zip(order, parts, strict=True)
    ]
    return Batches(
        np.concatenate([part[0] for part in parts]),
        labels,
        tuple(classes),
        np.concatenate([part[2] for part in parts]),
        np.concatenate(split),
    )


def _is_wanted(name: str) -> bool:
    return name in (META, TEST) or (name.startswith(TRAIN) and name.removeprefix(TRAIN).isdecimal())


def _read_folder(path: Path) -> dict[str, bytes]:
    files = {file.name: file for file in sorted(path.iterdir()) if _is_wanted(file.name) and file.is_file()}
    if sum(file.stat().st_size for file in files.values()) > LARGEST:
        _refuse(str(path), f"its batches take more than {LARGEST >> 20} MiB")
    return {name: file.read_bytes() for name, file in files.items()}


def _read_archive(path: Path) -> dict[str, bytes]:
    """Read members in memory; none is ever unpacked to a disk, so that their paths do not matter."""
    files: dict[str, bytes] = {}
    try:
        with gzip.open(path, "rb") as packed:
            content = packed.read(LARGEST + 1)
        if len(content) > LARGEST:
            _refuse(str(path), f"it unpacks to more than {LARGEST >> 20} MiB")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if member.isreg() and _is_wanted(name) and (file := archive.extractfile(member)) is not None:
                    if name in files:
                        _refuse(str(path), f"it holds {name} twice")
                    files[name] = file.read()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", "Check the path.") from error
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise InputError(f"{path} cannot be unpacked: {error}", "Copy or download the file again.") from error
    return files


def _read_batch(batch: Any, place: str) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.str_]]:
    """Check one batch and stack its images."""
    if not isinstance(batch, dict):
        _refuse(place, "it is no table of images")
    data, labels, names = (batch.get(key) for key in ("data", "labels", "filenames"))
    if not (isinstance(data, list) and isinstance(labels, list) and isinstance(names, list)):
        _refuse(place, "it lacks data, labels or filenames")
    if not len(data) == len(labels) == len(names) or not data:
        _refuse(place, f"it has {len(data)} images, {len(labels)} labels and {len(names)} file names")
    pixels = [item.values for item in data if isinstance(item, _Array)]
    if len(pixels) != len(data) or len({image.shape for image in pixels}) != 1 or not pixels[0].size:
        _refuse(place, "its images are not of one size")
    if not all(type(label) is int and 0 <= label < 1 << 15 for label in labels):
        _refuse(place, "a label is no small number")
    texts = [name.text if isinstance(name, _Scalar) else name for name in names]
    if not all(isinstance(text, str) for text in texts):
        _refuse(place, "a file name is no text")
    return np.stack(pixels), np.array(labels, np.int64), np.array(texts, np.str_)


def _refuse(place: str, cause: str) -> NoReturn:
    raise InputError(f"{place} is not as published: {cause}", "Copy or download the file again.")


# Pickles without programs


def load_plain(content: bytes, place: str) -> Any:
    """Return what a pickle of containers and arrays holds.

    Raises
    ------
    InputError
        When it does anything else, before any of it runs.
    """
    try:
        for instruction, argument, _ in pickletools.genops(content):
            if instruction.name not in _BUILDING:
                _refuse(place, f"the pickle has the instruction {instruction.name}")
            # The number of a memo is the size of the table that is allocated for it.
            if instruction.name in ("BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
                _refuse(place, f"the pickle has a memo of number {argument}")
        return _Plain(io.BytesIO(content)).load()
    except InputError:
        raise
    except Exception as error:
        # A broken pickle raises whatever comes of it: IndexError, TypeError, UnicodeDecodeError ...
        raise InputError(
            f"{place} cannot be read: {type(error).__name__}: {error}", "Copy or download the file again."
        ) from error


class _Dtype:
    """Stands for numpy.dtype: 8-bit numbers or text."""

    def __init__(self, code: object, *rest: object) -> None:
        self.length = 0
        if code != "u1":
            if not (isinstance(code, str) and code[:1] == "U" and code[1:].isdecimal()):
                raise ValueError("an array is neither of 8-bit numbers nor text")
            self.length = int(code[1:])

    def __setstate__(self, state: object) -> None:
        """Check the byte order; what else numpy writes follows from the code."""
        if not (isinstance(state, tuple) and len(state) >= 2 and state[1] in ("|", "<")):
            raise ValueError("an array has an unknown byte order")


class _Array:
    """Stands for numpy.ndarray and what makes one: 8-bit numbers on one or two axes."""

    def __init__(self, *made_empty: object) -> None:
        self.values = np.empty((0, 0), np.uint8)

    def __setstate__(self, state: object) -> None:
        """Take version, shape, dtype, order and bytes, as numpy writes them."""
        if not (isinstance(state, tuple) and len(state) == 5):
            raise ValueError("an array has an unknown form")
        _, shape, dtype, order, content = state
        if not (isinstance(dtype, _Dtype) and dtype.length == 0 and isinstance(content, bytes)):
            raise ValueError("an array is not of 8-bit numbers")
        side = math.isqrt(len(content))
        # Both are published: rows of all pixels, and squares.
        if side == 0 or shape not in ((side * side,), (side, side)) or side * side != len(content) or order:
            raise ValueError(f"an array of {len(content)} bytes is not square")
        self.values = np.frombuffer(content, np.uint8).reshape(side, side)


class _Scalar:
    """Stands for numpy's scalars: text."""

    def __init__(self, dtype: object, content: object) -> None:
        if not (
            isinstance(dtype, _Dtype) and isinstance(content, bytes) and len(content) == 4 * dtype.length
        ):
            raise ValueError("a scalar is not text")
        self.text = content.decode("utf-32-le").rstrip("\0")

    def __setstate__(self, state: object) -> None:
        """Refuse to be changed, or the pickle could write to this class."""
        raise ValueError("a scalar has a state")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "scalar"): _Scalar,
}


class _Plain(pickle.Unpickler):
    """Finds stand-ins and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a numpy function."""
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise ValueError(f"the pickle asks for {module}.{name}") from None
