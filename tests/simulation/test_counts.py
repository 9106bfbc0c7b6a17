"""Source counts follow the published fit."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.simulation.counts import HOPKINS, draw_fluxes, evaluate_counts


def test_counts_are_the_published_fit_and_flat_below_it():
    flux = np.array([1e-3, 10e-3])
    normalised = evaluate_counts(flux) * flux**2.5
    assert normalised[0] == pytest.approx(10 ** HOPKINS[0])
    assert normalised[1] == pytest.approx(10 ** sum(HOPKINS))
    faint = evaluate_counts(np.array([10e-6, 50e-6])) * np.array([10e-6, 50e-6]) ** 2.5
    assert faint[0] == pytest.approx(faint[1])


def test_draws_have_the_expected_number_and_slope():
    area = 2e-3
    flux = draw_fluxes(np.random.default_rng(0), area)
    assert flux.min() >= 10e-6
    assert flux.max() <= 1.0
    for low, high in [(1e-5, 2e-5), (1e-4, 1e-3), (1e-3, 1.0)]:
        fine = np.geomspace(low, high, 20001)
        expected = np.trapezoid(evaluate_counts(fine), fine) * area
        found = np.count_nonzero((flux >= low) & (flux < high))
        assert abs(found - expected) < 5 * np.sqrt(expected) + 0.002 * expected
