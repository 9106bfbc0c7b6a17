"""Orthographic and gnomonic images: where their pixels lie on the sky, in closed form.

Nearly all interferometer images are one of these two without distortions. For them a page of
formulas (Calabretta & Greisen 2002, A&A 395, 1077, sections 2.4, 5.1.3 and 5.1.5) does what a WCS
library does, whose import takes longer than the measurement of a small field. All others go
through astropy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CardValue = str | bool | int | float

_UNUSUAL = re.compile(r"[AB]P?_ORDER|[AB]P?_\d_\d|CPDIS\d|D2IMDIS\d|PC0\d+_\d+|PC\d+_0\d+|CROTA\d")
_LINEAR = re.compile(r"(?:PC|CD)(\d+)_(\d+)")


@dataclass(frozen=True)
class Zenithal:
    """An orthographic (SIN) or gnomonic (TAN) image, right ascension first, north pole up.

    Parameters
    ----------
    kind : str
        ``SIN`` or ``TAN``.
    pixel : tuple of float
        Zero-based x and y of the reference pixel.
    place : tuple of float
        Its right ascension and declination in deg.
    matrix : tuple of tuple of float
        Degrees to the east and north by pixels in x and y.
    """

    kind: str
    pixel: tuple[float, float]
    place: tuple[float, float]
    matrix: tuple[tuple[float, float], tuple[float, float]]

    @property
    def pixel_scale_matrix(self) -> NDArray[np.float64]:
        """The matrix as an array (2, 2), under astropy's name."""
        return np.array(self.matrix)

    @property
    def pixel_area(self) -> float:
        """Area of a pixel at the reference pixel, deg^2."""
        (a, b), (c, d) = self.matrix
        return abs(a * d - b * c)

    def locate(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return right ascension and declination in deg, (n, 2), of zero-based pixel positions.

        NaN where a position is outside the projection.
        """
        dx, dy = np.asarray(x) - self.pixel[0], np.asarray(y) - self.pixel[1]
        east, north = (np.radians(row[0] * dx + row[1] * dy) for row in self.matrix)
        ahead: NDArray[np.float64] | float = 1.0
        if self.kind == "SIN":
            with np.errstate(invalid="ignore"):
                ahead = np.sqrt(1.0 - east * east - north * north)
        sine, cosine = np.sin(np.radians(self.place[1])), np.cos(np.radians(self.place[1]))
        outward = ahead * cosine - north * sine
        longitude = self.place[0] + np.degrees(np.arctan2(east, outward))
        latitude = np.degrees(np.arctan2(ahead * sine + north * cosine, np.hypot(east, outward)))
        return np.stack([longitude % 360.0, latitude], axis=-1)


def parse_cards(header: str) -> dict[str, CardValue]:
    """Read the values of 80-character FITS cards; the first of a name counts.

    Cards without a value are left out, and so are values that are no string, number or logical.
    """
    found: dict[str, CardValue] = {}
    for start in range(0, len(header), 80):
        card = header[start : start + 80]
        name = card[:8].rstrip()
        if name == "END":
            break
        if card[8:10] == "= " and name not in found and (value := _parse_value(card[10:])) is not None:
            found[name] = value
    return found


def _parse_value(text: str) -> CardValue | None:
    """Read the value of a card; None when there is none."""
    text = text.strip()
    if text.startswith("'"):
        match = re.match(r"'((?:[^']|'')*)'", text)
        return match[1].replace("''", "'").rstrip() if match else None
    text = text.partition("/")[0].strip()
    if text in ("T", "F"):
        return text == "T"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text.upper().replace("D", "E"))
    except ValueError:
        return None


def read_zenithal(cards: Mapping[str, CardValue]) -> Zenithal | None:
    """Recognise a zenithal image by its cards.

    Returns
    -------
    Zenithal or None
        None for anything else, and where a card leaves room for doubt.
    """
    kinds = [str(cards.get(f"CTYPE{axis}", "")).strip() for axis in (1, 2)]
    kind = kinds[0][5:]
    if kind not in ("SIN", "TAN") or kinds != [f"RA---{kind}", f"DEC--{kind}"]:
        return None
    for name, value in cards.items():
        if (_UNUSUAL.fullmatch(name) or re.fullmatch(r"PV\d+_\d+", name)) and value != 0:
            return None
        if (match := _LINEAR.fullmatch(name)) and (int(match[1]) > 2) != (int(match[2]) > 2) and value != 0:
            return None
    if any(str(cards.get(f"CUNIT{axis}", "deg")).strip().lower() not in ("deg", "") for axis in (1, 2)):
        return None
    if cards.get("LONPOLE", 180.0) != 180.0:
        return None
    has_cd = any(re.fullmatch(r"CD[12]_[12]", name) for name in cards)
    rows = []
    for i in (1, 2):
        step = 1.0 if has_cd else cards.get(f"CDELT{i}")
        row = [
            cards.get(f"CD{i}_{j}" if has_cd else f"PC{i}_{j}", float(not has_cd and i == j)) for j in (1, 2)
        ]
        rows += [step, *row]
    numbers = [*rows, *(cards.get(f"{name}{axis}") for name in ("CRPIX", "CRVAL") for axis in (1, 2))]
    if has_cd and any(re.fullmatch(r"PC\d+_\d+", name) for name in cards):
        return None
    values = []
    for number in numbers:
        if isinstance(number, bool | str) or number is None or not np.isfinite(number):
            return None
        values.append(float(number))
    s1, a, b, s2, c, d, x, y, lon, lat = values
    found = Zenithal(kind, (x - 1.0, y - 1.0), (lon, lat), ((s1 * a, s1 * b), (s2 * c, s2 * d)))
    # At a pole itself the default of LONPOLE is another one.
    return found if found.pixel_area > 0.0 and abs(lat) < 90.0 else None
