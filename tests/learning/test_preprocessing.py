"""What is done to an image is the published recipe, and bad pixels cost nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.errors import ConfigError
from survey_ml.learning.preprocessing import (
    Preprocessing,
    clip_image,
    fit_image,
    measure_noise,
    scale_bytes,
)


def test_the_noise_of_normal_pixels_is_their_standard_deviation():
    image = np.random.default_rng(1).normal(0.4, 2.5, (400, 400)).astype(np.float32)
    image[100:110, 100:110] = 1e4
    image[0, :50] = np.nan
    image[1, :50] = np.inf
    assert measure_noise(image) == pytest.approx(2.5, rel=0.01)
    assert np.isnan(measure_noise(np.full((4, 4), np.nan)))


def test_what_is_below_the_clip_is_empty_and_the_rest_has_a_maximum_of_one():
    image = np.array([[2.9, 3.0, 6.0], [-9.0, np.nan, np.inf]])
    clipped = clip_image(image, 1.0, 3.0)
    assert clipped.dtype == np.float32
    np.testing.assert_array_equal(clipped, np.array([[0, 0.5, 1.0], [0, 0, 0]], np.float32))


def test_the_clip_is_taken_off_for_models_that_saw_it_so():
    image = np.array([[2.9, 3.0, 4.0], [-9.0, np.nan, 13.0]])
    clipped = clip_image(image, 1.0, 3.0, subtract=True)
    np.testing.assert_allclose(clipped, np.array([[0, 0, 0.1], [0, 0, 1.0]]), rtol=1e-6)
    assert not clip_image(np.full((3, 3), 3.0), 1.0, 3.0, subtract=True).any()


def test_the_noise_may_differ_from_pixel_to_pixel():
    image = np.full((1, 3), 4.0)
    noise = np.array([[1.0, 2.0, np.nan]])
    np.testing.assert_array_equal(clip_image(image, noise, 3.0), [[1.0, 0.0, 0.0]])


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0])
def test_an_image_without_signal_stays_empty(value):
    assert not clip_image(np.full((5, 5), value), measure_noise(np.full((5, 5), value))).any()


def test_a_noise_of_zero_clips_only_what_is_negative():
    np.testing.assert_array_equal(clip_image(np.array([[-1.0, 0.0, 2.0]]), 0.0), [[0.0, 0.0, 1.0]])


def test_bytes_are_only_scaled():
    scaled = scale_bytes(np.array([[0, 51, 255]], np.uint8))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [[0.0, 0.2, 1.0]], rtol=1e-7)


@pytest.mark.parametrize(
    ("given", "side"), [(300, 150), (9, 4), (9, 5), (8, 5), (8, 4), (4, 9), (5, 8), (6, 6)]
)
def test_images_are_cut_and_padded_about_their_middle(given, side):
    image = np.zeros((given, given), np.float32)
    image[given // 2, given // 2] = 1.0
    fitted, padded = fit_image(image, side)
    assert fitted.shape == (side, side)
    assert np.argwhere(fitted).tolist() == [[side // 2, side // 2]]
    assert padded is (given < side)


def test_one_axis_may_be_cut_while_the_other_is_padded():
    fitted, padded = fit_image(np.ones((2, 8), np.float32), 4)
    np.testing.assert_array_equal(fitted, [[0] * 4, [1] * 4, [1] * 4, [0] * 4])
    assert padded


@pytest.mark.parametrize(
    ("key", "value"),
    [("side", 0), ("side", 10**6), ("pixel_arcsec", 0.0), ("beam_arcsec", np.nan), ("clip_sigma", -1.0)],
)
def test_values_out_of_range_are_errors(key, value):
    with pytest.raises(ConfigError, match=key):
        Preprocessing(**{key: value})
