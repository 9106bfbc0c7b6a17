"""Sets cover what they promise: on draws, for any model, and under a shift of the classes' shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import betabinom, binom

from survey_ml.errors import ConfigError, SurveyMLError
from survey_ml.learning.conformal import estimate_shares, find_limits, find_sets, score_labels


def draw(n, shares, rng, power=1.0):
    """Return probabilities of a model of classes that are not equally hard, and labels."""
    centres, width = np.array([0.0, 1.5, 4.0])[: len(shares)], np.array([0.5, 1.5, 1.0])[: len(shares)]
    labels = rng.choice(len(shares), size=n, p=shares)
    seen = rng.normal(centres[labels], width[labels])
    logits = -0.5 * ((seen[:, None] - centres) / width) ** 2 - np.log(width)
    return softmax(power * logits, axis=1), labels


def cover(shares, coverage, guarantee, n, *, tried=None, wanted=None, repeats=200, power=1.0, seed=0):
    """Return which sets (repeats, 1) of a fresh source hold its class, and the classes."""
    rng = np.random.default_rng(seed)
    held, truth = [], []
    for _ in range(repeats):
        known, labels = draw(n, shares, rng, power)
        fresh, true = draw(20, tried or shares, rng, power)
        sets = find_sets(
            fresh, score_labels(known, labels), labels, coverage, guarantee=guarantee, shares=wanted
        )
        held.append(sets[np.arange(20), true])
        truth.append(true)
    return np.concatenate(held), np.concatenate(truth)


@given(
    st.sampled_from([0.5, 0.8, 0.9]),
    st.integers(19, 60),
    st.floats(0.2, 5.0),
    st.integers(0, 10_000),
)
@settings(max_examples=15, deadline=None)
def test_coverage_holds_for_any_model_on_exchangeable_draws(coverage, n, power, seed):
    # The coverage of one calibration is Beta (k, n + 1 - k) with k = ceil((n + 1) coverage); of one source
    # with a calibration of its own it is a coin with the mean of that.
    rng = np.random.default_rng(seed)
    known, labels = draw(300 * (n + 1), [0.3, 0.7], rng, power)
    scores = score_labels(known, labels).reshape(300, n + 1)
    labels, known = labels.reshape(300, n + 1), known.reshape(300, n + 1, 2)
    held = 0
    for k in range(300):
        sets = find_sets(known[k, :1], scores[k, 1:], labels[k, 1:], coverage, guarantee="marginal")
        held += int(sets[0, labels[k, 0]])
    expected = np.ceil((n + 1) * coverage - 1e-9) / (n + 1)
    assert binom.ppf(1e-6, 300, expected) <= held <= binom.ppf(1.0 - 1e-6, 300, expected)


def test_coverage_of_one_calibration_scatters_as_theory_says():
    rng = np.random.default_rng(1)
    held = []
    for _ in range(400):
        known, labels = draw(50, [0.5, 0.5], rng)
        fresh, true = draw(100, [0.5, 0.5], rng)
        sets = find_sets(fresh, score_labels(known, labels), labels, 0.9, guarantee="marginal")
        held.append(sets[np.arange(100), true].sum())
    theory = betabinom(100, 46, 5)  # rank ceil(51 x 0.9) = 46 of 50
    assert np.mean(held) == pytest.approx(theory.mean(), abs=4.0 * theory.std() / 20.0)
    assert np.std(held) == pytest.approx(theory.std(), rel=0.15)


def test_each_class_is_covered_where_it_was_promised():
    held, true = cover([0.3, 0.7], 0.9, "class-conditional", 300)
    for k in (0, 1):
        assert held[true == k].mean() == pytest.approx(0.9, abs=0.03)
    held, true = cover([0.3, 0.7], 0.9, "marginal", 300)
    assert held.mean() == pytest.approx(0.9, abs=0.02)
    assert abs(held[true == 0].mean() - 0.9) > 0.05  # which the marginal promise does not exclude


@pytest.mark.parametrize("wanted", [[0.1, 0.9], [1.0, 9.0]])
def test_weights_restore_what_a_shift_of_shares_takes(wanted):
    shift = {"tried": [0.1, 0.9], "seed": 3}
    plain, _ = cover([0.9, 0.1], 0.9, "marginal", 300, **shift)
    weighted, _ = cover([0.9, 0.1], 0.9, "weighted", 300, wanted=wanted, **shift)
    classwise, _ = cover([0.9, 0.1], 0.9, "class-conditional", 300, **shift)
    assert plain.mean() < 0.8
    assert weighted.mean() == pytest.approx(0.9, abs=0.03)
    assert classwise.mean() == pytest.approx(0.9, abs=0.04)


def test_limits_by_hand():
    scores, labels = np.arange(1, 10) / 10, np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    # Rank ceil(10 x 0.8) = 8 of nine; ceil(6 x 0.8) = 5 of five; ceil(5 x 0.8) = 4 of four.
    assert find_limits(scores, labels, 2, 0.8, guarantee="marginal") == pytest.approx([0.8, 0.8])
    assert find_limits(scores, labels, 2, 0.8) == pytest.approx([0.5, 0.9])
    # Nine images cannot promise more than 0.9, five not more than 5/6.
    assert find_limits(scores, labels, 2, 0.91, guarantee="marginal") == pytest.approx([np.inf, np.inf])
    assert find_limits(scores, labels, 2, 0.83)[0] == pytest.approx(0.5)
    assert find_limits(scores, labels, 2, 0.84)[0] == np.inf
    # Weights 0.5 / (5/9) = 0.9 and 0.5 / (4/9) = 1.125, together 9, and that of the class itself: 0.55 of
    # 9.9 is 5.445 and of 10.125 5.569, reached by 4.5 + 1.125.
    limits = find_limits(scores, labels, 2, 0.55, guarantee="weighted", shares=[0.5, 0.5])
    assert limits == pytest.approx([0.6, 0.6])


def test_weights_of_the_same_shares_are_the_marginal_sets():
    rng = np.random.default_rng(0)
    known, labels = draw(97, [0.5, 0.5], rng)
    scores = score_labels(known, labels)
    for coverage in (0.1, 0.55, 0.8, 0.9, 0.95):
        same = find_limits(scores, labels, 2, coverage, guarantee="weighted", shares=np.bincount(labels) / 97)
        assert same == pytest.approx(find_limits(scores, labels, 2, coverage, guarantee="marginal"))


def test_rounding_does_not_ask_for_one_image_more():
    scores, labels = np.arange(1, 100) / 100, np.zeros(99, int)
    assert 100 * 0.55 > 55
    assert find_limits(scores, labels, 2, 0.55, guarantee="marginal")[0] == pytest.approx(0.55)


def test_classes_without_images_are_never_excluded():
    scores, labels = np.full(50, 0.1), np.zeros(50, int)
    sure = [[1.0, 0.0]]
    assert find_sets(sure, scores, labels, 0.9).tolist() == [[True, True]]
    weighted = {"guarantee": "weighted", "shares": [0.5, 0.5]}
    assert find_sets(sure, scores, labels, 0.9, **weighted).tolist() == [[True, True]]
    assert find_sets(sure, scores, labels, 0.9, guarantee="weighted", shares=[1, 0]).tolist() == [
        [True, False]
    ]
    assert find_sets(sure, [], [], 0.9, guarantee="marginal").all()


def test_a_set_may_be_empty_or_full():
    labels = np.tile([0, 1], 50)
    sets = find_sets([[0.5, 0.5], [0.95, 0.05]], np.full(100, 0.1), labels, 0.9)
    assert sets.tolist() == [[False, False], [True, False]]
    assert find_sets([[0.5, 0.5]], np.full(100, 0.6), labels, 0.9).all()


@pytest.mark.parametrize("shares", [[0.1, 0.9], [0.6, 0.4], [0.2, 0.3, 0.5], [0.0, 0.5, 0.5]])
@pytest.mark.parametrize("power", [1.0, 3.0])
def test_shares_are_found_again_by_a_model_that_need_not_be_calibrated(shares, power):
    rng = np.random.default_rng(6)
    known, labels = draw(4000, np.full(len(shares), 1 / len(shares)), rng, power)
    survey, _ = draw(20000, shares, rng, power)
    found = estimate_shares(survey, known, labels)
    assert found == pytest.approx(shares, abs=0.04)
    assert found.sum() == pytest.approx(1.0) and (found >= 0.0).all()


def test_shares_of_a_perfect_model_are_counts():
    survey = np.eye(3)[[0, 0, 1, 2, 2, 2]]
    assert estimate_shares(survey, np.eye(3), [0, 1, 2]) == pytest.approx([2 / 6, 1 / 6, 3 / 6])


def test_what_cannot_be_done_says_why():
    scores, labels = np.full(10, 0.1), np.zeros(10, int)
    for coverage in (0.0, 1.0, np.nan):
        with pytest.raises(ConfigError, match="coverage"):
            find_limits(scores, labels, 2, coverage)
    with pytest.raises(ConfigError, match="no guarantee"):
        find_limits(scores, labels, 2, 0.9, guarantee="any")
    with pytest.raises(SurveyMLError, match="shares"):
        find_limits(scores, labels, 2, 0.9, guarantee="weighted")
    for shares in ([0.5], [-0.1, 1.1], [0.0, 0.0], [np.nan, 1.0]):
        with pytest.raises(SurveyMLError, match="no shares"):
            find_limits(scores, labels, 2, 0.9, guarantee="weighted", shares=shares)
    with pytest.raises(SurveyMLError, match="labels"):
        find_limits(scores, labels[:5], 2, 0.9)
    with pytest.raises(SurveyMLError, match="labels from 0 to 3"):
        find_limits(scores, labels + [0, 3] * 5, 2, 0.9)
    flat = np.full((6, 2), 0.5)
    with pytest.raises(SurveyMLError, match="same probabilities"):
        estimate_shares(flat, flat, [0, 1] * 3)
    with pytest.raises(SurveyMLError, match="of class 1"):
        estimate_shares(flat, flat, [0] * 6)
    with pytest.raises(SurveyMLError, match="without sources"):
        estimate_shares(flat[:0], flat, [0, 1] * 3)
