"""FITS images are read by window, in every form they come in."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from fits_files import make_header, make_image, write_image

from survey_ml.config import Defaults
from survey_ml.data import fits as module
from survey_ml.data.fits import FitsReader
from survey_ml.errors import InputError
from survey_ml.field import Window

KINDS = {"plain": "a.fits", "gzip": "a.fits.gz", "rows": "a.fits.fz", "squares": "b.fits.fz"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("leading", [(), (1,), (1, 1)])
def test_any_window_of_any_kind_reads_as_from_the_array(tmp_path, kind, leading):
    values = make_image()
    path = write_image(tmp_path / KINDS[kind], values.reshape(*leading, *values.shape), kind)
    numbers = random.Random(2)
    with FitsReader(str(path)) as reader:
        field, scale = reader.describe(Defaults(), "north")
        assert (field.name, field.shape, scale, field.unit) == ("north", (150, 100), 1.0, "Jy/beam")
        assert (field.beam.major, field.beam.minor, field.beam.pa) == pytest.approx((6, 5, 30))
        for _ in range(15):
            y0, y1 = sorted(numbers.sample(range(151), 2))
            x0, x1 = sorted(numbers.sample(range(101), 2))
            found = reader.read(Window(y0, y1, x0, x1))
            assert found.dtype == np.float32 and found.dtype.isnative and found.flags.writeable
            assert np.array_equal(found, values[y0:y1, x0:x1], equal_nan=True)


def test_windows_are_read_without_describing_first(tmp_path):
    path = write_image(tmp_path / "a.fits")
    with FitsReader(str(path)) as reader:
        assert np.array_equal(reader.read(Window(30, 40, 50, 60)), make_image()[30:40, 50:60])


@pytest.mark.parametrize("limit", [1, 1 << 30])
def test_rows_too_wide_to_keep_are_read_in_strips(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(module, "BAND_LIMIT", limit)
    monkeypatch.setattr(module, "STRIP", 4 * 100 * 7)
    path = write_image(tmp_path / "a.fits.fz", kind="rows")
    with FitsReader(str(path)) as reader:
        for columns in ((0, 40), (40, 100)):
            window = Window(11, 61, *columns)
            found = reader.read(window)
            assert np.array_equal(found, make_image()[window.slices], equal_nan=True)
            found[:] = 0  # what was given away is not what is kept
        assert (reader._band is None) == (limit == 1)


@pytest.mark.parametrize("dtype", [">f8", ">i2", ">i4", "u1"])
def test_stored_types_scales_and_blanks(tmp_path, dtype):
    values = np.arange(40 * 30).reshape(40, 30) % 200
    stored = values.astype(dtype)
    header = make_header(values.shape)
    expected = values.astype(np.float64)
    hdu = fits.PrimaryHDU(stored, header)
    path = tmp_path / "a.fits"
    hdu.writeto(path)
    if dtype != ">f8":
        with fits.open(path, mode="update", do_not_scale_image_data=True) as opened:
            opened[0].header["BSCALE"], opened[0].header["BZERO"] = 0.5, 10.0
            opened[0].header["BLANK"] = 7
        expected = np.where(values == 7, np.nan, values * 0.5 + 10.0)
    with FitsReader(str(path)) as reader:
        found = reader.read(Window(0, 40, 0, 30))
    assert np.array_equal(found, expected.astype(np.float32), equal_nan=True)


def test_blank_pixels_of_compressed_integers_are_nan(tmp_path):
    values = (np.arange(40 * 30).reshape(40, 30) % 200).astype(np.int16)
    header = make_header(values.shape, BLANK=7, BSCALE=0.5, BZERO=10.0)
    plain = tmp_path / "plain.fits"
    fits.PrimaryHDU(values, make_header(values.shape)).writeto(plain)
    image = fits.CompImageHDU(values, header, compression_type="RICE_1", do_not_scale_image_data=True)
    image.header["BLANK"], image.header["BSCALE"], image.header["BZERO"] = 7, 0.5, 10.0
    path = tmp_path / "a.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    with fits.open(path) as opened:
        expected = opened[1].data.astype(np.float32)
    with FitsReader(str(path)) as reader:
        found = reader.read(Window(0, 40, 0, 30))
    assert np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize(("hdu", "level"), [(None, 1.0), ("SECOND", 2.0), (2, 2.0), ("THIRD", 3.0)])
def test_an_hdu_is_chosen_by_name_or_number(tmp_path, hdu, level):
    images = [
        fits.ImageHDU(np.full((20, 20), value, np.float32), make_header((20, 20)), name=name)
        for name, value in (("FIRST", 1.0), ("SECOND", 2.0), ("THIRD", 3.0))
    ]
    table = fits.BinTableHDU.from_columns([fits.Column("x", "E", array=[1.0])])
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), images[0], images[1], table, images[2]]).writeto(path)
    with FitsReader(str(path), hdu) as reader:
        reader.describe(Defaults(), "x")
        assert np.all(reader.read(Window(0, 20, 0, 20)) == level)


def test_an_hdu_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    path = write_image(tmp_path / "a.fits")
    for hdu in ("SCI", 3):
        with pytest.raises(InputError, match="no HDU") as caught:
            FitsReader(str(path), hdu).describe(Defaults(), "x")
        assert "0 PRIMARY" in caught.value.hint


def test_a_casa_beam_table_is_used(tmp_path):
    path = tmp_path / "a.fits"
    image = fits.PrimaryHDU(
        make_image(), make_header((150, 100), BMAJ=None, BMIN=None, BPA=None, CASAMBM=True)
    )
    columns = [
        fits.Column("BMAJ", "1E", "arcsec", array=[7.0]),
        fits.Column("BMIN", "1E", "arcsec", array=[6.0]),
        fits.Column("BPA", "1E", "deg", array=[40.0]),
        fits.Column("CHAN", "1J", array=[0]),
        fits.Column("POL", "1J", array=[0]),
    ]
    fits.HDUList([image, fits.BinTableHDU.from_columns(columns, name="BEAMS")]).writeto(path)
    with FitsReader(str(path)) as reader:
        beam = reader.describe(Defaults(), "x")[0].beam
    assert (beam.major, beam.minor, beam.pa) == (7.0, 6.0, 40.0)


def test_units_are_scaled_and_defaults_noted(tmp_path):
    path = write_image(tmp_path / "a.fits", BUNIT="mJy/beam", RESTFRQ=1.42e9)
    with FitsReader(str(path)) as reader:
        field, scale = reader.describe(Defaults(unit="Jy/beam", frequency_hz=1e9), "x")
        assert scale == 1e-3 and field.frequency == 1.42e9
        assert len(reader.notes) == 2


@pytest.mark.parametrize(
    ("cards", "words", "hint"),
    [
        ({"BUNIT": "K"}, "BUNIT 'K'", "Convert"),
        ({"BUNIT": None}, "no BUNIT", "unit: Jy/beam"),
        ({"BMAJ": None}, "no beam", "beam_arcsec"),
        ({"CTYPE1": None, "CTYPE2": None}, "no celestial WCS", "coordinates"),
    ],
)
def test_lacking_headers_are_answered_with_a_remedy(tmp_path, cards, words, hint):
    path = write_image(tmp_path / "a.fits", **cards)
    with pytest.raises(InputError, match=words) as caught:
        FitsReader(str(path)).describe(Defaults(), "x")
    assert hint in caught.value.hint


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.9, 0.5])
def test_a_truncated_file_is_found_by_its_header(tmp_path, kind, keep):
    path = write_image(tmp_path / KINDS[kind], kind=kind)
    os.truncate(path, int(path.stat().st_size * keep))
    with pytest.raises(InputError, match="truncated") as caught:
        FitsReader(str(path)).describe(Defaults(), "x")
    assert str(path) in caught.value.message and "again" in caught.value.hint


def test_a_file_cut_in_its_header_or_by_one_pixel(tmp_path):
    path = write_image(tmp_path / "a.fits")
    os.truncate(path, 1000)
    with pytest.raises(InputError, match="truncated"):
        FitsReader(str(path)).describe(Defaults(), "x")
    path = write_image(tmp_path / "b.fits")
    with fits.open(path) as opened:
        end = opened[0].fileinfo()["datLoc"] + 150 * 100 * 4
    # Padding to full blocks may be missing, pixels may not.
    os.truncate(path, end)
    FitsReader(str(path)).describe(Defaults(), "x")
    os.truncate(path, end - 4)
    with pytest.raises(InputError, match="truncated"):
        FitsReader(str(path)).describe(Defaults(), "x")


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz", "a.fits.fz"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG" + bytes(9000)])
def test_what_is_no_fits_is_said_to_be_none(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not a FITS file|truncated"):
        FitsReader(str(path)).describe(Defaults(), "x")


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_a_file_packed_otherwise_is_named_whatever_it_is_called(tmp_path, pack):
    path = write_image(tmp_path / "a.fits")
    path.write_bytes(pack(path.read_bytes()))
    with pytest.raises(InputError, match=r"is compressed by (bzip2|xz)"):
        FitsReader(str(path)).describe(Defaults(), "x")


def test_a_gzipped_file_is_read_whatever_it_is_called(tmp_path):
    path = write_image(tmp_path / "a.fits")
    with FitsReader(str(path)) as reader:
        plain = reader.read(Window(0, 50, 0, 60))
    path.write_bytes(gzip.compress(path.read_bytes()))
    with FitsReader(str(path)) as reader:
        reader.describe(Defaults(), "x")
        np.testing.assert_array_equal(reader.read(Window(0, 50, 0, 60)), plain)


def test_a_file_without_an_image_or_no_file_at_all(tmp_path):
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU()]).writeto(path)
    with pytest.raises(InputError, match="holds no image"):
        FitsReader(str(path)).describe(Defaults(), "x")
    with pytest.raises(InputError, match="no file"):
        FitsReader(str(tmp_path / "none.fits")).describe(Defaults(), "x")


def test_a_large_gzipped_image_is_refused_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GZIP_LIMIT", 10_000)
    path = write_image(tmp_path / "a.fits.gz", kind="gzip")
    with pytest.raises(InputError, match="gzipped") as caught:
        FitsReader(str(path)).describe(Defaults(), "x")
    assert "gunzip a.fits.gz" in caught.value.hint


def test_describing_reads_no_pixel(tmp_path):
    """A header whose pixels are a hole of 4 GB is checked without touching them."""
    path = write_image(tmp_path / "a.fits", np.zeros((16, 16), np.float32))
    with fits.open(path) as opened:
        header = opened[0].header.copy()
    header["NAXIS1"] = header["NAXIS2"] = 32768
    cards = header.tostring(padding=True).encode()
    path.write_bytes(cards)
    os.truncate(path, len(cards) + 32768**2 * 4)
    with FitsReader(str(path)) as reader:
        assert reader.describe(Defaults(), "x")[0].shape == (32768, 32768)
        assert np.all(reader.read(Window(30000, 30010, 32000, 32010)) == 0)
    assert path.stat().st_blocks * 512 < 1 << 20


def test_a_url_is_read_by_window(tmp_path):
    for kind, name in (("plain", "a.fits"), ("rows", "a.fits.fz"), ("gzip", "a.fits.gz")):
        path = write_image(tmp_path / name, kind=kind)
        with FitsReader(f"file://{path}") as reader:
            assert reader.describe(Defaults(), "x")[0].shape == (150, 100)
            found = reader.read(Window(15, 44, 20, 90))
        assert np.array_equal(found, make_image()[15:44, 20:90], equal_nan=True)


def test_pixels_that_cannot_be_read_are_an_input_error(tmp_path):
    path = write_image(tmp_path / "a.fits")
    reader = FitsReader(str(path))
    reader.describe(Defaults(), "x")
    os.truncate(path, 9000)
    with pytest.raises(InputError, match="cannot be read"):
        reader.read(Window(0, 150, 0, 100))


@pytest.mark.real
def test_a_first_cutout_as_published(tmp_path):
    folder = Path(os.environ.get("SURVEY_ML_DATA", "../shared/data")) / "first_fields"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    path = shutil.copy(sorted(folder.glob("*.fits.fz"))[0], tmp_path)
    with pytest.raises(InputError, match="no beam"):
        FitsReader(path).describe(Defaults(), "x")
    with FitsReader(path) as reader:
        field, scale = reader.describe(Defaults(beam_arcsec=(5.4, 5.4, 0.0)), "x")
        assert field.shape == (300, 300) and scale == 1.0
        assert field.pixel_scale == pytest.approx(1.8)
        assert np.isnan(field.frequency)
        assert len(reader.notes) == 2 and "beam" in reader.notes[0] and "no frequency" in reader.notes[1]
        with fits.open(path) as opened:
            expected = opened[1].data[20:60, 100:250]
        assert np.array_equal(reader.read(Window(20, 60, 100, 250)), expected)
