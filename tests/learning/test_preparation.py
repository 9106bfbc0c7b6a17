"""Cutouts of any size, pixel and kind become what the model wants, and their flags say what was wrong."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.learning.preparation import match_scale, prepare_image
from survey_ml.learning.preprocessing import Preprocessing, scale_bytes

WANTED = Preprocessing(side=64)
NOISE = 0.01


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
