"""Where the pixels of an image lie in a FITS file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_DTYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@dataclass(frozen=True)
class Layout:
    """Where the pixels lie in the file.

    Attributes
    ----------
    index : int
        Number of the HDU.
    sizes : tuple of int
        Pixels along each FITS axis, first axis first.
    axes : tuple of int
        The FITS axes (from 0) along x and y.
    offset : int
        First byte of the data.
    dtype : str
        As stored.
    scale, zero : float
        BSCALE and BZERO.
    blank : int or None
        BLANK, for integers.
    compressed : bool
        Tile-compressed.
    """

    index: int
    sizes: tuple[int, ...]
    axes: tuple[int, int]
    offset: int
    dtype: str
    scale: float
    zero: float
    blank: int | None
    compressed: bool


def make_layout(
    header: Any, index: int, sizes: tuple[int, ...], axes: tuple[int, int], offset: int, *, compressed: bool
) -> Layout:
    """Return where the pixels lie, and what a header says of how they are stored."""
    blank = header.get("BLANK")
    return Layout(
        index=index,
        sizes=sizes,
        axes=axes,
        offset=offset,
        dtype=_DTYPES[int(header["BITPIX"])],
        scale=float(header.get("BSCALE", 1.0)),
        zero=float(header.get("BZERO", 0.0)),
        blank=None if blank is None or int(header["BITPIX"]) < 0 else int(blank),
        compressed=compressed,
    )
