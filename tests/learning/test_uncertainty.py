"""Uncertainties against closed forms, and row by row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr, softmax

from survey_ml.errors import SurveyMLError
from survey_ml.learning import uncertainty
from survey_ml.learning.uncertainty import measure_overlap, measure_uncertainty, normalise_entropy


def draw(n_samples, n, n_classes, scale=3.0, seed=0):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(1, n, n_classes)) * scale
    return softmax(centre + rng.normal(size=(n_samples, n, n_classes)), axis=2)


@given(
    st.integers(1, 40),
    st.integers(2, 5),
    st.floats(0.0, 40.0),
    st.floats(0.0, 5.0),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 1000),
)
@settings(deadline=None)
def test_total_is_aleatoric_and_epistemic(n_samples, n_classes, scale, spread, dtype, seed):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(1, 6, n_classes)) * scale
    samples = softmax(centre + spread * rng.normal(size=(n_samples, 6, n_classes)), axis=2).astype(dtype)
    found = measure_uncertainty(samples)
    assert found.entropy == pytest.approx(found.expected_entropy + found.mutual_information, abs=1e-12)
    assert found.probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-12)
    for part in (found.entropy, found.expected_entropy, found.mutual_information):
        assert (part >= 0.0).all() and (part <= np.log(n_classes) + 1e-12).all()
    assert (found.overlap >= 0.0).all() and (found.overlap <= 1.0 + 1e-12).all()
    assert (found.margin >= 0.0).all() and (found.margin <= 1.0).all()
    assert found.probabilities == pytest.approx(samples.mean(axis=0), abs=1e-6)


def test_parts_are_their_definitions():
    samples = draw(50, 20, 3)
    found = measure_uncertainty(samples)
    mean = samples.mean(axis=0)
    entropy = stats.entropy(mean, axis=1)
    # The mutual information is the mean Kullback-Leibler divergence of the samples from their mean.
    divergence = np.array([stats.entropy(sample, mean, axis=1) for sample in samples]).mean(axis=0)
    assert found.entropy == pytest.approx(entropy, abs=1e-10)
    assert found.mutual_information == pytest.approx(divergence, abs=1e-10)
    assert found.expected_entropy == pytest.approx(stats.entropy(samples, axis=2).mean(axis=0), abs=1e-10)
    ordered = np.sort(mean, axis=1)
    assert found.margin == pytest.approx(ordered[:, -1] - ordered[:, -2])


def test_extremes_by_hand():
    sure = [[1.0, 0.0]] * 4
    unsure = [[0.5, 0.5]] * 4
    at_odds = [[1.0, 0.0], [0.0, 1.0]] * 2
    found = measure_uncertainty(np.swapaxes([sure, unsure, at_odds], 0, 1))
    assert found.entropy == pytest.approx([0.0, np.log(2), np.log(2)], abs=1e-12)
    assert found.expected_entropy == pytest.approx([0.0, np.log(2), 0.0], abs=1e-12)
    assert found.mutual_information == pytest.approx([0.0, 0.0, np.log(2)], abs=1e-12)
    assert found.margin == pytest.approx([1.0, 0.0, 0.0])
    assert found.overlap == pytest.approx([0.0, 1.0, 1.0], abs=1e-5)
    assert normalise_entropy(found.entropy, 2) == pytest.approx([0.0, 1.0, 1.0])
    assert normalise_entropy([np.log(3)], 3) == pytest.approx([1.0])


def test_sure_samples_have_no_negative_information():
    # All samples agree to the last digit or nearly so: the two entropies differ by rounding only.
    rng = np.random.default_rng(3)
    sure = rng.uniform(0.0, 1e-7, size=(1, 5000, 1))
    for jitter in (0.0, 1e-16, 1e-12):
        small = sure + jitter * rng.random((31, 5000, 1))
        samples = np.concatenate([1.0 - small, small], axis=2)
        plain = stats.entropy(samples.mean(axis=0), axis=1) - stats.entropy(samples, axis=2).mean(axis=0)
        found = measure_uncertainty(samples)
        assert (found.mutual_information >= 0.0).all()
        assert (found.expected_entropy >= 0.0).all()
        if jitter < 1e-14:
            assert (plain < 0.0).any()


def test_overlap_of_same_and_disjoint_and_moved_distributions():
    rng = np.random.default_rng(0)
    same = rng.random((5, 200))
    assert measure_overlap(same, same) == pytest.approx(1.0)
    assert measure_overlap(np.zeros((1, 9)), np.ones((1, 9)))[0] < 1e-5
    # Two Gaussians of the kernel's width, far from the ends of the range: 2 Phi(-distance / 2 sigma).
    first, second = np.full((1, 3), 0.42), np.full((1, 3), 0.58)
    expected = 2.0 * ndtr(-0.16 / (2.0 * uncertainty.OVERLAP_WIDTH))
    assert measure_overlap(first, second) == pytest.approx(expected, rel=2e-3)
    assert measure_overlap(first, second) == pytest.approx(measure_overlap(second, first))


def test_overlap_is_that_of_kernels_summed_one_by_one():
    rng = np.random.default_rng(5)
    samples = rng.beta([0.5, 2.0], [1.0, 0.7], size=(60, 2)).T
    grid = np.linspace(0.0, 1.0, uncertainty.OVERLAP_POINTS)
    densities = stats.norm.pdf(grid[:, None, None], samples, uncertainty.OVERLAP_WIDTH).sum(axis=2)
    densities /= densities.sum(axis=0)
    assert measure_overlap(samples[:1], samples[1:]) == pytest.approx(densities.min(axis=1).sum(), rel=1e-11)


def test_overlap_is_of_the_two_likeliest_classes():
    samples = draw(30, 12, 4)
    found = measure_uncertainty(samples)
    order = np.argsort(-samples.mean(axis=0), axis=1)
    for k in range(12):
        first, second = samples[:, k, order[k, 0]], samples[:, k, order[k, 1]]
        assert found.overlap[k] == pytest.approx(measure_overlap(first[None], second[None])[0], rel=1e-9)


@pytest.mark.parametrize("n_classes", [2, 3, 9])
@pytest.mark.parametrize("n_samples", [1, 7, 100])
def test_rows_do_not_depend_on_their_company(n_samples, n_classes, monkeypatch):
    samples = draw(n_samples, 50, n_classes).astype(np.float32)
    whole = measure_uncertainty(samples)
    order = np.random.default_rng(1).permutation(50)
    moved = measure_uncertainty(np.asfortranarray(samples[:, order]))
    monkeypatch.setattr(uncertainty, "BLOCK_VALUES", 7 * n_samples * n_classes)
    blocks = measure_uncertainty(samples)
    alone = [measure_uncertainty(samples[:, k : k + 1]) for k in range(50)]
    for name in vars(whole):
        values = getattr(whole, name)
        assert np.array_equal(values[order], getattr(moved, name)), name
        assert np.array_equal(values, getattr(blocks, name)), name
        assert np.array_equal(values, np.concatenate([getattr(one, name) for one in alone])), name


@pytest.mark.parametrize(
    "samples",
    [
        np.ones((3, 2)),
        np.ones((0, 4, 2)),
        np.ones((2, 4, 1)),
        [[[np.nan, 1.0]]],
        [[[-0.1, 1.1]]],
        [[[0.0, 0.0]]],
    ],
)
def test_what_is_no_probability_is_refused(samples):
    with pytest.raises(SurveyMLError, match="samples of probabilities"):
        measure_uncertainty(samples)


def test_no_source_is_no_error():
    assert measure_uncertainty(np.ones((4, 0, 3))).probabilities.shape == (0, 3)
