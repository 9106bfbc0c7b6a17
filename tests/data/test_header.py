"""Headers in the dialects that are about, and what each mistake is answered with."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy.io.fits import Header
from astropy.wcs import WCS, FITSFixedWarning
from small_release import make_wcs

from survey_ml.config import Defaults
from survey_ml.data.header import (
    NO_FREQUENCY,
    check_beam,
    check_polarisation,
    parse_unit,
    read_beam,
    read_frequency,
    read_plane,
)
from survey_ml.errors import InputError
from survey_ml.field import Beam, Field


@pytest.mark.parametrize(
    ("text", "factor"),
    [
        ("Jy/beam", 1.0),
        ("JY/BEAM", 1.0),
        (" jy / beam ", 1.0),
        ("Jy beam-1", 1.0),
        ("Jy.beam^-1", 1.0),
        ("Jy beam**-1", 1.0),
        ("beam-1 Jy", 1.0),
        ("Jy/bm", 1.0),
        ("mJy/beam", 1e-3),
        ("mJy beam-1", 1e-3),
        ("uJy/beam", 1e-6),
        ("UJY/BEAM", 1e-6),
        ("µJy/beam", 1e-6),
        ("nJy/beam", 1e-9),
    ],
)
def test_spellings_of_flux_density_per_beam(text, factor):
    assert parse_unit(text) == factor


@pytest.mark.parametrize("text", ["K", "counts", "Jy", "Jy/pixel", "MJy/sr", "MJY/BEAM", "kJy/beam", "beam"])
def test_other_units_are_refused_by_name(text):
    with pytest.raises(InputError, match="not flux density per beam") as caught:
        parse_unit(text, f"BUNIT {text!r}")
    assert text in caught.value.message and "Convert" in caught.value.hint


def make_header(**cards) -> Header:
    header = make_wcs((100, 120)).to_header()
    header.update(cards)
    return header


def read_any_beam(header: Header, default=None, table=None):
    notes: list[str] = []
    return read_beam(header, table, Defaults(beam_arcsec=default), notes), notes


def test_the_beam_of_the_cards_is_in_degrees():
    beam, notes = read_any_beam(make_header(BMAJ=6 / 3600, BMIN=5 / 3600, BPA=-30.0))
    assert (beam.major, beam.minor, beam.pa) == pytest.approx((6, 5, 150))
    assert not notes


def test_the_header_wins_over_a_default_and_says_so():
    beam, notes = read_any_beam(make_header(BMAJ=6 / 3600, BMIN=5 / 3600, BPA=0.0), (9.0, 9.0, 0.0))
    assert beam.major == pytest.approx(6)
    assert len(notes) == 1 and "default 9 x 9 was not used" in notes[0]
    _, silent = read_any_beam(make_header(BMAJ=6 / 3600, BMIN=5 / 3600, BPA=0.0), (6.0, 5.0, 0.0))
    assert not silent


def test_a_default_stands_in_for_a_missing_beam():
    beam, notes = read_any_beam(make_header(), (5.4, 5.4, 0.0))
    assert beam == Beam(5.4, 5.4, 0.0)
    assert notes == ["the beam, 5.4 x 5.4 arcsec, is from `defaults`"]
    beam, _ = read_any_beam(make_header(BMAJ=0.0, BMIN=0.0), (5.4, 5.4, 0.0))
    assert beam.major == 5.4


def test_no_beam_is_answered_with_the_line_to_add():
    with pytest.raises(InputError, match="no beam") as caught:
        read_any_beam(make_header())
    assert "beam_arcsec" in caught.value.hint


@pytest.mark.parametrize("cards", [{"BMAJ": -1e-3}, {"BMAJ": 0.0, "BMIN": 0.0}, {"BMAJ": "wide"}])
def test_a_beam_that_is_none_is_shown(cards):
    with pytest.raises(InputError, match="header's beam is none: BMAJ = ") as caught:
        read_any_beam(make_header(**cards))
    assert "beam_arcsec" in caught.value.hint


def test_the_last_clean_beam_of_an_aips_history_counts():
    header = make_header()
    header["HISTORY"] = "AIPS   CLEAN BMAJ=  2.0000E-03 BMIN=  1.0000E-03 BPA=  10.00"
    header["HISTORY"] = "AIPS   IMNAME='NORTH'"
    header["HISTORY"] = "AIPS   CLEAN BMAJ=  1.5000E-03 BMIN=  1.4000E-03 BPA= -45.00"
    beam, _ = read_any_beam(header)
    assert (beam.major, beam.minor, beam.pa) == pytest.approx((5.4, 5.04, 135))


def test_a_beam_table_counts_and_a_swapped_beam_is_turned():
    beam, _ = read_any_beam(make_header(), table=np.array([[5.0, 6.0, 20.0]]))
    assert (beam.major, beam.minor, beam.pa) == (6.0, 5.0, 110.0)


def test_impossible_beams_are_refused():
    plane = read_plane(make_header(), (120, 100))
    assert plane.pixel_arcsec == pytest.approx(2.0)
    check_beam(Beam(6, 5, 0), plane)
    with pytest.raises(InputError, match="smaller than a pixel"):
        check_beam(Beam(6, 1.5, 0), plane)
    with pytest.raises(InputError, match="larger than the image"):
        check_beam(Beam(5.4 * 3600, 5.4 * 3600, 0), plane)


@pytest.mark.parametrize(
    ("cards", "frequency"),
    [
        ({"CTYPE3": "FREQ", "CRVAL3": 1.4e9, "CRPIX3": 1.0, "CDELT3": 1e6}, 1.4e9),
        ({"CTYPE3": "FREQ-LSR", "CRVAL3": 1.4e9, "CRPIX3": 3.0, "CDELT3": 1e6}, 1.398e9),
        ({"CTYPE4": "FREQ", "CRVAL4": 1.4, "CUNIT4": "GHz"}, 1.4e9),
        ({"RESTFRQ": 1.42e9}, 1.42e9),
        ({"CTYPE3": "VRAD", "CRVAL3": 0.0, "RESTFREQ": 8e8}, 8e8),
        ({"FREQ": 1.5e8}, 1.5e8),
        ({}, None),
    ],
)
def test_where_a_frequency_is_found(cards, frequency):
    header = Header()
    header.update(cards)
    notes: list[str] = []
    found = read_frequency(header, 7e8, notes)
    assert found == pytest.approx(7e8 if frequency is None else frequency)
    assert ("is from `defaults`" in notes[0]) == (frequency is None)
    if frequency is None:
        assert np.isnan(read_frequency(header, None, notes))
        assert notes[1] == NO_FREQUENCY


# Planes


def make_field_of(header: Header, sizes) -> Field:
    plane = read_plane(header, sizes)
    return Field("x", plane.shape, plane.header, Beam(6, 5, 0), 1e9)


def same_sky(field: Field, wcs: WCS, tolerance=1e-10) -> None:
    x, y = np.array([0.0, 50.0, 119.0]), np.array([0.0, 99.0, 30.0])
    np.testing.assert_allclose(
        field.wcs.all_pix2world(x, y, 0), wcs.celestial.all_pix2world(x, y, 0), rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("projection", ["SIN", "TAN", "ZEA", "CAR", "NCP"])
@pytest.mark.parametrize("step", [-2 / 3600, 2 / 3600])
def test_the_kept_cards_give_the_same_sky(projection, step):
    header = make_header()
    header["CTYPE1"], header["CTYPE2"] = f"RA---{projection}", f"DEC--{projection}"
    header["CDELT1"] = step
    header["CRPIX1"], header["CRPIX2"] = 4000.5, -2000.0
    header["CRVAL2"] = 40.0
    del header["LATPOLE"], header["LONPOLE"]
    field = make_field_of(header, (120, 100))
    assert len(field.header) % 80 == 0 and "\n" not in field.header
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        original = WCS(header)
    same_sky(field, original)


def test_rotation_distortion_and_equinox_are_kept():
    header = make_header(RADESYS="FK4", EQUINOX=1950.0)
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    for key in ("CDELT1", "CDELT2"):
        del header[key]
    header.update({"CD1_1": -5e-4, "CD1_2": 1e-4, "CD2_1": 1e-4, "CD2_2": 5e-4})
    header.update({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5, "B_0_2": -2e-5, "A_1_1": 3e-6})
    field = make_field_of(header, (120, 100))
    same_sky(field, WCS(header))
    assert field.wcs.wcs.radesys == "FK4" and field.wcs.wcs.equinox == 1950.0
    assert field.wcs.sip is not None


def test_old_rotation_cards_and_foreign_cards_do_no_harm():
    header = make_header(CROTA2=30.0, TELESCOP="VLA", BUNIT="JY/BEAM")
    header["COMMENT"] = "anything"
    field = make_field_of(header, (120, 100))
    same_sky(field, WCS(header))
    assert "TELESCOP" not in field.header and "COMMENT" not in field.header


def test_single_planes_of_cubes_are_fields():
    header = make_header()
    header.update({"CTYPE3": "FREQ", "CRVAL3": 1e9, "CTYPE4": "STOKES", "CRVAL4": 1.0, "WCSAXES": 4})
    header.update({"CRPIX3": 1.0, "CRPIX4": 1.0, "CDELT3": 1e6, "CDELT4": 1.0})
    for sizes in ((120, 100), (120, 100, 1), (120, 100, 1, 1)):
        assert read_plane(header, sizes).shape == (100, 120)
    with pytest.raises(InputError, match="cube: 5 planes along FREQ") as caught:
        read_plane(header, (120, 100, 5, 1))
    assert "one plane" in caught.value.hint
    with pytest.raises(InputError, match="cube: 4 planes along STOKES"):
        read_plane(header, (120, 100, 1, 4))


@pytest.mark.parametrize(("value", "pixel", "name"), [(2.0, 1.0, "Q"), (1.0, -2.0, "V"), (-5.0, 1.0, "XX")])
def test_polarisation_is_refused(value, pixel, name):
    header = make_header()
    header.update({"CTYPE3": "STOKES", "CRVAL3": value, "CRPIX3": pixel, "CDELT3": 1.0, "WCSAXES": 3})
    with pytest.raises(InputError, match=f"Stokes {name}, not total intensity"):
        check_polarisation(header)


def test_degenerate_axes_may_come_first():
    header = Header()
    header.update({"CTYPE1": "FREQ", "CRVAL1": 1e9, "CRPIX1": 1.0, "CDELT1": 1e6})
    header.update({"CTYPE2": "RA---SIN", "CRVAL2": 10.0, "CRPIX2": 60.0, "CDELT2": -1e-3, "CUNIT2": "deg"})
    header.update({"CTYPE3": "DEC--SIN", "CRVAL3": 20.0, "CRPIX3": 50.0, "CDELT3": 1e-3, "CUNIT3": "deg"})
    plane = read_plane(header, (1, 120, 100))
    assert plane.shape == (100, 120) and plane.axes == (1, 2)


@pytest.mark.parametrize(
    ("change", "sizes", "words"),
    [
        ({"CTYPE1": "", "CTYPE2": ""}, (120, 100), "no celestial WCS"),
        ({}, (3, 3), "3 x 3 px"),
        ({}, (120, 8), "120 x 8 px"),
        ({}, (120,), "1 axes"),
        ({}, (120, 100, 1, 1, 1), "5 axes"),
        ({"CTYPE1": "GLON-SIN", "CTYPE2": "GLAT-SIN"}, (120, 100), "GLON"),
        ({"CTYPE2": "DEC--TAN"}, (120, 100), "WCS cannot be read"),
        ({"CDELT1": 0.0}, (120, 100), "WCS"),
        ({"CPDIS1": "LOOKUP"}, (120, 100), "look-up-table"),
    ],
)
def test_unusable_planes_are_refused(change, sizes, words):
    with pytest.raises(InputError, match=words) as caught:
        read_plane(make_header(**change), sizes)
    assert caught.value.hint
