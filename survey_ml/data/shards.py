"""One shard of a Zarr array, encoded in memory by Zarr's own codecs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from survey_ml.errors import PluginError

CHUNK = 512
"""Largest side of an inner chunk in pixels: what a reader decodes for one pixel."""


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
    import numcodecs.blosc  # type: ignore[import-untyped]

    zarr.config.set({"threading.max_workers": 1, "async.concurrency": 4})
    numcodecs.blosc.set_nthreads(1)


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
        compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec()],
        dimension_names=("y", "x"),
        config={"write_empty_chunks": True},
        **options,
    )


def encode_shard(values: NDArray[Any], layout: Layout) -> bytes:
    """Encode the pixels of one core as the bytes of its shard.

    Parameters
    ----------
    values : ndarray, shape (ny, nx)
        The core; smaller than the shard at the edge of a field, where the rest is fill value.
    layout : Layout
        Of the array it belongs to.

    Raises
    ------
    PluginError
        When the values do not fit the array's dtype.
    """
    if not np.can_cast(values.dtype, layout.dtype, casting="same_kind"):
        raise PluginError(
            f"an array has dtype {values.dtype}, {layout.dtype} was declared", "Return the declared dtype."
        )
    ny, nx = values.shape
    whole = values
    if (ny, nx) != (layout.core, layout.core):
        whole = np.full((layout.core, layout.core), layout.fill, dtype=layout.dtype)
        whole[:ny, :nx] = values
    memory = MemoryStore()
    array = create_array(memory, (layout.core, layout.core), layout)
    array[:, :] = np.ascontiguousarray(whole, dtype=layout.dtype)
    return memory._store_dict["c/0/0"].to_bytes()
