"""Simulated noise has the variance and the correlation it claims."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.simulation.geometry import make_covariances
from survey_ml.simulation.noise import draw_noise, vary_rms

BEAM = make_covariances(np.array([8.0]), np.array([6.4]), np.array([35.0]), 2.0)[0]


@pytest.mark.parametrize(("correlation", "factor"), [("beam", 1.0), ("psf", 2.0)])
@pytest.mark.parametrize("shape", [(1024, 1024), (900, 1101)])
def test_noise_has_unit_variance_and_the_asked_correlation(correlation, factor, shape):
    noise = draw_noise(np.random.default_rng(3), shape, BEAM, correlation)
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(1.0, abs=0.015)
    inverse = np.linalg.inv(factor * np.array([[BEAM[0], BEAM[1]], [BEAM[1], BEAM[2]]]))
    for dy, dx in [(0, 1), (2, 0), (2, 2), (2, -2), (0, 4), (12, 0)]:
        d = np.array([dx, dy])
        measured = float(np.mean(noise * np.roll(noise, (-dy, -dx), (0, 1))))
        assert measured == pytest.approx(np.exp(-0.5 * d @ inverse @ d), abs=0.02)


def test_beam_and_psf_noise_differ():
    beam, psf = (draw_noise(np.random.default_rng(3), (256, 256), BEAM, c) for c in ("beam", "psf"))
    assert (
        np.corrcoef(beam[:, 1:].ravel(), beam[:, :-1].ravel())[0, 1]
        < np.corrcoef(psf[:, 1:].ravel(), psf[:, :-1].ravel())[0, 1]
    )


def test_rms_varies_between_its_limits():
    rms = vary_rms((300, 400), 20e-6)
    assert rms.shape == (300, 400)
    assert rms.min() >= 0.8 * 20e-6 * (1 - 1e-6)
    assert rms.max() <= 3 * 20e-6 * (1 + 1e-6)
    row, column = 165, 180  # the point (0.45, 0.55), where only the ripple is left
    expected = 1 + 0.15 * np.sin(6 * np.pi * 0.45125) * np.sin(5 * np.pi * 0.5516667)
    assert rms[row, column] == pytest.approx(20e-6 * expected, rel=1e-3)
