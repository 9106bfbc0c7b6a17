"""Cutouts of any size, pixel and kind become what the model wants, and their flags say what was wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from survey_ml.data.cutouts import read_cutouts
from survey_ml.data.labelled.mirabest import read_mirabest_table
from survey_ml.learning.preparation import match_scale, prepare_image
from survey_ml.learning.preprocessing import Preprocessing, scale_bytes

WANTED = Preprocessing(side=64)
NOISE = 0.01
DATA = Path(os.environ.get("SURVEY_ML_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def draw(side: int, fwhm_px: float, *, peak: float = 1.0, at: tuple[float, float] = (0.0, 0.0)):
    """Return a Gaussian, ``at`` from the middle."""
    y, x = np.mgrid[:side, :side] - 0.5 * (side - 1)
    sigma = fwhm_px / 2.3548
    return peak * np.exp(-0.5 * ((x - at[0]) ** 2 + (y - at[1]) ** 2) / sigma**2)


def add_noise(image, seed: int = 0):
    return (image + np.random.default_rng(seed).normal(0, NOISE, image.shape)).astype(np.float32)


def test_a_float_image_is_clipped_by_its_own_noise():
    made = prepare_image(add_noise(draw(64, 6.0)), WANTED)
    assert made.image.max() == 1.0
    assert made.image[made.image > 0].min() > 2.5 * NOISE
    assert made.flags == ()
    assert (made.image > 0).mean() < 0.1


def test_an_8_bit_image_is_taken_as_clipped():
    image = np.round(200 * draw(64, 6.0)).astype(np.uint8)
    made = prepare_image(image, WANTED)
    np.testing.assert_array_equal(made.image, scale_bytes(image))


@pytest.mark.parametrize(
    ("image", "flags"),
    [
        (np.full((64, 64), np.nan), ("no_data",)),
        (np.zeros((64, 64)), ("empty",)),
        (np.zeros((64, 64), np.uint8), ("empty",)),
        (draw(32, 6.0), ("edge",)),
        (np.where(draw(64, 6.0) > 0.9, np.nan, draw(64, 6.0)), ("blank",)),
        (np.where(draw(64, 90.0) > 0.01, draw(64, 90.0), 0.0), ("too_large",)),
    ],
)
def test_flags_say_what_is_wrong(image, flags):
    made = prepare_image(image, WANTED)
    assert made.flags == flags
    assert np.isfinite(made.image).all()


def test_a_neighbour_at_the_edge_makes_no_source_too_large():
    image = draw(64, 6.0) + draw(64, 6.0, at=(31.0, 0.0))
    image[image < 0.05] = 0.0
    assert prepare_image(image, WANTED).flags == ()


def test_pixels_far_larger_than_the_models_are_flagged():
    assert "coarse" in prepare_image(draw(64, 6.0), WANTED, pixel_arcsec=4.0).flags
    assert "coarse" in prepare_image(draw(64, 6.0), WANTED, pixel_arcsec=1.8, beam_arcsec=9.0).flags
    assert "coarse" not in prepare_image(draw(64, 6.0), WANTED, pixel_arcsec=1.0, beam_arcsec=5.4).flags


def measure_fwhm(image) -> float:
    """Return the FWHM along x of a Gaussian, from its second moment."""
    x = np.arange(image.shape[1]) - 0.5 * (image.shape[1] - 1)
    return 2.3548 * float(np.sqrt((image.sum(axis=0) @ x**2) / image.sum()))


@pytest.mark.parametrize("pixel", [0.6, 0.9, 1.5, 2.4, 3.0])
def test_a_beam_keeps_its_size_on_the_sky_whatever_the_pixel(pixel):
    image = draw(round(120 / pixel) // 2 * 2, 5.4 / pixel)
    made = match_scale(image, WANTED, pixel, 5.4)
    assert measure_fwhm(made) * 1.8 == pytest.approx(5.4, rel=0.03)
    assert made.max() == pytest.approx(1.0, abs=0.15)


def test_a_sharper_beam_is_smoothed_to_the_models():
    made = match_scale(draw(240, 2.5 / 0.5), WANTED, 0.5, 2.5)
    assert measure_fwhm(made) * 1.8 == pytest.approx(5.4, rel=0.03)


def test_blank_pixels_stay_where_they_are_and_spread_no_further():
    image = draw(120, 9.0)
    image[:, :40] = np.nan
    made = match_scale(image, WANTED, 0.9, 5.4)
    assert made.shape == (60, 60)
    assert np.isnan(made[:, :19]).all()
    assert np.isfinite(made[:, 21:]).all()


def test_a_cutout_with_huge_pixels_stays_small():
    assert match_scale(np.ones((500, 500)), WANTED, 180.0).shape == (128, 128)


@pytest.mark.parametrize("pixel", [1e-300, 1e-12, 4e-6, 1e-3, 1e100, 1e300])
@pytest.mark.parametrize("beam", [np.nan, 5.4])
def test_pixels_that_cannot_be_cost_nothing(pixel, beam):
    image = np.random.default_rng(0).normal(size=(150, 120))
    made = match_scale(image, WANTED, pixel, beam)
    assert max(made.shape) <= 128 and np.isfinite(made).all()
    assert prepare_image(image, WANTED, pixel_arcsec=pixel, beam_arcsec=beam).image.shape == (64, 64)


@pytest.mark.real
def test_first_images_become_those_of_mirabest():
    """The published 8-bit images were made from the same pixels."""
    archive = DATA / "radio_galaxies" / "MiraBest_full_batches.tar.gz"
    files = sorted((DATA / "first_fields").glob("*.fits.fz"))[5::30]
    if not files or not archive.is_file():
        pytest.skip(f"no {archive.name} or no first_fields in {DATA}; set SURVEY_ML_DATA")
    published = read_mirabest_table(archive)
    place = {name: number for number, name in enumerate(published.names.tolist())}
    found = []
    for cutout in read_cutouts(files):
        theirs = published.images[place[Path(cutout.input).name.removesuffix(".fits.fz")]]
        ours = prepare_image(cutout.image, Preprocessing(), pixel_arcsec=cutout.pixel_arcsec)
        assert ours.flags == ()
        assert prepare_image(theirs, Preprocessing()).flags == ()
        found.append(np.corrcoef(theirs.ravel(), ours.image.ravel())[0, 1])
    assert len(found) == 20
    assert np.median(found) > 0.998
    assert min(found) > 0.95
