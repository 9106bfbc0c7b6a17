"""Headers of plain FITS images, read without a FITS library.

A plain image is the first HDU of a local file, neither packed nor compressed, with square
coordinates that `survey_ml.zenithal` knows. Everything else, and everything that is wrong with a
file, is left to `survey_ml.data.fits`, which says what.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from survey_ml.data.header import LEAST_PX, Plane
from survey_ml.zenithal import CardValue, Zenithal, parse_cards, read_zenithal

BLOCK = 2880
LONGEST = 400 * BLOCK
"""Bytes of a header that are looked at."""

_ODD = ("CASAMBM", "GROUPS", "PCOUNT", "GCOUNT", "ZIMAGE")
_ORDINARY = {"GROUPS": False, "PCOUNT": 0, "GCOUNT": 1}


class PlainHeader(dict[str, Any]):
    """Values by keyword, the lines of ``HISTORY`` as a list, and how many bytes it takes."""

    length: int = 0


def read_header(path: str) -> PlainHeader | None:
    """Read the header of a plain image.

    Returns
    -------
    PlainHeader or None
        None when the file is anything else.
    """
    text = b""
    try:
        with Path(path).open("rb") as file:
            while len(text) < LONGEST and (block := file.read(BLOCK)):
                text += block
                if any(block[at : at + 80] == b"END".ljust(80) for at in range(0, len(block), 80)):
                    break
            else:
                return None
        cards = text.decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    if len(text) % BLOCK or not cards.startswith("SIMPLE  ="):
        return None
    header = PlainHeader(parse_cards(cards))
    header["HISTORY"] = [
        cards[at + 8 : at + 80].rstrip()
        for at in range(0, len(cards), 80)
        if cards[at : at + 8] == "HISTORY "
    ]
    header.length = len(text)
    if header.get("SIMPLE") is not True or header.get("BITPIX") not in (8, 16, 32, 64, -32, -64):
        return None
    if any(header.get(name, _ORDINARY.get(name)) != _ORDINARY.get(name) for name in _ODD):
        return None
    return header


def read_sizes(header: PlainHeader) -> tuple[int, ...] | None:
    """Return the pixels along each axis, first FITS axis first; None when it is no plane."""
    n_axes = header.get("NAXIS")
    if not isinstance(n_axes, int) or not 2 <= n_axes <= 4:
        return None
    sizes = []
    for axis in range(n_axes):
        size = header.get(f"NAXIS{axis + 1}")
        if not isinstance(size, int) or size < (LEAST_PX if axis < 2 else 1) or (axis > 1 and size > 1):
            return None
        sizes.append(size)
    return tuple(sizes)


def find_plane(header: PlainHeader, sizes: tuple[int, ...]) -> Plane | None:
    """Return the plane of an image whose coordinates are zenithal; None for all others."""
    sky = read_zenithal({name: value for name, value in header.items() if name != "HISTORY"})
    frame = None if sky is None else _find_frame(header)
    if sky is None or frame is None:
        return None
    cards = _write_cards(sky, frame)
    return Plane((sizes[1], sizes[0]), (0, 1), cards, sky.pixel_area**0.5 * 3600.0)


def restate_plane(header: Mapping[str, Any], sizes: tuple[int, ...]) -> Plane | None:
    """Describe a plane that a FITS library has read as `find_plane` would; None where it cannot.

    Parameters
    ----------
    header : mapping
        Keyword to value, of any image.
    sizes : tuple of int
        Pixels along each FITS axis, first axis first.
    """
    values = PlainHeader(
        {name: header[name] for name in header if isinstance(header[name], str | bool | int | float)}
    )
    return find_plane(values, sizes) if read_sizes(values) == sizes else None


def _find_frame(header: PlainHeader) -> dict[str, CardValue] | None:
    """Return the cards of the frame; None when they are old or contradict themselves."""
    equinox = header.get("EQUINOX", header.get("EPOCH"))
    named = header.get("RADESYS", header.get("RADECSYS"))
    if equinox is not None and (isinstance(equinox, str | bool) or equinox < 1984.0):
        return None
    frame = str(named).strip() if named is not None else "ICRS" if equinox is None else "FK5"
    if frame not in ("ICRS", "FK5"):
        return None
    found: dict[str, CardValue] = {"RADESYS": frame}
    if equinox is not None:
        found["EQUINOX"] = float(equinox)
    elif frame == "FK5":
        found["EQUINOX"] = 2000.0
    return found


def _write_cards(sky: Zenithal, frame: dict[str, CardValue]) -> str:
    """Write a celestial WCS as cards of 80 characters, with every digit."""
    (a, b), (c, d) = sky.matrix
    cards: dict[str, CardValue] = {
        "WCSAXES": 2,
        "CRPIX1": sky.pixel[0] + 1.0,
        "CRPIX2": sky.pixel[1] + 1.0,
    }
    if b == 0.0 and c == 0.0:
        cards |= {"CDELT1": a, "CDELT2": d}
    else:
        cards |= {"PC1_1": a, "PC1_2": b, "PC2_1": c, "PC2_2": d, "CDELT1": 1.0, "CDELT2": 1.0}
    cards |= {
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CTYPE1": f"RA---{sky.kind}",
        "CTYPE2": f"DEC--{sky.kind}",
        "CRVAL1": sky.place[0],
        "CRVAL2": sky.place[1],
        "LONPOLE": 180.0,
        "LATPOLE": sky.place[1],
        **frame,
    }
    lines = []
    for name, value in cards.items():
        text = f"'{value:<8}'".ljust(20) if isinstance(value, str) else repr(value).upper().rjust(20)
        lines.append(f"{name:<8}= {text}".ljust(80))
    return "".join([*lines, "END".ljust(80)])
