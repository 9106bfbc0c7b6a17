"""Plain images are described alike with and without a FITS library."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from survey_ml.config import Defaults
from survey_ml.data.fits import FitsReader
from survey_ml.field import Window


def write(path, dtype="f4", shape=(40, 50), **changes):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    image = fits.PrimaryHDU(values)
    cards = {
        "CTYPE1": "RA---SIN",
        "CTYPE2": "DEC--SIN",
        "CRPIX1": 25.0,
        "CRPIX2": 20.5,
        "CDELT1": -2e-4,
        "CDELT2": 2e-4,
        "CRVAL1": 10.0,
        "CRVAL2": 40.0,
        "BUNIT": "mJy/beam",
        "BMAJ": 8e-4,
        "BMIN": 7e-4,
        "BPA": 20.0,
        "RESTFRQ": 1.4e9,
    }
    for name, value in (cards | changes).items():
        if value is not None:
            image.header[name] = value
    image.writeto(path)
    return str(path)


def describe(path, monkeypatch, *, plain):
    reader = FitsReader(path)
    if not plain:
        monkeypatch.setattr(reader, "_find_plain", lambda: None)
    field, scale = reader.describe(Defaults(), "a")
    return field, scale, reader._layout, reader.read(Window(3, 20, 5, 30))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dtype": "f8", "EQUINOX": 2000.0},
        {"dtype": "i2", "BSCALE": 0.5, "BZERO": 3.0, "BLANK": 7},
        {
            "shape": (1, 1, 40, 50),
            "CTYPE3": "FREQ",
            "CRVAL3": 1.3e9,
            "CUNIT3": "Hz",
            "CDELT3": 1e6,
            "CRPIX3": 1.0,
        },
        {"BMAJ": None, "BMIN": None, "BPA": None, "HISTORY": "CLEAN BMAJ= 8E-4 BMIN= 7E-4 BPA= 20"},
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "RADESYS": "FK5"},
    ],
)
def test_a_plain_image_is_described_as_with_astropy(tmp_path, monkeypatch, changes):
    path = write(tmp_path / "a.fits", **changes)
    assert FitsReader(path)._find_plain() is not None
    field, scale, layout, pixels = describe(path, monkeypatch, plain=True)
    other, other_scale, other_layout, other_pixels = describe(path, monkeypatch, plain=False)
    assert (field.shape, field.beam, field.frequency, field.unit) == (
        other.shape, other.beam, other.frequency, other.unit,
    )  # fmt: skip
    assert (scale, layout) == (other_scale, other_layout)
    assert field.pixel_scale == pytest.approx(other.pixel_scale, rel=1e-12)
    assert field.wcs.wcs.radesys == other.wcs.wcs.radesys
    np.testing.assert_array_equal(pixels, other_pixels)
    x, y = np.array([0.0, 49.0]), np.array([0.0, 39.0])
    np.testing.assert_allclose(field.wcs.all_pix2world(x, y, 0), other.wcs.all_pix2world(x, y, 0), atol=1e-11)


@pytest.mark.parametrize(
    "changes",
    [
        {"CTYPE1": "GLON-SIN", "CTYPE2": "GLAT-SIN"},
        {"EPOCH": 1950.0},
        {"shape": (3, 40, 50)},
        {"shape": (10, 50)},
        {"CASAMBM": True},
    ],
)
def test_all_else_is_left_to_astropy(tmp_path, changes):
    assert FitsReader(write(tmp_path / "a.fits", **changes))._find_plain() is None


def test_half_a_header_is_left_to_astropy(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(b"SIMPLE  =                    T")
    assert FitsReader(str(path))._find_plain() is None
