"""The noise correlation: unbiased for known noise, definite, honest where there is little to go by."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.stages.noise.autocorrelation import (
    choose_lag,
    combine_patches,
    measure_patch,
    shape_gaussian,
)


def measure(image, covariance, side=128):
    patches = [
        measure_patch(image[y : y + side, x : x + side], (y, x), covariance)
        for y in range(0, image.shape[0], side)
        for x in range(0, image.shape[1], side)
    ]
    return combine_patches([p for p in patches if p is not None], covariance)


def least_power(acf):
    """Least of the spectrum over its greatest, on an odd fine grid; below 0, some variance is negative."""
    lag = acf.shape[0] // 2
    size = 22 * lag + 9
    grid = np.zeros((size, size))
    index = np.arange(-lag, lag + 1)
    grid[np.ix_(index, index)] = acf
    power = np.fft.fft2(grid).real
    return power.min() / power.max()


@pytest.mark.parametrize(("kernel", "truth"), [(0.5, 1.0), (1.0, 2.0)])
def test_known_noise_is_measured_to_two_per_cent(make_noise, beam_covariance, kernel, truth):
    """Natural weighting (autocorrelation = beam) and white noise smoothed with the beam."""
    image = make_noise((1024, 1024), beam_covariance * kernel, 11)
    model = measure(image, beam_covariance)
    expected = shape_gaussian(beam_covariance * truth, model.lag)
    assert model.source == "measured"
    assert model.n_patches == 64
    assert np.abs(model.acf - expected).max() < 0.02
    k = model.lag
    np.testing.assert_allclose(model.acf[k, k : k + 4], expected[k, k : k + 4], rtol=0.05, atol=0.004)
    np.testing.assert_allclose(model.acf.sum(), expected.sum(), rtol=0.06)


def test_diffuse_emission_does_not_leak(make_noise, beam_covariance):
    """Emission of ten beams, as strong as the noise, would put 0.5 into each lag of a plain product."""
    noise = make_noise((768, 768), beam_covariance / 2, 12)
    diffuse = make_noise((768, 768), np.eye(2) * 300.0, 13)
    model = measure((noise + diffuse).astype(np.float32), beam_covariance)
    expected = shape_gaussian(beam_covariance, model.lag)
    assert np.abs(model.acf - expected).max() < 0.06


def test_sources_do_not_leak(make_noise, add_source, beam_covariance):
    image = make_noise((768, 768), beam_covariance / 2, 14)
    rng = np.random.default_rng(15)
    for y, x, peak in zip(*rng.uniform(0, 768, (2, 900)), 4 / rng.power(1.2, 900), strict=True):
        add_source(image, y, x, min(peak, 5000), beam_covariance * rng.uniform(1, 6))
    model = measure(image, beam_covariance)
    assert np.abs(model.acf - shape_gaussian(beam_covariance, model.lag)).max() < 0.05


def test_varying_rms_does_not_matter(make_noise, beam_covariance):
    image = make_noise((512, 512), beam_covariance / 2, 16)
    image *= np.linspace(1, 4, 512, dtype=np.float32)[:, None]
    model = measure(image, beam_covariance)
    assert np.abs(model.acf - shape_gaussian(beam_covariance, model.lag)).max() < 0.03


def test_sidelobes_of_the_noise_are_kept(make_noise, beam_covariance):
    """Noise with a negative ring, which no Gaussian has."""
    narrow = make_noise((768, 768), beam_covariance / 2, 17)
    spectrum = np.fft.fft2(narrow)
    fy, fx = np.fft.fftfreq(768)[:, None], np.fft.fftfreq(768)
    ring = spectrum * (1 - 0.9 * np.exp(-0.5 * (fy**2 + fx**2) / 0.03**2))
    power = np.abs(ring) ** 2
    image = np.fft.ifft2(ring).real
    image = (image / image.std()).astype(np.float32)
    model = measure(image, beam_covariance)
    index = np.arange(-model.lag, model.lag + 1)
    truth = np.fft.ifft2(power).real[np.ix_(index, index)]
    truth /= truth.max()
    assert truth.min() < -0.03
    near = shape_gaussian(beam_covariance, model.lag) > 0.02
    assert np.abs(model.acf - truth)[near].max() < 0.06
    assert model.acf.min() < -0.02


@pytest.mark.parametrize("seed", range(6))
def test_it_is_symmetric_and_positive_semi_definite(make_noise, beam_covariance, seed):
    kernel = [np.eye(2) * 0.01, beam_covariance / 2, beam_covariance, np.diag([9.0, 0.3])][seed % 4]
    model = measure(make_noise((200, 260), kernel, seed), beam_covariance)
    acf, k = model.acf, model.lag
    assert acf.shape == (2 * k + 1, 2 * k + 1)
    assert acf[k, k] == 1.0
    assert np.array_equal(acf, acf[::-1, ::-1])
    assert np.abs(acf).max() <= 1.0
    assert least_power(acf) > -2e-4
    assert least_power(shape_gaussian(beam_covariance, k) > 0.5) < -0.05  # the check can fail


def test_without_patches_the_beam_is_the_answer(beam_covariance):
    model = combine_patches([], beam_covariance)
    assert model.source == "beam"
    assert model.n_patches == 0
    assert np.abs(model.acf - shape_gaussian(beam_covariance, model.lag)).max() < 0.01
    assert model.to_summary()["rms"] is None


def test_little_sky_is_blended_with_the_beam(make_noise, beam_covariance):
    """Sixty beams of noise wider than the beam: between the two."""
    image = make_noise((48, 48), beam_covariance, 18)
    model = combine_patches(
        [p for p in [measure_patch(image, (0, 0), beam_covariance)] if p is not None], beam_covariance
    )
    assert model.source == "blended"
    k = model.lag
    beam = shape_gaussian(beam_covariance, k)[k, k + 2]
    twice = shape_gaussian(2 * beam_covariance, k)[k, k + 2]
    assert beam < model.acf[k, k + 2] < twice + 0.02


@pytest.mark.parametrize("value", [np.nan, 0.0, 1.5])
def test_patches_without_noise_are_left_out(beam_covariance, value):
    assert measure_patch(np.full((128, 128), value, np.float32), (0, 0), beam_covariance) is None


def test_the_lag_covers_the_beam():
    assert choose_lag(np.diag([4.0, 1.0])) == int(np.ceil(2.5 * 2 * 2.3548))
    assert choose_lag(np.diag([1e-3, 1e-3])) == 2
