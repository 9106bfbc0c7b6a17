"""Robust widths, reference offsets and residuals."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.validation.astrometry import compare_with_reference
from survey_ml.validation.pulls import measure_pulls, measure_spread, measure_width
from survey_ml.validation.residual import measure_madfm


def test_width_of_a_normal_sample_is_sigma_and_outliers_do_not_count():
    sample = np.random.default_rng(0).normal(2.0, 3.0, 20000)
    assert measure_width(sample) == pytest.approx(3.0, rel=0.03)
    sample[:100] = 1e6
    assert measure_width(sample) == pytest.approx(3.0, rel=0.04)


def test_bootstrap_intervals_cover_the_truth():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        spread = measure_spread(rng.normal(0.0, 1.0, 300))
        covered += spread.width_low <= 1.0 <= spread.width_high
    assert covered >= 50
    assert measure_spread([1.0, np.nan, 2.0]).n == 2
    assert np.isnan(measure_spread([1.0, np.nan, 2.0]).width)


def test_pulls_show_wrong_errors_in_their_bin():
    rng = np.random.default_rng(4)
    snr = rng.uniform(5, 20, 8000)
    true = np.ones(8000)
    measured = true + rng.normal(0, 1 / snr)
    error = np.where(snr < 10, 1 / snr, 0.5 / snr)  # half of what it is above 10
    low, high = measure_pulls(measured, true, error, snr, (5, 10, 20))
    assert low.spread.width == pytest.approx(1.0, abs=0.06)
    assert high.spread.width == pytest.approx(2.0, abs=0.1)
    assert low.spread.n + high.spread.n == 8000


def test_offsets_and_ratios_against_a_reference():
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(10, 11, 400), rng.uniform(59, 60, 400)
    reference = {"ra": ra, "dec": dec, "peak_flux": np.ones(400)}
    shifted = {
        "ra": ra
        + 0.5 / 3600 / np.cos(np.radians(dec))
        + rng.normal(0, 0.1, 400) / 3600 / np.cos(np.radians(dec)),
        "dec": dec - 0.3 / 3600 + rng.normal(0, 0.1, 400) / 3600,
        "peak_flux": np.full(400, 0.9),
    }
    result = compare_with_reference(shifted, reference, radius=3.0)
    assert len(result.first) >= 398
    assert result.east.median == pytest.approx(0.5, abs=0.02)
    assert result.north.median == pytest.approx(-0.3, abs=0.02)
    assert result.north.width == pytest.approx(0.1, abs=0.02)
    assert result.ratio.median == pytest.approx(0.9)
    del reference["peak_flux"]
    assert np.isnan(compare_with_reference(shifted, reference, radius=3.0).flux_ratio).all()


def test_madfm_is_sigma_of_noise_whatever_the_sources():
    residual = np.random.default_rng(6).normal(0.1, 2.0, (300, 300))
    residual[:5] = np.nan
    residual[10, :50] = 1e5
    assert measure_madfm(residual) == pytest.approx(2.0, rel=0.03)
    assert np.isnan(measure_madfm(np.full(3, np.nan)))
