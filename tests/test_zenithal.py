"""Closed-form positions against astropy's."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from survey_ml.zenithal import parse_cards, read_zenithal

BASE = {
    "CTYPE1": "RA---SIN",
    "CTYPE2": "DEC--SIN",
    "CRPIX1": 130.25,
    "CRPIX2": -40.5,
    "CDELT1": -0.01,
    "CDELT2": 0.012,
    "CRVAL1": 359.9,
    "CRVAL2": -31.4,
}


def write(**changes: object) -> str:
    header = fits.Header()
    for name, value in (BASE | changes).items():
        if value is not None:
            header[name] = value
    return header.tostring(padding=False, endcard=True)


@pytest.mark.parametrize("kind", ["SIN", "TAN"])
@pytest.mark.parametrize("lat", [-89.9, -31.4, 0.0, 62.0])
@pytest.mark.parametrize("linear", ["cdelt", "pc", "cd"])
def test_positions_are_those_of_astropy(kind, lat, linear):
    changes: dict[str, object] = {"CTYPE1": f"RA---{kind}", "CTYPE2": f"DEC--{kind}", "CRVAL2": lat}
    turned = {"1_1": 0.9, "1_2": -0.3, "2_1": 0.25, "2_2": 1.1}
    if linear == "pc":
        changes |= {f"PC{name}": value for name, value in turned.items()}
    if linear == "cd":
        changes |= {f"CD{name}": 0.01 * value for name, value in turned.items()}
        changes |= {"CDELT1": None, "CDELT2": None}
    header = write(**changes)
    found = read_zenithal(parse_cards(header))
    assert found is not None
    wcs = WCS(header.encode(), naxis=2)
    x, y = np.random.default_rng(4).uniform(-300, 500, (2, 200))
    sky, true = found.locate(x, y), wcs.all_pix2world(x, y, 0)
    east = (sky[:, 0] - true[0] + 180.0) % 360.0 - 180.0
    np.testing.assert_allclose(east * np.cos(np.radians(sky[:, 1])), 0.0, atol=1e-12)
    np.testing.assert_allclose(sky[:, 1], true[1], atol=1e-12)
    np.testing.assert_allclose(found.pixel_scale_matrix, wcs.pixel_scale_matrix, rtol=1e-14)


def test_nothing_lies_outside_an_orthographic_sphere():
    found = read_zenithal(parse_cards(write()))
    assert found is not None
    assert np.isnan(found.locate(np.array([1e5]), np.array([0.0]))).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"CTYPE1": "RA---ZEA", "CTYPE2": "DEC--ZEA"},
        {"CTYPE1": "DEC--SIN", "CTYPE2": "RA---SIN"},
        {"CTYPE1": "GLON-SIN", "CTYPE2": "GLAT-SIN"},
        {"CTYPE1": "RA---SIN-SIP", "CTYPE2": "DEC--SIN-SIP"},
        {"PV2_1": 0.1},
        {"CROTA2": 30.0},
        {"LONPOLE": 170.0},
        {"CUNIT1": "arcmin", "CUNIT2": "arcmin"},
        {"CRVAL2": 90.0},
        {"CRVAL2": None},
        {"CDELT1": 0.0},
        {"PC1_3": 0.1},
        {"CRPIX1": "left"},
    ],
)
def test_what_leaves_doubt_is_left_to_astropy(changes):
    assert read_zenithal(parse_cards(write(**changes))) is None


def test_cards_are_read_as_fits_writes_them():
    lines = [
        "A       =                    T",
        "B       = 'it''s / so' / text",
        "C       = 1.5D-3",
        "D       = -7 / n",
    ]
    lines += ["A       =                    F", "COMMENT = 3", "E       =", "END"]
    cards = parse_cards("".join(line.ljust(80) for line in lines))
    assert cards == {"A": True, "B": "it's / so", "C": 1.5e-3, "D": -7, "COMMENT": 3}
