"""What a mosaic is padded with is found; noise, however coarse, is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from survey_ml.padding import REACH, SIDE, find_padding


def make_noise(shape=(200, 300), seed=0) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.3)
    return (noise / noise.std()).astype(np.float32)


def find_by_definition(image: np.ndarray) -> np.ndarray:
    """Every pixel of every square of equal pixels."""
    found = np.zeros(image.shape, bool)
    for y in range(image.shape[0] - SIDE + 1):
        for x in range(image.shape[1] - SIDE + 1):
            square = image[y : y + SIDE, x : x + SIDE]
            if (square == square[0, 0]).all():
                found[y : y + SIDE, x : x + SIDE] = True
    return found


@pytest.mark.parametrize("quantum", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_noise_has_no_padding_even_if_quantised(quantum, seed):
    noise = make_noise(seed=seed)
    if quantum:
        noise = np.round(noise / quantum) * np.float32(quantum)
    assert find_padding(noise) is None


@pytest.mark.parametrize("value", [0.0, -2.5, 3.2037497e-07, 1e30])
def test_constant_areas_are_found_to_the_last_pixel(value):
    image = make_noise((60, 80))
    image[:, :20] = value
    image[30:35, 40:45] = value
    image[50:54, 50:80] = value  # four rows are too few
    image[10:20, 5] = np.nan
    np.testing.assert_array_equal(find_padding(image), find_by_definition(image))


def test_rounding_does_not_hide_padding():
    image = make_noise((60, 80))
    jitter = np.random.default_rng(1).integers(-1, 2, (60, 30)) * 2.0**-45
    image[:, :30] = (3.2037497e-07 + jitter * 0.1).astype(np.float32)
    found = find_padding(image)
    assert found is not None
    assert found[:, :30].all() and not found[:, 30:].any()


def test_a_window_finds_what_the_whole_finds():
    image = make_noise((64, 64), 3)
    rng = np.random.default_rng(5)
    for _ in range(12):
        y, x = rng.integers(0, 58, 2)
        image[y : y + rng.integers(4, 8), x : x + rng.integers(4, 8)] = 0.0
    whole = find_padding(image)
    assert whole is not None
    for top in range(0, 40, 3):
        part = image[top : top + 24, 7:50]
        found = find_padding(part, top)
        found = np.zeros(part.shape, bool) if found is None else found
        inside = slice(REACH if top else 0, 24 - REACH), slice(REACH, 43 - REACH)
        np.testing.assert_array_equal(found[inside], whole[top : top + 24, 7:50][inside])


def test_small_and_infinite_images():
    assert find_padding(np.zeros((4, 100), np.float32)) is None
    image = np.full((20, 20), np.inf, np.float32)
    assert find_padding(image) is None
