"""Cutouts of every format come one after the other, and a bad one does not end the others."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from survey_ml.data.cutouts import Cutout, UnreadableCutout, read_cutouts
from survey_ml.data.labelled.product import write_cutout_file
from survey_ml.data.planes import read_pixel_arcsec

REAL = Path(os.environ.get("SURVEY_ML_DATA", Path(__file__).parents[2] / "../shared/data"))
IMAGE = np.random.default_rng(3).normal(size=(20, 24)).astype(np.float32)
SCALE = {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CDELT1": -0.0005, "CDELT2": 0.0005}
BEAM = {"BMAJ": 8 / 3600, "BMIN": 2 / 3600, "BPA": 10.0}


def write(path, values=IMAGE, **cards):
    unit = fits.PrimaryHDU(values)
    unit.header.update(cards)
    unit.writeto(path, overwrite=True)
    return path


def read_one(path) -> Cutout:
    (found,) = read_cutouts([path])
    assert isinstance(found, Cutout), found
    return found


def read_failure(path) -> UnreadableCutout:
    (found,) = read_cutouts([path])
    assert isinstance(found, UnreadableCutout), found
    assert found.input == str(path)
    assert found.remedy
    return found


def test_a_header_tells_pixel_and_beam(tmp_path):
    found = read_one(write(tmp_path / "x.fits", **SCALE, **BEAM))
    assert np.array_equal(found.image, IMAGE)
    assert found.image.dtype == np.float32
    assert found.image.dtype.isnative
    assert not found.eight_bit
    assert found.pixel_arcsec == pytest.approx(1.8)
    assert found.beam_arcsec == pytest.approx(4.0)
    assert (found.input, found.index) == (str(tmp_path / "x.fits"), 0)


def test_a_bare_image_is_read_and_its_scale_unknown(tmp_path):
    found = read_one(write(tmp_path / "x.fits"))
    assert np.array_equal(found.image, IMAGE)
    assert math.isnan(found.pixel_arcsec)
    assert math.isnan(found.beam_arcsec)


@pytest.mark.parametrize("shape", [(1, 20, 24), (1, 1, 20, 24), (20, 1, 24)])
def test_axes_of_one_pixel_do_not_matter(tmp_path, shape):
    assert np.array_equal(read_one(write(tmp_path / "x.fits", IMAGE.reshape(shape))).image, IMAGE)


def test_packed_and_later_images_are_found(tmp_path):
    path = write(tmp_path / "x.fits", **SCALE)
    (tmp_path / "x.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
    packed = fits.CompImageHDU(IMAGE, compression_type="GZIP_2", quantize_level=0.0)
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "x.fits.fz")
    for name in ("x.fits.gz", "x.fits.fz"):
        assert np.array_equal(read_one(tmp_path / name).image, IMAGE)


def test_integers_are_scaled_and_blanks_are_nan(tmp_path):
    stored = np.arange(480, dtype=np.int16).reshape(20, 24)
    found = read_one(write(tmp_path / "x.fits", stored, BLANK=7, BSCALE=0.5, BZERO=3.0))
    expected = stored * np.float32(0.5) + 3
    expected[stored == 7] = np.nan
    assert np.array_equal(found.image, expected, equal_nan=True)
    unsigned = stored.astype(np.uint16) + 40000
    assert np.array_equal(read_one(write(tmp_path / "x.fits", unsigned)).image, unsigned)


def test_eight_bits_count_as_clipped(tmp_path):
    eight = np.arange(480, dtype=np.uint16).reshape(20, 24).astype(np.uint8)
    Image.fromarray(eight).save(tmp_path / "x.png")
    np.save(tmp_path / "x.npy", eight)
    write(tmp_path / "x.fits", eight)
    for name in ("x.png", "x.npy", "x.fits"):
        found = read_one(tmp_path / name)
        assert found.eight_bit
        assert found.image.dtype == np.uint8
        assert np.array_equal(found.image, eight)
    write(tmp_path / "y.fits", eight, BLANK=0)
    Image.fromarray(eight.astype(np.uint16)).save(tmp_path / "y.png")
    np.save(tmp_path / "y.npy", eight.astype(np.int16))
    for name in ("y.png", "y.npy", "y.fits"):
        found = read_one(tmp_path / name)
        assert not found.eight_bit
        assert found.image.dtype == np.float32


def test_stacks_come_image_by_image(tmp_path):
    stack = np.stack([IMAGE, 2 * IMAGE, -IMAGE]).astype(np.float64)
    path = write_cutout_file(
        tmp_path / "x.npz", stack.astype(np.float32), ["a", "b", "c"], [0, 1, 2], [0, 0, 0], [1.8, 2.0, 3.0]
    )
    assert [cutout.pixel_arcsec for cutout in read_cutouts([path])] == [1.8, 2.0, 3.0]
    stack[1, 0, 0], stack[2, 0, 0] = 1e300, np.inf
    np.save(tmp_path / "x.npy", stack)
    found = list(read_cutouts([tmp_path / "x.npy"]))
    assert [cutout.index for cutout in found] == [0, 1, 2]
    assert np.array_equal(found[0].image, IMAGE)
    assert np.isnan(found[1].image[0, 0])
    assert np.isnan(found[2].image[0, 0])
    assert np.array_equal(found[2].image[1:], -IMAGE[1:])


def test_a_bad_file_does_not_end_the_others(tmp_path):
    folder = tmp_path / "many"
    (folder / "deeper").mkdir(parents=True)
    write(folder / "b.fits")
    (folder / "a.fits").write_bytes(b"nothing")
    np.save(folder / "c.npy", np.stack([IMAGE, IMAGE]))
    write(folder / "deeper" / "a.FIT")
    (folder / "readme.txt").write_text("not looked at")
    (folder / ".hidden.png").write_text("not looked at")
    found = list(read_cutouts([tmp_path / "none.png", folder, write(tmp_path / "z.fits")]))
    places = [
        (Path(item.input).relative_to(tmp_path).as_posix(), getattr(item, "index", None)) for item in found
    ]
    assert places == [
        ("none.png", None),
        ("many/a.fits", None),
        ("many/b.fits", 0),
        ("many/c.npy", 0),
        ("many/c.npy", 1),
        ("many/deeper/a.FIT", 0),
        ("z.fits", 0),
    ]
    assert found[0].cause.endswith("none.png does not exist")
    assert "is not a FITS file" in found[1].cause


def test_a_folder_without_images_says_so(tmp_path):
    assert "has no images" in read_failure(tmp_path).cause


def test_folders_are_followed_through_links_once(tmp_path):
    inside, outside = tmp_path / "set", tmp_path / "elsewhere"
    inside.mkdir()
    outside.mkdir()
    write(inside / "a.fits")
    write(outside / "b.fits")
    (inside / "more").symlink_to(outside)
    (outside / "back").symlink_to(inside)
    (inside / "lost.fits").symlink_to(tmp_path / "nothing")
    found = list(read_cutouts([inside]))
    assert [Path(one.input).relative_to(inside).as_posix() for one in found] == [
        "a.fits",
        "lost.fits",
        "more/b.fits",
    ]
    assert isinstance(found[1], UnreadableCutout) and "does not exist" in found[1].cause


def test_reading_is_lazy(tmp_path):
    paths = iter([write(tmp_path / "x.fits"), None])
    assert isinstance(next(read_cutouts(paths)), Cutout)


@pytest.mark.parametrize(
    ("values", "cards", "said"),
    [
        (np.zeros((3, 20, 24), np.float32), {}, "is a cube of 3 x 20 x 24"),
        (np.zeros((5, 20), np.float32), {}, "image 0 has 5 x 20 pixels"),
        (np.zeros((1, 20), np.float32), {}, "image 0 has 1 x 20 pixels"),
        (np.zeros(20, np.float32), {}, "holds no image"),
        (IMAGE[None, None], {"CTYPE4": "STOKES", "CRVAL4": 2.0, "CRPIX4": 1.0, "CDELT4": 1.0}, "Stokes Q"),
        (np.zeros((4200, 4200), np.uint8), {}, "more than 16777216"),
    ],
)
def test_fits_files_that_are_no_cutouts_are_refused(tmp_path, values, cards, said):
    assert said in read_failure(write(tmp_path / "x.fits", values, **cards)).cause


def test_damaged_fits_files_are_refused(tmp_path):
    path = write(tmp_path / "x.fits")
    content = path.read_bytes()
    for bad in (content[:3000], content[:2000], b"", b"PK\x03\x04" + content, gzip.compress(content)[:-900]):
        path.write_bytes(bad)
        assert "x.fits" in read_failure(path).cause
    path.write_bytes(gzip.compress(content + bytes(140 << 20), 1))
    assert "unpacks to more than" in read_failure(path).cause


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([{}]), "cannot be read as an array"),
        (np.zeros((2, 3, 20, 24)), "has the shape (2, 3, 20, 24)"),
        (np.zeros(20), "has the shape (20,)"),
        (np.zeros((0, 20, 24)), "has the shape (0, 20, 24)"),
        (np.zeros((20, 24, 3)), "image 0 has 24 x 3 pixels"),
        (np.zeros((20, 24), complex), "no array of real numbers"),
        (np.zeros((20, 24), bool), "no array of real numbers"),
        (np.zeros((20, 24), "f4,f4"), "no array of real numbers"),
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path, array, said):
    np.save(tmp_path / "x.npy", array)
    assert said in read_failure(tmp_path / "x.npy").cause


@pytest.mark.parametrize(
    ("shape", "said"), [((-30, 150, 150), "be read as an array"), ((1, 30_000, 30_000), "30000 x 30000")]
)
def test_headers_that_claim_what_cannot_be_are_refused(tmp_path, shape, said):
    path = tmp_path / "claims.npy"
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    with path.open("r+b") as file:
        file.truncate(128 + 4 * abs(math.prod(shape)))  # a hole: no bytes on the disk
    assert said in read_failure(path).cause


def test_damaged_arrays_and_other_formats_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, IMAGE)
    content = path.read_bytes()
    for bad in (content[:-8], content[:40], b"text", b""):
        path.write_bytes(bad)
        assert "x.npy" in read_failure(path).cause
    (tmp_path / "x.jpg").write_bytes(b"")
    assert "unknown format" in read_failure(tmp_path / "x.jpg").cause


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"CDELT1": -0.0005, "CDELT2": 0.0005}, 1.8),
        ({"CDELT1": 0.001, "CDELT2": 0.00025}, 1.8),
        ({"CDELT1": -1.8, "CDELT2": 1.8, "CUNIT1": "arcsec", "CUNIT2": "arcsec"}, 1.8),
        ({"CD1_1": 0.0003, "CD1_2": 0.0004, "CD2_1": -0.0004, "CD2_2": 0.0003}, 1.8),
        ({"CDELT1": 0.001, "CDELT2": 0.001, "PC1_1": 0.0, "PC1_2": 0.5, "PC2_1": 0.5, "PC2_2": 0.0}, 1.8),
        ({"CDELT1": 1.0, "CDELT2": 1.0, "CTYPE1": "FREQ"}, math.nan),
        ({"CDELT1": 1.0, "CDELT2": 1.0, "CUNIT1": "Hz"}, math.nan),
        ({"CDELT1": 1.0}, math.nan),
        ({"CDELT1": 0.0, "CDELT2": 1.0}, math.nan),
        ({"CDELT1": "x", "CDELT2": 1.0}, math.nan),
    ],
)
def test_pixel_sizes(cards, expected):
    assert read_pixel_arcsec(cards) == pytest.approx(expected, nan_ok=True)


@pytest.mark.real
def test_real_cutouts_of_first():
    files = sorted((REAL / "first_fields").glob("*.fits.fz"))[::200]
    if not files:
        pytest.skip(f"no real data in {REAL / 'first_fields'}; set SURVEY_ML_DATA")
    for cutout in read_cutouts(files):
        assert isinstance(cutout, Cutout)
        assert cutout.image.shape == (300, 300)
        assert cutout.pixel_arcsec == pytest.approx(1.8)
        assert math.isnan(cutout.beam_arcsec)
        assert not cutout.eight_bit
