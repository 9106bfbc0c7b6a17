"""Figures against closed forms and against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student
from sklearn.metrics import confusion_matrix, f1_score, log_loss

from survey_ml.learning import scores

RNG = np.random.default_rng(7)
LABELS = RNG.integers(3, size=200)
LOGITS = RNG.normal(size=(200, 3)) + 2.0 * np.eye(3)[LABELS]
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
PREDICTED = LOGITS.argmax(1)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (99, 104), (104, 104), (1, 2)])
def test_accuracy_has_wilsons_interval(k, n):
    found = scores.measure_accuracy(np.arange(n) < k, np.ones(n, bool))
    low, high = binomtest(k, n).proportion_ci(method="wilson")
    assert (found.value, found.low, found.high, found.n) == pytest.approx((k / n, low, high, n), abs=1e-6)


def test_confusion_and_f1_are_those_of_scikit_learn():
    found = scores.count_confusion(PREDICTED, LABELS, 3)
    assert np.array_equal(found, confusion_matrix(LABELS, PREDICTED))
    macro = scores.measure_macro_f1(PREDICTED, LABELS, 3)
    assert macro.value == pytest.approx(f1_score(LABELS, PREDICTED, average="macro"))
    assert macro.low < macro.value < macro.high and macro.n == 200


def test_loss_is_that_of_scikit_learn():
    assert scores.measure_loss(LOGITS, LABELS) == pytest.approx(log_loss(LABELS, PROBABILITIES))


def test_calibration_of_a_model_that_is_sure_and_wrong_half_the_time():
    probabilities = np.tile([1.0, 0.0], (10, 1))
    assert scores.measure_calibration(probabilities, [0, 1] * 5) == pytest.approx(0.5)
    fair = np.tile([0.75, 0.25], (4, 1))
    assert scores.measure_calibration(fair, [0, 0, 0, 1]) == pytest.approx(0.0)


@pytest.mark.parametrize("true", [0.5, 2.0, 5.0])
def test_temperature_is_found_again(true):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20000, 2)) * 2.0
    chance = 1.0 / (1.0 + np.exp(logits[:, 0] - logits[:, 1]))
    labels = (rng.random(20000) < chance).astype(int)
    assert scores.fit_temperature(logits * true, labels) == pytest.approx(true, rel=0.05)


def test_mean_over_seeds_has_students_interval():
    values = [0.94, 0.96, 0.95]
    found = scores.measure_mean(values)
    low, high = student.interval(0.95, 2, np.mean(values), np.std(values, ddof=1) / 3**0.5)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((0.95, low, high, 3))
    assert np.isnan(scores.measure_mean([0.9]).low)


def test_nothing_to_judge_is_no_number():
    assert np.isnan(scores.measure_accuracy([], []).value)
    assert np.isnan(scores.measure_macro_f1([], [], 2).value)
    assert np.isnan(scores.measure_f1([0], [0], 2)[1])


def test_the_interval_of_a_mean_ends_where_shares_do():
    free, share = scores.measure_mean([0.96, 0.98]), scores.measure_mean([0.96, 0.98], within=(0.0, 1.0))
    assert free.high == pytest.approx(0.97 + 12.706 * 0.01, abs=1e-3)
    assert (share.value, share.low, share.high) == (free.value, free.low, 1.0)
