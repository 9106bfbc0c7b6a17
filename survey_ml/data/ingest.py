"""From input images to the pixels of a release: a tile at a time, in Jy/beam."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from survey_ml.data.fits import FitsReader
from survey_ml.data.header import LEAST_PX, Assumptions
from survey_ml.data.source import Source
from survey_ml.errors import InputError, PluginError, SetAside
from survey_ml.field import Field, Tile, Window
from survey_ml.padding import REACH, find_padding


class Reader(Protocol):
    """What the ``factory`` of a `survey_ml.hookspecs.ReaderSpec` names: called as ``(path, hdu)``.

    ``notes`` may hold what the user should know; it is read after `describe`.
    """

    def describe(self, defaults: Assumptions, name: str) -> tuple[Field, float]: ...  # noqa: D102
    def read(self, window: Window) -> NDArray[np.float32]: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


_open_readers: dict[tuple[object, ...], Reader] = {}
"""The reader of the last input: tiles of one field follow each other in a worker."""


def make_reader(reader: str, path: str, hdu: str | int | None) -> Reader:
    """Return a reader of an input.

    Parameters
    ----------
    reader : str
        ``fits``, or ``module:Class``.
    path : str
        The input.
    hdu : str, int or None
        Which image in it.

    Raises
    ------
    PluginError
        When a plugin's reader cannot be imported.
    """
    if reader == "fits":
        return FitsReader(path, hdu)
    from importlib import import_module

    module, _, name = reader.partition(":")
    try:
        return getattr(import_module(module), name)(path, hdu)
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"the reader {reader} cannot be loaded: {error}", "Correct or remove the plugin."
        ) from error


def _find_reader(source: Source, sha256: str) -> Reader:
    """Return the open reader of a source and its contents, closing that of another."""
    stamp: tuple[object, ...] = ()
    if "://" not in source.path:
        try:
            state = os.stat(source.path)  # noqa: PTH116
        except OSError as error:
            raise InputError(
                f"{source.path} cannot be read: {error.strerror}",
                "Put the file back.",
                field=source.field.name,
            ) from error
        stamp = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
    key = (source.reader, source.path, source.hdu, sha256, *stamp)
    if key not in _open_readers:
        close_readers()
        _open_readers[key] = make_reader(source.reader, source.path, source.hdu)
    return _open_readers[key]


def close_readers() -> None:
    """Close the input that is still open in this process."""
    while _open_readers:
        _open_readers.popitem()[1].close()


def ingest_tile(source: Source, tile: Tile, sha256: str = "") -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Read the core of a tile and count its pixels.

    Parameters
    ----------
    source : Source
        The input.
    tile : Tile
        Whose core is read.
    sha256 : str
        Of the file: a reader that was opened for other contents is not used.

    Returns
    -------
    pixels : ndarray, shape (ny, nx)
        float32 in Jy/beam, NaN where there is no data or padding.
    summary : dict
        Of the input: ``n_pixels``, ``n_finite``, ``n_blank``, ``n_infinite``, ``n_padding`` (of the
        finite ones, made blank), and ``minimum`` and ``maximum`` of the finite pixels (None where
        there are none).

    Raises
    ------
    InputError
        When the pixels cannot be read.
    """
    window = tile.core.grow(REACH, source.field.shape)
    try:
        pixels = _find_reader(source, sha256).read(window)
    except InputError as error:
        close_readers()
        raise InputError(error.message, error.hint, field=source.field.name, tile=tile.name) from error
    if pixels.shape != window.shape:
        raise InputError(
            f"{source.path} gave {pixels.shape} pixels of {window.shape}",
            "The file changed; run again.",
            field=source.field.name,
            tile=tile.name,
        )
    if source.scale != 1.0:
        pixels *= np.float32(source.scale)
    inside = tile.core.inside(window)
    core = np.ascontiguousarray(pixels[inside])
    counts = count_pixels(core)
    padding = find_padding(pixels, window.y0)
    counts["n_padding"] = 0 if padding is None else int(np.count_nonzero(padding[inside]))
    if padding is not None:
        core[padding[inside]] = np.nan
    return core, counts


def count_pixels(pixels: NDArray[np.float32]) -> dict[str, Any]:
    """Count finite, blank and infinite pixels and find the extremes of the finite ones.

    Parameters
    ----------
    pixels : ndarray
        Any shape.
    """
    n_pixels = int(pixels.size)
    # NaN and infinities survive a sum, so that one pass is enough for a clean tile.
    with np.errstate(over="ignore", invalid="ignore"):
        clean = bool(np.isfinite(pixels.sum(dtype=np.float64)))
    if clean and n_pixels:
        low, high, n_finite, n_blank = pixels.min(), pixels.max(), n_pixels, 0
    else:
        finite = np.isfinite(pixels)
        n_finite = int(np.count_nonzero(finite))
        n_blank = int(np.count_nonzero(np.isnan(pixels)))
        if n_finite:
            low = pixels.min(initial=np.inf, where=finite)
            high = pixels.max(initial=-np.inf, where=finite)
    return {
        "n_pixels": n_pixels,
        "n_finite": n_finite,
        "n_blank": n_blank,
        "n_infinite": n_pixels - n_finite - n_blank,
        "minimum": float(low) if n_finite else None,
        "maximum": float(high) if n_finite else None,
    }


def check_field(name: str, summaries: Sequence[dict[str, Any]]) -> SetAside | None:
    """Judge a field by the counts of all its tiles.

    Parameters
    ----------
    name : str
        The field.
    summaries : sequence of dict
        What `ingest_tile` counted.

    Returns
    -------
    SetAside or None
        Why it cannot be used, and what to do.
    """
    n_finite = sum(summary["n_finite"] for summary in summaries)
    n_infinite = sum(summary["n_infinite"] for summary in summaries)
    n_padding = sum(summary["n_padding"] for summary in summaries)
    if n_infinite:
        return SetAside(
            name,
            f"{n_infinite} pixels are infinite",
            "Set them to NaN (blank) and write the image again.",
            stage="ingest",
        )
    if not n_finite:
        return SetAside(name, "all pixels are blank (NaN)", "Leave the field out.", stage="ingest")
    if n_finite < LEAST_PX**2:
        return SetAside(name, f"only {n_finite} pixels are not blank", "Leave the field out.", stage="ingest")
    low = min(summary["minimum"] for summary in summaries if summary["n_finite"])
    high = max(summary["maximum"] for summary in summaries if summary["n_finite"])
    if low == high:
        return SetAside(
            name,
            f"all pixels are {low:g}",
            "Check how the image was written; it has no noise.",
            stage="ingest",
        )
    if n_finite - n_padding < LEAST_PX**2:
        cause = f"only {n_finite - n_padding} pixels are neither blank nor padding of constant value"
        return SetAside(name, cause, "Leave the field out.", stage="ingest")
    return None
