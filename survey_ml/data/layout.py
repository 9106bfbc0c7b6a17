"""Where the pixels of an image lie in a FITS file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from survey_ml.errors import InputError

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


def read_sizes(header: Any) -> tuple[int, ...]:
    """Return the pixels along each FITS axis.

    Raises
    ------
    InputError
        When the cards that say so make no sense.
    """
    try:
        sizes = tuple(int(header[f"NAXIS{axis + 1}"]) for axis in range(int(header["NAXIS"])))
        known = int(header["BITPIX"]) in _DTYPES
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the header's NAXIS cards are not whole: {error}", "Write the file again."
        ) from None
    if not known or any(size < 1 for size in sizes):
        cause = f"the header has BITPIX {header['BITPIX']} and axes of {sizes} pixels"
        raise InputError(cause, "Write the file again.")
    return sizes


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
