"""One shard of a Zarr array, encoded in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np
import zarr
from numcodecs.blosc import Blosc, set_nthreads  # type: ignore[import-untyped]
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from survey_ml.errors import PluginError

CHUNK = 512
"""Largest side of an inner chunk in pixels: what a reader decodes for one pixel."""


CODEC: Final = "lz4"
LEVEL: Final = 5
_NOWHERE: Final = (1 << 64) - 1
"""Place of a chunk that is not stored."""
_BLOSC = Blosc(cname=CODEC, clevel=LEVEL, shuffle=Blosc.SHUFFLE)


@dataclass(frozen=True)
class Layout:
    """How an array is stored: its dtype and the side of its shards."""

    dtype: str
    core: int

    @property
    def chunk(self) -> int:
        """Side of an inner chunk: the largest divisor of the shard up to `CHUNK`.

        A side with no divisor of a useful size, such as a prime, makes the shard one chunk.
        """
        side = max(side for side in range(1, min(self.core, CHUNK) + 1) if self.core % side == 0)
        return side if side >= CHUNK // 8 else self.core

    @property
    def fill(self) -> Any:
        """What stands where there is no data."""
        return float("nan") if np.dtype(self.dtype).kind == "f" else np.zeros((), self.dtype).item()


@cache
def use_one_core() -> None:
    """Keep Zarr and Blosc from starting threads: a worker has one core, and there are many."""
    zarr.config.set({"threading.max_workers": 1, "async.concurrency": 4})
    set_nthreads(1)


def create_array(store: Any, shape: tuple[int, int], layout: Layout, **options: Any) -> zarr.Array:
    """Create an array of `shape` with the codecs of every survey_ml array.

    lz4 after a byte shuffle: in CPU time of encoding, hashing and writing together it is as cheap as
    no compression over the arrays of a field (mostly empty models shrink tenfold, smooth maps by a
    quarter, noise by a tenth), where zstd costs twice that. crc32c comes last because no other codec
    finds a flipped bit.
    """
    return zarr.create_array(
        store,
        shape=shape,
        shards=(layout.core, layout.core),
        chunks=(layout.chunk, layout.chunk),
        dtype=layout.dtype,
        fill_value=layout.fill,
        filters=None,
        compressors=[BloscCodec(cname=CODEC, clevel=LEVEL, shuffle="shuffle"), Crc32cCodec()],
        dimension_names=("y", "x"),
        config={"write_empty_chunks": True},
        **options,
    )


def encode_shard(values: NDArray[Any], layout: Layout) -> bytes:
    """Encode the pixels of one core as the bytes of its shard.

    The layout is that of Zarr's ``sharding_indexed`` codec: the encoded chunks, then an index of
    their places and a checksum of it. Zarr's own encoder gives the same chunks at twice the CPU
    time, in copies and in threads that wait for each other.

    Parameters
    ----------
    values : ndarray, shape (ny, nx)
        The core; smaller than the shard at the edge of a field, where the rest is fill value.
    layout : Layout
        Of the array it belongs to.

    Returns
    -------
    bytes
        The content of the shard; the same for the same values.

    Raises
    ------
    PluginError
        When the values do not fit the array's dtype.
    """
    if not np.can_cast(values.dtype, layout.dtype, casting="same_kind"):
        raise PluginError(
            f"an array has dtype {values.dtype}, {layout.dtype} was declared", "Return the declared dtype."
        )
    dtype = np.dtype(layout.dtype).newbyteorder("<")
    side, across = layout.chunk, layout.core // layout.chunk
    # A chunk that lies wholly beyond the field's edge is never read and not stored.
    index = np.full((across, across, 2), _NOWHERE, dtype="<u8")
    pieces: list[bytes] = []
    offset = 0
    for row in range(across):
        for column in range(across):
            part = values[row * side : (row + 1) * side, column * side : (column + 1) * side]
            if not part.size:
                continue
            if part.shape == (side, side):
                chunk = np.ascontiguousarray(part, dtype=dtype)
            else:
                chunk = np.full((side, side), layout.fill, dtype=dtype)
                chunk[: part.shape[0], : part.shape[1]] = part
            data = _BLOSC.encode(chunk)
            pieces += [data, _sum(data)]
            index[row, column] = offset, len(data) + 4
            offset += len(data) + 4
    places = index.tobytes()
    return b"".join([*pieces, places, _sum(places)])


def _sum(data: bytes) -> bytes:
    """Return the CRC-32C of bytes as Zarr stores it."""
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def read_shard(path: str, layout: Layout, rows: slice, columns: slice) -> NDArray[Any]:
    """Read a window of one shard, from a file.

    Zarr's own reader goes through an event loop in another thread and takes some two milliseconds a
    shard whatever its size, of which a tile and its halo touch nine.

    Parameters
    ----------
    path : str
        The shard.
    layout : Layout
        Of the array it belongs to.
    rows, columns : slice
        Within the shard, of step 1.

    Returns
    -------
    ndarray, shape (ny, nx)
        A new array.

    Raises
    ------
    ValueError
        When a checksum is wrong, or a place lies beyond the end of the file.
    OSError
        When the file cannot be read.
    """
    dtype = np.dtype(layout.dtype)
    side, across = layout.chunk, layout.core // layout.chunk
    out = np.empty((rows.stop - rows.start, columns.stop - columns.start), dtype)
    with Path(path).open("rb", buffering=0) as file:
        size = across * across * 16
        file.seek(-size - 4, os.SEEK_END)
        index = np.frombuffer(_check(file.read(size + 4)), "<u8").reshape(across, across, 2)
        for row in range(rows.start // side, (rows.stop - 1) // side + 1):
            for column in range(columns.start // side, (columns.stop - 1) // side + 1):
                y0, y1 = max(rows.start, row * side), min(rows.stop, (row + 1) * side)
                x0, x1 = max(columns.start, column * side), min(columns.stop, (column + 1) * side)
                place, length = (int(value) for value in index[row, column])
                target = out[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start]
                if place == _NOWHERE:
                    target[...] = layout.fill
                    continue
                file.seek(place)
                data = _BLOSC.decode(_check(file.read(length)))
                chunk = np.frombuffer(data, dtype.newbyteorder("<")).reshape(side, side)
                target[...] = chunk[
                    y0 - row * side : y1 - row * side, x0 - column * side : x1 - column * side
                ]
    return out


def _check(data: bytes) -> bytes:
    """Return bytes without the checksum at their end.

    Raises
    ------
    ValueError
        When it is wrong.
    """
    if len(data) < 4 or _sum(data[:-4]) != data[-4:]:
        raise ValueError("the checksum of a chunk is wrong")
    return data[:-4]
