"""Calibration errors by hand, and intervals that hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from survey_ml.learning.reliability import (
    bootstrap_mean,
    find_reliability,
    measure_brier,
    measure_ece,
    measure_nll,
    measure_uce,
    tabulate_reliability,
)
from survey_ml.learning.scores import measure_calibration

RNG = np.random.default_rng(2)
CHANCE = RNG.random(500)
LABELS = (RNG.random(500) < CHANCE).astype(int)
PROBABILITIES = np.stack([1.0 - CHANCE, CHANCE], axis=1)


def test_binary_uce_by_hand():
    # Bins of 1/8: the first two lie in bin 1, the next two in bin 6, the last in bin 7.
    uncertainty = [0.15, 0.20, 0.80, 0.85, 1.0]
    wrong = [0, 1, 1, 0, 0]
    # Bin 1: 2 x 0.5 - 0.175; bin 6: 2 x 0.5 - 0.825; bin 7: 2 x 0 - 1.
    expected = 2 / 5 * 0.825 + 2 / 5 * 0.175 + 1 / 5 * 1.0
    assert measure_uce(uncertainty, wrong, 2).value == pytest.approx(expected, abs=1e-12)
    # The share of posterior samples that are wrong in place of the label.
    assert measure_uce([0.3], [0.15], 2).value == pytest.approx(0.0, abs=1e-12)


def test_guessing_is_calibrated_for_any_number_of_classes():
    for n_classes in (2, 3, 5):
        wrong = np.arange(n_classes * 10) % n_classes > 0
        assert measure_uce(np.ones(len(wrong)), wrong, n_classes).value == pytest.approx(0.0, abs=1e-12)


def test_ece_is_the_one_without_an_interval():
    found = measure_ece(PROBABILITIES, LABELS)
    assert found.value == pytest.approx(measure_calibration(PROBABILITIES, LABELS))
    assert measure_ece(PROBABILITIES, LABELS) == found
    sure = np.tile([1.0, 0.0], (10, 1))
    assert measure_ece(sure, [0, 1] * 5).value == pytest.approx(0.5)


@pytest.mark.parametrize(("power", "n"), [(1.0, 104), (2.0, 104), (1.0, 400)])
def test_interval_of_the_ece_holds_the_true_one(power, n):
    rng = np.random.default_rng(4)

    def draw(many):
        logits = rng.normal(size=many) * 2.5
        true = 1.0 / (1.0 + np.exp(-logits))
        stated = 1.0 / (1.0 + np.exp(-logits * power))
        return np.stack([1.0 - stated, stated], axis=1), (rng.random(many) < true).astype(int)

    true = 0.0 if power == 1.0 else measure_calibration(*draw(400000))
    found = [measure_ece(*draw(n), draws=200) for _ in range(100)]
    held = sum(score.low <= true <= score.high for score in found)
    assert held >= 85  # 95 are wanted; 0 and 92 of a hundred with percentiles of the bootstrap
    assert all(score.low <= score.value <= score.high for score in found)


def test_brier_and_likelihood_are_those_of_scikit_learn():
    brier = measure_brier(PROBABILITIES, LABELS)
    assert brier.value == pytest.approx(2.0 * brier_score_loss(LABELS, CHANCE))
    nll = measure_nll(PROBABILITIES, LABELS)
    assert nll.value == pytest.approx(log_loss(LABELS, PROBABILITIES))
    for score in (brier, nll):
        assert score.low < score.value < score.high and score.n == 500
    assert np.isfinite(measure_nll([[1.0, 0.0]], [1]).value)


def test_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(1).normal(size=400)
    found = bootstrap_mean(values)
    half = 1.96 * values.std() / 20.0
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_reliability_diagram_adds_up_to_the_ece():
    bars = find_reliability(PROBABILITIES, LABELS)
    assert [bar.low for bar in bars] == pytest.approx(np.arange(8) / 8)
    full = [bar for bar in bars if bar.accuracy.n]
    assert sum(bar.accuracy.n for bar in full) == 500
    assert all(bar.low <= bar.confidence <= bar.high for bar in full)
    # The largest of two is never below a half.
    assert [bar.accuracy.n for bar in bars[:4]] == [0, 0, 0, 0] and np.isnan(bars[0].confidence)
    gaps = sum(bar.accuracy.n * abs(bar.accuracy.value - bar.confidence) for bar in full) / 500
    assert gaps == pytest.approx(measure_ece(PROBABILITIES, LABELS).value)
    lone = find_reliability([[0.02, 0.98]], [1])[-1].accuracy
    assert lone.value == 1.0 and lone.low < 0.5


def test_table_has_a_row_for_each_population():
    wrong = PROBABILITIES.argmax(axis=1) != LABELS
    masks = {"all": np.ones(500, bool), "wrong": wrong, "none": np.zeros(500, bool)}
    unsure = 2.0 * PROBABILITIES.min(axis=1)
    table = tabulate_reliability(PROBABILITIES, LABELS, masks, {"doubt": unsure}, draws=50)
    assert list(table) == ["all", "wrong", "none"]
    assert table["all"]["ece"] == measure_ece(PROBABILITIES, LABELS, draws=50)
    assert table["all"]["uce doubt"] == measure_uce(unsure, wrong, 2, draws=50)
    assert table["wrong"]["accuracy"].value == 0.0
    assert table["wrong"]["ece"].value > table["all"]["ece"].value + 0.3
    assert all(score.n == 0 and np.isnan(score.value) for score in table["none"].values())
    given = tabulate_reliability(PROBABILITIES, LABELS, masks, {"doubt": unsure}, np.zeros(500), draws=50)
    assert given["all"]["uce doubt"].value == pytest.approx(unsure.mean())
