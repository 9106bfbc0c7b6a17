"""Measurements see what they are named for, and turning an image changes none."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.learning.measurements import NAMES, measure_images
from survey_ml.models.trial import make_images


def draw(*parts, side: int = 80):
    """Return Gaussians (x, y from the middle, FWHM, peak), clipped."""
    y, x = np.mgrid[:side, :side] - 0.5 * (side - 1)
    image = sum(
        peak * np.exp(-0.5 * ((x - dx) ** 2 + (y - dy) ** 2) / (fwhm / 2.3548) ** 2)
        for dx, dy, fwhm, peak in parts
    )
    image = image / image.max()
    return np.where(image < 0.05, 0.0, image).astype(np.float32)


def measure(image) -> dict[str, float]:
    return dict(zip(NAMES, measure_images(image[None])[0].tolist(), strict=True))


def test_every_measurement_is_finite_and_an_empty_image_is_zeros():
    found = measure_images(make_images(40, 90, seed=3))
    assert found.shape == (40, len(NAMES))
    assert np.isfinite(found).all()
    assert (found.std(axis=0) > 0).all()
    assert not measure_images(np.zeros((1, 20, 20), np.float32)).any()
    assert measure_images(np.zeros((0, 20, 20), np.float32)).shape == (0, len(NAMES))


def test_one_pixel_is_measured():
    image = np.zeros((9, 9), np.float32)
    image[4, 4] = 1.0
    found = measure(image)
    assert found["n_peaks"] == found["n_blobs"] == found["axis_ratio"] == 1.0
    assert found["asymmetry"] == 0.0


def test_a_double_has_two_peaks_at_their_distance():
    found = measure(draw((-15, 0, 6, 1.0), (15, 0, 6, 0.8)))
    assert (found["n_peaks"], found["n_blobs"]) == (2.0, 2.0)
    extent = 10 ** found["extent"]
    assert found["peak_separation"] * extent == pytest.approx(30, abs=1.0)
    assert found["peak_ratio"] == pytest.approx(0.8, abs=0.02)
    assert found["peak_angle"] == pytest.approx(-1.0, abs=1e-3)
    assert found["blob_share"] == pytest.approx(1 / 1.8, abs=0.02)
    assert found["axis_ratio"] < 0.3


def test_a_bend_opens_the_angle_and_breaks_the_symmetry():
    straight = measure(draw((-15, 0, 6, 0.8), (0, 0, 6, 0.5), (15, 0, 6, 0.8)))
    bent = measure(draw((-15, 9, 6, 0.8), (0, 0, 6, 0.5), (15, 9, 6, 0.8)))
    assert straight["asymmetry"] < 0.05 < bent["asymmetry"]
    assert straight["hu_3"] < 0.05 < bent["hu_3"]
    assert straight["peak_angle"] < bent["peak_angle"] - 0.01


def test_a_faint_halo_lowers_the_concentration():
    point, halo = measure(draw((0, 0, 6, 1.0))), measure(draw((0, 0, 6, 1.0), (0, 0, 40, 0.1)))
    assert halo["concentration"] < point["concentration"] - 0.1


def test_turning_and_reflecting_changes_no_measurement():
    images = make_images(60, 90, seed=1)
    rounded = np.round(images * 255).astype(np.float32) / 255  # equal pixels, as in 8-bit images
    for given in (images, rounded):
        plain = measure_images(given)
        for turns in range(4):
            for reflected in (given, given[:, :, ::-1]):
                moved = measure_images(np.ascontiguousarray(np.rot90(reflected, turns, axes=(1, 2))))
                np.testing.assert_allclose(moved, plain, atol=2e-6)
