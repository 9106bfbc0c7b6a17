"""The file of a model: arrays and card in one safetensors file.

A model file is data of unknown origin. Nothing in it is run: safetensors holds numbers and a JSON header
and nothing else. Sizes are checked before anything is read, and names, dtypes and shapes
against what the card's architecture says before anything is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import ConfigError, InputError
from survey_ml.learning.forest import Forest
from survey_ml.models.card import Card, parse_card
from survey_ml.models.kinds import find_differences

if TYPE_CHECKING:
    from torch import nn

SUFFIX = ".safetensors"
LARGEST_HEADER = 4 << 20
"""Bytes of the JSON that says what the file holds."""
LARGEST_FILE = 1 << 30
"""Bytes; a model of cutouts has some millions."""
MOST_TENSORS = 10_000
SHOWN_DIGITS = 12
"""Digits of the hash that are shown."""

Tensors = dict[str, NDArray[Any]]


def save_model(path: str | Path, content: nn.Module | Forest | Mapping[str, NDArray[Any]], card: Card) -> str:
    """Write a model, whole or not at all.

    Parameters
    ----------
    path : str or Path
        Ends in ``.safetensors``.
    content : nn.Module, Forest or mapping
        A network, a forest, or arrays by name; they must fit the card.
    card : Card

    Returns
    -------
    str
        The SHA-256 of the file, hexadecimal.

    Raises
    ------
    ConfigError
        When the arrays are not those of the card's architecture, or the name of the file ends otherwise.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ConfigError(f"{path} does not end in {SUFFIX}", f"write to {path.with_suffix(SUFFIX)}")
    tensors = _to_arrays(content)
    shapes = {name: (str(array.dtype), array.shape) for name, array in tensors.items()}
    if differences := find_differences(shapes, card):
        raise ConfigError(f"the arrays are not those of the card: {differences}", "write the card that fits")
    data = import_safetensors().save(dict(sorted(tensors.items())), metadata={"card": card.to_json()})
    write_whole(path, data)
    return hashlib.sha256(data).hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Raises
    ------
    ConfigError
        When it cannot be written there.
    """
    try:
        _write_whole(path, data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", "name another file") from None


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).chmod(0o644)
        Path(aside).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(aside).unlink()
        raise


def read_model(path: str | Path, *, expected_hash: str = "") -> tuple[Tensors, Card, str]:
    """Read a model.

    Parameters
    ----------
    path : str or Path
    expected_hash : str
        SHA-256 that the file must have, or its first digits; empty for any.

    Returns
    -------
    tensors : dict
        Arrays by name, those of the card's architecture.
    card : Card
    hash : str
        The SHA-256 of the file, hexadecimal.

    Raises
    ------
    InputError
        When the file is not there, is no model, is damaged, or is another one than expected.
    """
    path = Path(path)
    data, header, card, digest = _read(path)
    if expected_hash and not digest.startswith(expected_hash.lower()):
        raise InputError(
            f"{path} has the hash {digest[: max(SHOWN_DIGITS, len(expected_hash))]}, not {expected_hash}",
            "it is another model, or was changed; get the file again",
        )
    shapes = {name: (_DTYPES.get(kind, kind), shape) for name, (kind, shape) in header.items()}
    if differences := find_differences(shapes, card):
        raise InputError(f"{path} does not hold what its card says: {differences}", _DAMAGED)
    safetensors = import_safetensors()
    try:
        tensors = safetensors.load(data)
    except Exception as error:  # its own exception type is not part of what it promises
        raise InputError(f"{path} is damaged: {error}", _DAMAGED) from None
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{path} is damaged: {name} has values that are not finite", _DAMAGED)
    return tensors, card, digest


def read_card(path: str | Path) -> tuple[Card, str]:
    """Read the card of a model and the hash of its file, without what would run it.

    Raises
    ------
    InputError
        When the file is not there or is no model.
    """
    _, _, card, digest = _read(Path(path))
    return card, digest


_DAMAGED = "the file was damaged or changed; get it again"
_DTYPES = {"F32": "float32", "F64": "float64", "I32": "int32", "I64": "int64"}

Header = dict[str, tuple[str, tuple[int, ...]]]
"""Name of a tensor to its dtype, in the words of safetensors, and its shape."""


def _read(path: Path) -> tuple[bytes, Header, Card, str]:
    """Return the bytes of a file, what its header says, its card and its hash."""
    hint = f"a model is a {SUFFIX} file that survey_ml wrote"
    try:
        if not path.is_file():
            raise InputError(f"{path} is {'a folder' if path.is_dir() else 'not there'}", hint)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > LARGEST_FILE:
                raise InputError(f"{path} has {size} bytes", f"at most {LARGEST_FILE} are read")
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint) from None
    length = int.from_bytes(data[:8], "little")
    if len(data) < 10 or length > len(data) - 8 or data[8:9] != b"{":
        kind = _name_kind(data)
        raise InputError(f"{path} is no model: it is {kind}, not a safetensors file", hint)
    if length > LARGEST_HEADER:
        raise InputError(f"{path}: its header has {length} bytes", f"at most {LARGEST_HEADER} are read")
    header, text = _parse_header(data[8 : 8 + length], path)
    return data, header, parse_card(text, str(path)), hashlib.sha256(data).hexdigest()


def _name_kind(data: bytes) -> str:
    if data[:1] == b"\x80":
        return "a pickle, which could run code and is never read"
    if data[:4] == b"PK\x03\x04":
        return "a ZIP archive, such as torch.save writes, which could run code and is never read"
    return "empty" if not data else "something else, or cut off"


def _parse_header(text: bytes, path: Path) -> tuple[Header, str]:
    """Return names, dtypes and shapes, and the text of the card."""
    try:
        content = json.loads(text)
        metadata = content.pop("__metadata__", {})
        card = metadata.get("card")
        header = {
            str(name): (str(one["dtype"]), tuple(map(int, one["shape"]))) for name, one in content.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        cause = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} is damaged: its header cannot be read ({cause})", _DAMAGED) from None
    if not isinstance(card, str):
        raise InputError(
            f"{path} has no card: it is a safetensors file, but not one of survey_ml",
            "write it with survey_ml.models.format.save_model, which takes the card",
        )
    if len(header) > MOST_TENSORS:
        raise InputError(f"{path} has {len(header)} arrays", f"at most {MOST_TENSORS} are read")
    return header, card


def _to_arrays(content: nn.Module | Forest | Mapping[str, NDArray[Any]]) -> Tensors:
    found: Mapping[str, NDArray[Any]]
    if isinstance(content, Forest):
        found = content.to_arrays()
    elif isinstance(content, Mapping):
        found = content
    else:
        found = {name: value.detach().cpu().numpy() for name, value in content.state_dict().items()}
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def import_safetensors() -> Any:
    """Return the module of safetensors for numpy.

    Raises
    ------
    ConfigError
        When it is not installed.
    """
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ConfigError("safetensors is not installed", "pip install 'survey-ml[learning]'") from error
    return safetensors.numpy
