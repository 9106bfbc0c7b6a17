"""Calibrators find known distortions again, and isotonic ones the best rising line."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from survey_ml.errors import SurveyMLError
from survey_ml.learning.calibration import Calibrator, fit_calibrator
from survey_ml.learning.reliability import measure_nll

METHODS = ("temperature", "vector", "isotonic")


def draw(n, n_classes=3, spread=2.0, seed=0):
    """Return true probabilities and labels drawn from them."""
    rng = np.random.default_rng(seed)
    true = softmax(rng.normal(size=(n, n_classes)) * spread, axis=1)
    return true, (rng.random((n, 1)) > np.cumsum(true, axis=1)[:, :-1]).sum(axis=1)


def test_temperature_is_found_again():
    true, labels = draw(20000)
    made = fit_calibrator(softmax(np.log(true) * 2.5, axis=1), labels, "temperature")
    assert made.scale == pytest.approx((0.4,) * 3, rel=0.05)
    assert made.shift == (0.0,) * 3


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_vector_scaling_undoes_a_known_distortion(n_classes):
    scale, shift = np.linspace(0.5, 1.5, n_classes), np.linspace(-0.6, 0.6, n_classes)
    # What calibration gives is softmax(scale log p + shift): a model for which that is the truth.
    model = draw(20000, n_classes, seed=1)[0]
    rng = np.random.default_rng(2)
    true = softmax(np.log(model) * scale + shift, axis=1)
    labels = (rng.random((20000, 1)) > np.cumsum(true, axis=1)[:, :-1]).sum(axis=1)
    made = fit_calibrator(model, labels, "vector")
    assert made.scale == pytest.approx(scale, abs=0.08)
    assert made.shift == pytest.approx(shift, abs=0.08)
    assert made.apply(model) == pytest.approx(true, abs=0.03)


def test_vector_scaling_is_at_the_minimum():
    true, labels = draw(400, seed=3)
    model = softmax(2.0 * np.log(true) + [0.5, 0.0, -0.5], axis=1)
    made = fit_calibrator(model, labels, "vector")

    def lose(scale, shift):
        scores = log_softmax(np.log(model) * scale + shift, axis=1)
        prior = (((scale - 1.0) / 3.0) ** 2).sum() / 2.0 + ((shift / 3.0) ** 2).sum() / 2.0
        return prior - scores[np.arange(400), labels].sum()

    scale, shift = np.array(made.scale), np.array(made.shift)
    best = lose(scale, shift)
    for k, step in itertools.product(range(3), (-0.02, 0.02)):
        assert lose(scale + step * np.eye(3)[k], shift) > best
        assert lose(scale, shift + step * np.eye(3)[k]) > best


def fit_by_force(values, true):
    """Return the best rising line at sorted values: of all ways to cut them into steps, the least squares."""
    places = np.unique(values)
    best, line = np.inf, None
    for cuts in itertools.product([False, True], repeat=len(places) - 1):
        step = np.concatenate([[0], np.cumsum(cuts)])[np.searchsorted(places, values)]
        means = np.array([true[step == k].mean() for k in range(step.max() + 1)])
        if (np.diff(means) >= 0).all() and (loss := ((true - means[step]) ** 2).sum()) < best - 1e-12:
            best, line = loss, means[np.searchsorted(np.unique(step), step)]
    return line


@pytest.mark.parametrize("seed", range(6))
def test_isotonic_is_the_best_rising_line(seed):
    rng = np.random.default_rng(seed)
    values = np.round(rng.random(14), 1)  # with ties
    true = (rng.random(14) < values).astype(float)
    made = fit_calibrator(np.stack([1.0 - values, values], axis=1), true.astype(int), "isotonic")
    expected = np.clip(fit_by_force(values, true), 1 / 16, 15 / 16)
    assert np.interp(values, *made.knots[1]) == pytest.approx(expected)


def test_isotonic_calibrates_what_a_temperature_cannot():
    true, labels = draw(20000, 2)
    # Rising, but crooked: no power of the odds.
    bent = true + 0.14 * np.sin(4.0 * np.pi * true) / 2.0
    off = {}
    for method in METHODS:
        made = fit_calibrator(bent[:15000], labels[:15000], method)
        off[method] = np.abs(made.apply(bent[15000:]) - true[15000:]).mean()
    assert off["isotonic"] < 0.02 < off["temperature"]


@pytest.mark.parametrize("method", METHODS)
def test_calibration_improves_a_model_that_is_too_sure(method):
    true, labels = draw(3000)
    model = softmax(np.log(true) * 3.0, axis=1)
    made = fit_calibrator(model[:1500], labels[:1500], method)
    after = made.apply(model[1500:])
    assert after.sum(axis=1) == pytest.approx(1.0)
    assert measure_nll(after, labels[1500:]).value < measure_nll(model[1500:], labels[1500:]).value - 0.1


@pytest.mark.parametrize("method", METHODS)
def test_numbers_survive_json_and_rows_are_on_their_own(method):
    true, labels = draw(200)
    made = fit_calibrator(true.astype(np.float32), labels, method)
    plain = json.loads(json.dumps(asdict(made)))
    again = Calibrator(
        plain["method"], tuple(plain["scale"]), tuple(plain["shift"]),
        tuple((tuple(before), tuple(after)) for before, after in plain["knots"]),
    )  # fmt: skip
    assert again == made
    whole = made.apply(true)
    assert np.array_equal(whole, np.concatenate([made.apply(row[None]) for row in true]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 30])
def test_faultless_images_give_finite_numbers(method, n):
    labels = np.arange(n) % 2
    model = np.eye(2)[labels]
    after = fit_calibrator(model, labels, method).apply(np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    assert np.isfinite(after).all()
    assert after.sum(axis=1) == pytest.approx(1.0)
    if method == "isotonic":
        assert (after > 0.0).all()


@pytest.mark.parametrize(
    "numbers",
    [
        {"method": "else", "scale": (1.0, 1.0), "shift": (0.0, 0.0)},
        {"method": "vector", "scale": (1.0, 1.0), "shift": (0.0,)},
        {"method": "vector", "scale": (1.0, -1.0), "shift": (0.0, 0.0)},
        {"method": "temperature", "scale": (1.0, float("nan")), "shift": (0.0, 0.0)},
        {"method": "temperature"},
        {"method": "isotonic"},
        {"method": "isotonic", "knots": (((0.0, 1.0), (0.1, 0.9)), ((0.0,), (0.1, 0.9)))},
        {"method": "isotonic", "knots": (((1.0, 0.0), (0.1, 0.9)), ((0.0, 1.0), (0.1, 0.9)))},
        {"method": "isotonic", "knots": (((0.0, 1.0), (0.9, 0.1)), ((0.0, 1.0), (0.1, 0.9)))},
        {"method": "isotonic", "knots": (((0.0, 1.0), (0.0, 0.9)), ((0.0, 1.0), (0.1, 0.9)))},
    ],
)
def test_numbers_that_do_not_belong_together_are_refused(numbers):
    with pytest.raises(SurveyMLError, match="calibrator"):
        Calibrator(**numbers)


def test_what_cannot_be_calibrated_is_refused():
    made = Calibrator("temperature", (1.0, 1.0), (0.0, 0.0))
    with pytest.raises(SurveyMLError, match="2 classes"):
        made.apply(np.ones((4, 3)) / 3)
    with pytest.raises(SurveyMLError, match="cannot be calibrated"):
        fit_calibrator(np.ones((0, 2)), [], "vector")
    with pytest.raises(SurveyMLError, match="no calibration 'platt'"):
        fit_calibrator(np.ones((2, 2)) / 2, [0, 1], "platt")
