"""Shares of classes on draws from a known mix, with intervals that hold what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from survey_ml.errors import SurveyMLError
from survey_ml.learning.label_shift import estimate_label_shift, find_shares, reweight
from survey_ml.learning.temperature_bias import correct, fit_corrections

CENTRES = np.array([0.0, 2.0, 4.5])


def draw(n, shares, rng, power=1.0, bias=0.0):
    """Return probabilities of a model that expects equal shares, and labels."""
    centres = CENTRES[: len(shares)]
    labels = rng.choice(len(shares), size=n, p=shares)
    seen = rng.normal(centres[labels], 1.0)
    logits = -0.5 * (seen[:, None] - centres) ** 2
    logits[:, 0] += bias
    return softmax(power * logits, axis=1), labels


@pytest.mark.parametrize("shares", [[0.05, 0.95], [0.3, 0.7], [0.1, 0.2, 0.7], [0.0, 1.0]])
@pytest.mark.parametrize(("power", "bias"), [(1.0, 0.0), (3.0, 1.0), (0.5, -0.5)])
def test_shares_are_found_again_by_a_model_that_is_too_sure_or_leans(shares, power, bias):
    rng = np.random.default_rng(1)
    known, labels = draw(4000, np.full(len(shares), 1 / len(shares)), rng, power, bias)
    survey, _ = draw(8000, shares, rng, power, bias)
    found = estimate_label_shift(survey, known, labels, draws=20)
    assert found.shares == pytest.approx(shares, abs=0.03)
    assert found.check == pytest.approx(shares, abs=0.05)
    assert found.shares.sum() == pytest.approx(1.0)
    assert found.counts == pytest.approx(8000 * found.shares)
    assert (found.low <= found.high).all() and (found.counts_low <= found.counts_high).all()


def test_em_reaches_the_largest_likelihood():
    rng = np.random.default_rng(0)
    survey, _ = draw(500, [0.2, 0.8], rng)
    found = find_shares(survey, np.array([0.5, 0.5]))
    grid = np.linspace(0.0, 1.0, 20001)[1:-1]
    likely = np.log(np.outer(survey[:, 0], grid) + np.outer(survey[:, 1], 1.0 - grid)).sum(axis=0)
    assert found[0] == pytest.approx(grid[likely.argmax()], abs=2e-4)


def test_the_correction_is_a_logistic_regression():
    rng = np.random.default_rng(0)
    known, labels = draw(3000, [0.5, 0.5], rng, 2.0, 0.7)
    scale, shift = fit_corrections(known, labels, np.ones((1, 3000)))
    logit = np.log(known[:, 1] / known[:, 0])[:, None]
    model = LogisticRegression(C=1e6, tol=1e-8).fit(logit, labels)
    assert scale[0] == pytest.approx(model.coef_[0, 0], rel=0.01)
    assert shift[0, 1] - shift[0, 0] == pytest.approx(model.intercept_[0], abs=0.01)
    assert scale[0] == pytest.approx(0.5, abs=0.05)


def test_many_fits_are_those_of_one_each():
    rng = np.random.default_rng(0)
    known, labels = draw(200, [0.3, 0.3, 0.4], rng)
    weights = rng.multinomial(200, np.full(200, 1 / 200), size=5).astype(float)
    scale, shift = fit_corrections(known, labels, weights)
    for k, row in enumerate(weights):
        repeated = np.repeat(np.arange(200), row.astype(int))
        one = fit_corrections(known[repeated], labels[repeated], np.ones((1, len(repeated))))
        assert scale[k] == pytest.approx(one[0][0], abs=1e-5)
        assert shift[k] == pytest.approx(one[1][0], abs=1e-5)


def test_corrected_probabilities_add_up_to_the_classes():
    rng = np.random.default_rng(0)
    known, labels = draw(2000, [0.2, 0.3, 0.5], rng, 2.0, 1.0)
    scale, shift = fit_corrections(known, labels, np.ones((1, 2000)))
    made = correct(known, scale[0], shift[0])
    assert made.mean(axis=0) == pytest.approx(np.bincount(labels) / 2000, abs=2e-3)
    loss = -log_softmax(np.log(made), axis=1)[np.arange(2000), labels].mean()
    assert loss < -np.log(known[np.arange(2000), labels]).mean()


def test_images_that_are_told_apart_without_a_fault_keep_numbers_finite():
    sure = np.array([[1.0, 0.0], [0.0, 1.0]] * 20)
    found = estimate_label_shift(sure[:10], sure, [0, 1] * 20)
    assert found.shares == pytest.approx([0.5, 0.5], abs=1e-3)
    one = estimate_label_shift(np.tile([[1.0, 0.0]], (30, 1)), sure, [0, 1] * 20)
    assert one.shares == pytest.approx([1.0, 0.0], abs=1e-2)
    assert (one.low[1], one.high[0]) == (0.0, 1.0)
    assert 0.9 < one.low[0] < one.high[0] and one.low[1] < one.high[1] < 0.1


def test_reweighting_is_bayes():
    assert reweight([[0.5, 0.5]], [0.5, 0.5], [0.2, 0.8]) == pytest.approx(np.array([[0.2, 0.8]]))
    assert reweight([[0.9, 0.1]], [0.5, 0.5], [0.1, 0.9]) == pytest.approx(np.array([[0.5, 0.5]]))


def test_reweighting_recovers_accuracy():
    rng = np.random.default_rng(2)
    known, labels = draw(1000, [0.5, 0.5], rng)
    survey, true = draw(2000, [0.03, 0.97], rng)
    found = estimate_label_shift(survey, known, labels, draws=5)
    plain, after = survey.argmax(axis=1) == true, found.reweight(survey).argmax(axis=1) == true
    assert after.mean() > plain.mean() + 0.05


@pytest.mark.parametrize("level", [0.68, 0.95])
def test_intervals_cover_what_they_promise(level):
    rng = np.random.default_rng(5)
    held, counted, repeats = 0, 0, 120
    for number in range(repeats):
        share = rng.uniform(0.1, 0.9)
        known, labels = draw(160, [0.5, 0.5], rng, 2.0, 0.5)
        survey, true = draw(150, [share, 1.0 - share], rng, 2.0, 0.5)
        found = estimate_label_shift(survey, known, labels, level=level, draws=100, seed=number)
        held += int(found.low[0] <= share <= found.high[0])
        counted += int(found.counts_low[0] <= (true == 0).sum() <= found.counts_high[0])
    room = 4.0 * np.sqrt(level * (1.0 - level) / repeats)
    assert held / repeats == pytest.approx(level, abs=room)
    assert counted / repeats == pytest.approx(level, abs=room)


@pytest.mark.parametrize(
    ("survey", "known", "labels", "said"),
    [
        (np.zeros((0, 2)), np.full((4, 2), 0.5), [0, 1, 0, 1], "without sources"),
        (np.full((3, 2), 0.5), np.full((4, 2), 0.5), [0, 0, 0, 0], r"\[4, 0\]"),
        (np.full((3, 2), 0.5), np.full((4, 3), 0.3), [0, 1, 2, 0], "shapes"),
        (np.full((3, 2), 0.5), np.full((4, 2), 0.5), [0, 1], "labels"),
        (np.full((3, 2), np.nan), np.full((4, 2), 0.5), [0, 1, 0, 1], "not finite"),
    ],
)
def test_what_cannot_be_estimated_says_why(survey, known, labels, said):
    with pytest.raises(SurveyMLError, match=said):
        estimate_label_shift(survey, known, labels)
