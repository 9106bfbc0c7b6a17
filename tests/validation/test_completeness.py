"""Shares, their intervals, and catalogues against a truth."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.errors import InputError
from survey_ml.validation.completeness import compare_with_truth, measure_share, measure_shares

ARCSEC = 1 / 3600


def test_wilson_interval():
    share = measure_share([True] * 9 + [False])
    assert (share.value, share.k, share.n) == (0.9, 9, 10)
    assert (share.low, share.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert measure_share([True] * 4).high == 1.0
    assert np.isnan(measure_share([]).value)


def test_intervals_cover_what_they_say():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(500):
        share = measure_share(rng.random(60) < 0.9)
        covered += share.low <= 0.9 <= share.high
    assert 0.92 <= covered / 500 <= 0.98


def test_bins_are_half_open():
    bins = measure_shares([True, False, True], [5.0, 6.0, 7.0], (5.0, 7.0, np.inf))
    assert [(b.low, b.high, b.share.k, b.share.n) for b in bins] == [(5.0, 7.0, 1, 2), (7.0, np.inf, 1, 1)]


def make_truth(**more):
    return {
        "ra": np.array([10.0, 10.01, 10.02]),
        "dec": np.zeros(3),
        "snr": np.array([50.0, 8.0, 1.0]),
        **more,
    }


def test_points_are_matched_one_to_one():
    catalogue = {
        "ra": np.array([10.0, 10.0 + 1 * ARCSEC, 10.02]),
        "dec": np.zeros(3),
        "snr": np.array([49.0, 6.0, 5.0]),
    }
    result = compare_with_truth(catalogue, make_truth(), radius=3.0)
    assert result.found.tolist() == [True, False, False]
    # One component too many for a point, and a noise peak on a source below 2 sigma: both unreal.
    assert result.real.tolist() == [True, False, False]
    assert result.total_reliability.value == pytest.approx(1 / 3)
    assert {b.low: (b.share.k, b.share.n) for b in result.completeness} == {7.0: (0, 1), 50.0: (1, 1)}


def test_an_extended_source_may_break_up():
    catalogue = {
        "ra": np.array([10.0 - 20 * ARCSEC, 10.0 + 20 * ARCSEC, 10.01]),
        "dec": np.zeros(3),
        "snr": np.array([20.0, 20.0, 8.0]),
    }
    truth = make_truth(extent=np.array([30.0, 0.0, 0.0]))
    result = compare_with_truth(catalogue, truth, radius=3.0)
    assert result.real.all()
    assert result.found.tolist() == [True, True, False]


def test_peak_and_rms_do_instead_of_snr():
    truth = make_truth(peak_flux=np.array([5e-3, 8e-4, 1e-4]), local_rms=np.full(3, 1e-4))
    del truth["snr"]
    catalogue = {"ra": np.array([10.0]), "dec": np.zeros(1), "snr": np.array([50.0])}
    assert compare_with_truth(catalogue, truth, radius=3.0).found.tolist() == [True, False, False]


def test_a_missing_column_is_named():
    with pytest.raises(InputError, match="peak_flux"):
        compare_with_truth(
            {"ra": np.zeros(1), "dec": np.zeros(1), "snr": np.ones(1)},
            {"ra": np.zeros(1), "dec": np.zeros(1)},
            radius=1.0,
        )


def test_an_empty_catalogue_finds_nothing():
    nothing = {name: np.empty(0) for name in ("ra", "dec", "snr")}
    result = compare_with_truth(nothing, make_truth(), radius=3.0)
    assert not result.found.any()
    assert np.isnan(result.total_reliability.value)
