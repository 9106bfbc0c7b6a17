"""What a FITS header says about an image: WCS, beam, frequency, unit, in the dialects of the field.

Pure functions on headers; nothing here opens a file.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from survey_ml.errors import InputError
from survey_ml.field import Beam

if TYPE_CHECKING:
    from collections.abc import Mapping

    from astropy.io.fits import Header
    from astropy.wcs import WCS
    from numpy.typing import NDArray

LEAST_PX = 16
"""Shortest side of a usable image: smaller ones hold no noise to measure."""

_WCS_CARDS = re.compile(
    r"WCSAXES|CTYPE\d|CRVAL\d|CRPIX\d|CDELT\d|CUNIT\d|CROTA\d|PC\d+_\d+|CD\d_\d|PV\d_\d+|LONPOLE|LATPOLE"
    r"|RADESYS|RADECSYS|EQUINOX|EPOCH|[AB]P?_ORDER|[AB]P?_\d_\d|[AB]_DMAX"
)
_KEPT_CARDS = re.compile(
    r"WCSAXES|CTYPE[12]|CRVAL[12]|CRPIX[12]|CDELT[12]|CUNIT[12]|PC[12]_[12]|CD[12]_[12]|PV[12]_\d+"
    r"|LONPOLE|LATPOLE|RADESYS|EQUINOX|[AB]P?_ORDER|[AB]P?_\d_\d"
)
_HISTORY_BEAM = re.compile(
    r"BMAJ\s*=\s*([-+.\dE]+)\s+BMIN\s*=\s*([-+.\dE]+)\s+BPA\s*=\s*([-+.\dE]+)", re.IGNORECASE
)
_PREFIXES = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "n": 1e-9}
_FREQUENCIES = {"": 1.0, "hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9}
_STOKES = {2: "Q", 3: "U", 4: "V", -1: "RR", -2: "LL", -3: "RL", -4: "LR", -5: "XX", -6: "YY"}
ADD_BEAM = "Add to the YAML: defaults: {beam_arcsec: [MAJOR, MINOR, POSITION_ANGLE]}"
ADD_UNIT = "Add to the YAML: defaults: {unit: Jy/beam} (or mJy/beam ...)"
NO_FREQUENCY = "no frequency is known: that column stays empty, and nothing measured depends on it"


class Assumptions(Protocol):
    """What the configuration gives for headers that lack it."""

    @property
    def beam_arcsec(self) -> tuple[float, float, float] | None: ...  # noqa: D102
    @property
    def frequency_hz(self) -> float | None: ...  # noqa: D102
    @property
    def unit(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True)
class Plane:
    """The celestial plane of an image.

    Attributes
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    axes : tuple of int
        The FITS axes (from 0) along x and y.
    header : str
        Celestial WCS as FITS header cards.
    pixel_arcsec : float
        Geometric-mean pixel side at the reference pixel.
    """

    shape: tuple[int, int]
    axes: tuple[int, int]
    header: str
    pixel_arcsec: float


def read_plane(header: Header, sizes: tuple[int, ...]) -> Plane:
    """Find the celestial plane of an image and its WCS.

    Parameters
    ----------
    header : Header
        Of the image.
    sizes : tuple of int
        Pixels along each FITS axis, first axis first.

    Raises
    ------
    InputError
        When there is no celestial WCS, or more than one plane, or the image is too small.
    """
    from astropy.wcs.utils import proj_plane_pixel_area

    if len(sizes) < 2 or len(sizes) > 4:
        raise InputError(f"the image has {len(sizes)} axes", "Give images of 2 to 4 axes.")
    wcs = _read_wcs(header)
    if not wcs.has_celestial:
        _refuse_small(sizes[:2])
        raise InputError(
            "the header has no celestial WCS (CTYPE1 and CTYPE2 such as RA---SIN and DEC--SIN)",
            "Write the image again with its coordinates, or copy the WCS cards into its header.",
        )
    lon, lat = int(wcs.wcs.lng), int(wcs.wcs.lat)
    axes = (min(lon, lat), max(lon, lat))
    for axis, size in enumerate(sizes):
        if axis not in axes and size != 1:
            name = str(header.get(f"CTYPE{axis + 1}", "")).strip() or f"axis {axis + 1}"
            raise InputError(
                f"the image is a cube: {size} planes along {name}",
                "Give one plane: average or pick a channel (Stokes I) and write it as a 2-D image.",
            )
    if max(axes) >= len(sizes):
        raise InputError("the celestial axes are not among the image's axes", "Write the image again as 2-D.")
    shape = (sizes[axes[1]], sizes[axes[0]])
    _refuse_small(shape[::-1])
    celestial = wcs.celestial
    kind = str(celestial.wcs.lngtyp).strip()
    if kind != "RA":
        raise InputError(
            f"the coordinates are {kind}, not right ascension and declination",
            "Regrid the image to equatorial coordinates.",
        )
    area = float(proj_plane_pixel_area(celestial))
    if not (isfinite(area) and area > 0):
        raise InputError("the WCS gives pixels without an area", "Set CDELT1 and CDELT2 (or CD cards).")
    return Plane(shape, axes, _write_cards(celestial), area**0.5 * 3600.0)


def check_polarisation(header: Header) -> None:
    """Refuse a plane of another Stokes parameter than I.

    Raises
    ------
    InputError
        When a STOKES axis says so.
    """
    for axis in range(1, 5):
        if str(header.get(f"CTYPE{axis}", "")).strip().upper() != "STOKES":
            continue
        value, step, pixel = (_number(header, f"{key}{axis}") for key in ("CRVAL", "CDELT", "CRPIX"))
        if value is None:
            continue
        first = round(value + (1.0 - (1.0 if pixel is None else pixel)) * (step or 0.0))
        if first != 1:
            raise InputError(
                f"the image is Stokes {_STOKES.get(first, first)}, not total intensity",
                "Give the Stokes I plane (STOKES axis value 1).",
            )


def _refuse_small(sizes: tuple[int, ...]) -> None:
    if min(sizes) < LEAST_PX:
        text = " x ".join(str(size) for size in sizes)
        raise InputError(
            f"the image is {text} px, at least {LEAST_PX} px a side are needed",
            "Leave it out, or give the mosaic that it was cut from.",
        )


def _read_wcs(header: Header) -> WCS:
    """Build the WCS of all axes from the cards that matter, whatever else the header holds."""
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    if any(f"{key}{axis}" in header for key in ("CPDIS", "D2IMDIS") for axis in (1, 2)):
        raise InputError("the WCS has look-up-table distortions", "Regrid the image to a plain projection.")
    cards = Header()
    for card in header.cards:
        if _WCS_CARDS.fullmatch(card.keyword) and card.keyword not in cards:
            cards[card.keyword] = card.value
    try:
        with warnings.catch_warnings():
            # Old spellings that astropy repairs and reports; nothing a user must act on.
            warnings.simplefilter("ignore")
            wcs = WCS(cards)
            wcs.wcs.set()
    except Exception as error:
        text = str(error).strip().splitlines()[-1]
        raise InputError(f"the WCS cannot be read: {text}", "Correct the header's WCS cards.") from error
    return wcs


def _write_cards(celestial: WCS) -> str:
    """Write a 2-axis celestial WCS as cards of 80 characters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = celestial.to_header(relax=True)
    cards = [card.image for card in header.cards if _KEPT_CARDS.fullmatch(card.keyword)]
    return "".join([*cards, "END".ljust(80)])


def read_scale(header: Mapping[str, Any], default: str | None, notes: list[str]) -> float:
    """Return the factor from the pixels' unit to Jy/beam.

    Raises
    ------
    InputError
        When the unit is none of flux density per beam, or there is none.
    """
    text = str(header.get("BUNIT", "") or "").strip()
    if not text:
        if default is None:
            raise InputError("the header has no BUNIT", ADD_UNIT)
        scale = parse_unit(default, f"the default unit {default!r}")
        notes.append(f"the unit, {default}, is from `defaults`")
        return scale
    scale = parse_unit(text, f"BUNIT {text!r}")
    if default is not None and parse_unit(default, f"the default unit {default!r}") != scale:
        notes.append(f"BUNIT is {text}: the default {default} was not used")
    return scale


def parse_unit(text: str, name: str = "") -> float:
    """Return the factor from a unit of flux density per beam to Jy/beam.

    Knows the spellings in use: ``Jy/beam``, ``JY/BEAM``, ``Jy beam-1``, ``Jy.beam^-1``, ``Jy/bm``,
    with the prefixes m, u, n; case matters only for the prefix.

    Raises
    ------
    InputError
        For anything else.
    """
    flat = re.sub(r"[\s.*()]+", "", text).replace("**", "").replace("^", "")
    match = re.fullmatch(r"([a-zµμ]?)jy(?:/(?:beam|bm)|(?:beam|bm)-1)", flat, re.IGNORECASE)
    if match is None:
        match = re.fullmatch(r"(?:beam|bm)-1([a-zµμ]?)jy", flat, re.IGNORECASE)
    # An upper-case U can only be micro, but M may be mega: guessing could be wrong by 10^9.
    prefix = match[1].replace("U", "u") if match else ""
    if match is None or prefix not in _PREFIXES:
        raise InputError(
            f"{name or repr(text)} is not flux density per beam",
            "Convert the image to Jy/beam; Jy/beam, mJy/beam, uJy/beam and nJy/beam are known.",
        )
    return _PREFIXES[prefix]


def read_frequency(header: Mapping[str, Any], default: float | None, notes: list[str]) -> float:
    """Return the observing frequency in Hz; NaN when nothing tells it."""
    found = _find_frequency(header)
    if found is None:
        if default is None:
            notes.append(NO_FREQUENCY)
            return float("nan")
        notes.append(f"the frequency, {default:.9g} Hz, is from `defaults`")
        return float(default)
    if default is not None and abs(found - default) > 1e-6 * found:
        notes.append(f"the header's frequency is {found:.9g} Hz: the default {default:.9g} was not used")
    return found


def _find_frequency(header: Mapping[str, Any]) -> float | None:
    """Look for a FREQ axis (at its first pixel), then for the usual cards."""
    for axis in range(1, 5):
        if str(header.get(f"CTYPE{axis}", "")).strip().upper().startswith("FREQ"):
            value = _number(header, f"CRVAL{axis}")
            step = _number(header, f"CDELT{axis}") or _number(header, f"CD{axis}_{axis}") or 0.0
            pixel = _number(header, f"CRPIX{axis}")
            unit = _FREQUENCIES.get(str(header.get(f"CUNIT{axis}", "")).strip().lower())
            if value and unit:
                frequency = (value + (1.0 - (1.0 if pixel is None else pixel)) * step) * unit
                if frequency > 0:
                    return frequency
    for key in ("RESTFRQ", "RESTFREQ", "FREQ", "OBSFREQ"):
        value = _number(header, key)
        if value and value > 0:
            return value
    return None


def _number(header: Mapping[str, Any], key: str) -> float | None:
    """Return a card as a number; None when it is absent or none."""
    try:
        value = float(header[key])
    except (KeyError, TypeError, ValueError):
        return None
    return value if isfinite(value) else None


def read_beam(
    header: Mapping[str, Any], beams: NDArray[np.float64] | None, assumed: Assumptions, notes: list[str]
) -> Beam:
    """Return the synthesised beam.

    Looks at BMAJ, BMIN and BPA (deg), then at a table of beams (CASA), then at the history (AIPS);
    a default only stands in when there is none.

    Parameters
    ----------
    header : mapping
        Of the image.
    beams : ndarray, shape (n, 3), or None
        Rows of a BEAMS table in arcsec, arcsec and deg; the first is used.
    assumed : Assumptions
        Defaults of the configuration.
    notes : list of str
        What a user should know is appended.

    Raises
    ------
    InputError
        When there is no beam.
    """
    major, minor, pa = (_number(header, key) for key in ("BMAJ", "BMIN", "BPA"))
    beam = None
    if major and major > 0:
        beam = _order_beam(major * 3600.0, (minor or major) * 3600.0, pa or 0.0)
    elif beams is not None and len(beams):
        beam = _order_beam(*map(float, beams[0]))
    else:
        history = [str(line) for line in header.get("HISTORY", [])]
        found = [match for line in history if (match := _HISTORY_BEAM.search(line))]
        if found:
            # The last one written is that of the image as it is now.
            values = [float(value) for value in found[-1].groups()]
            beam = _order_beam(values[0] * 3600.0, values[1] * 3600.0, values[2])
    default = assumed.beam_arcsec
    if beam is not None and beam.minor > 0:
        given = _order_beam(*default) if default is not None else beam
        same = np.allclose([beam.major, beam.minor], [given.major, given.minor], rtol=1e-3)
        if not same:
            notes.append(
                f"the header's beam is {beam.major:.4g} x {beam.minor:.4g} arcsec: "
                f"the default {given.major:.4g} x {given.minor:.4g} was not used"
            )
        return beam
    if default is None:
        bad = [f"{key} = {header[key]!r}" for key in ("BMAJ", "BMIN") if key in header]
        if "BMAJ" in header:
            raise InputError(f"the header's beam is none: {', '.join(bad)}", f"Correct it. {ADD_BEAM}")
        raise InputError("the header has no beam (BMAJ, BMIN, BPA)", ADD_BEAM)
    beam = _order_beam(*default)
    notes.append(f"the beam, {beam.major:.4g} x {beam.minor:.4g} arcsec, is from `defaults`")
    return beam


def _order_beam(major: float, minor: float, pa: float) -> Beam:
    """Return a beam whose major axis is the longer one, with a position angle from 0 to 180."""
    if minor > major:
        major, minor, pa = minor, major, pa + 90.0
    return Beam(major, minor, pa % 180.0)


def check_beam(beam: Beam, plane: Plane) -> None:
    """Refuse a beam that cannot be the image's.

    Raises
    ------
    InputError
        When it is smaller than a pixel or larger than the image.
    """
    if beam.minor < plane.pixel_arcsec:
        raise InputError(
            f"the beam's minor axis, {beam.minor:.4g} arcsec, is smaller than a pixel, "
            f"{plane.pixel_arcsec:.4g} arcsec",
            "Image again with at least 3 pixels a beam; check that BMAJ and BMIN are in degrees.",
        )
    if beam.major > min(plane.shape) * plane.pixel_arcsec:
        raise InputError(
            f"the beam's major axis, {beam.major:.4g} arcsec, is larger than the image",
            "Check that BMAJ and BMIN are in degrees (and beam_arcsec in arcsec).",
        )
