"""Distances against closed forms, permutations against chance, and features that would spoil them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import kstest, norm

from survey_ml.errors import ConfigError, InputError, SurveyMLError
from survey_ml.learning.frechet import find_frechet, measure_frechet
from survey_ml.learning.permutations import combine, deal, rank_first, thin
from survey_ml.learning.separation import measure_separation
from survey_ml.learning.shift_distances import (
    find_median_distance,
    measure_energy,
    measure_mix,
    measure_mmd,
)
from survey_ml.learning.shift_features import CLIP, fit_scale, make_scale


def draw(n, m, d, shift=0.0, width=1.0, seed=0):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(n, d)), rng.normal(size=(m, d)) * width
    second[:, 0] += shift
    return np.concatenate([first, second]).astype(np.float32)


def measure_all(pooled, inside):
    found = {"mmd": measure_mmd(pooled, inside), "energy": measure_energy(pooled, inside)}
    return found | {"separation": measure_separation(pooled, inside)} | measure_frechet(pooled, inside)


def true_deal(n, m):
    return deal(n, m, 2, 0)


def test_mmd_of_gaussians_is_that_of_theory():
    # E exp(-r^2 / 2 w^2) of N(0, 1) and N(s, 1) in d dimensions is (w^2 / v)^(d/2) exp(-s^2 / 2 v)
    # with v = w^2 + 2.
    n, d, width, shift = 4000, 3, 1.5, 0.8
    alike = (width**2 / (width**2 + 2.0)) ** (d / 2.0)
    theory = 2.0 * alike * (1.0 - np.exp(-(shift**2) / (2.0 * (width**2 + 2.0))))
    found = measure_mmd(draw(n, n, d, shift), true_deal(n, n), width)
    assert found.values[0] == pytest.approx(theory, abs=4.0 * found.error)
    assert found.error < 0.1 * theory


def test_energy_distance_of_gaussians_is_that_of_theory():
    n, shift = 4000, 1.0
    # E|X - Y| of N(0, 1) and N(s, 1): a folded normal of variance two.
    across = 2.0 * np.exp(-(shift**2) / 4.0) / np.sqrt(np.pi) + shift * (
        1.0 - 2.0 * norm.cdf(-shift / 2**0.5)
    )
    theory = 2.0 * across - 2.0 * 2.0 / np.sqrt(np.pi)
    found = measure_energy(draw(n, n, 1, shift), true_deal(n, n))
    assert found.values[0] == pytest.approx(theory, abs=4.0 * found.error)


def test_pairs_are_those_of_a_plain_sum():
    n, m, width = 30, 21, 1.3
    pooled, inside = draw(n, m, 4, 0.5), deal(n, m, 7, 3)
    distance = cdist(pooled, pooled)
    for name, table in (("mmd", np.exp(-(distance**2) / (2 * width**2))), ("energy", -distance)):
        found = measure_mmd(pooled, inside, width) if name == "mmd" else measure_energy(pooled, inside)
        for column, value in zip(inside.T, found.values, strict=True):
            x, y, across = table[column][:, column], table[~column][:, ~column], table[column][:, ~column]
            wanted = (x.sum() - np.trace(x)) / (n * (n - 1)) + (y.sum() - np.trace(y)) / (m * (m - 1))
            assert value == pytest.approx(wanted - 2.0 * across.mean(), abs=1e-5)


def test_the_jackknife_is_that_of_leaving_sources_out():
    n, m, width = 12, 9, 1.0
    pooled = draw(n, m, 2, 0.5)
    found = measure_mmd(pooled, true_deal(n, m), width)

    def without(k):
        rest = np.delete(pooled, k, axis=0)
        counts = (n - 1, m) if k < n else (n, m - 1)
        return measure_mmd(rest, true_deal(*counts), width).values[0]

    left = np.array([without(k) for k in range(n + m)])
    variance = (n - 1) * left[:n].var() + (m - 1) * left[n:].var()
    assert found.error == pytest.approx(np.sqrt(variance), rel=1e-3)


def test_the_error_is_the_scatter_over_repetitions():
    for name in ("mmd", "energy", "separation", "frechet"):
        found = [measure_all(draw(80, 60, 3, 1.0, seed=seed), true_deal(80, 60))[name] for seed in range(60)]
        scatter = np.std([one.values[0] for one in found])
        assert np.median([one.error for one in found]) == pytest.approx(scatter, rel=0.4), name


def test_the_frechet_distance_of_known_gaussians():
    one, other = np.diag([4.0, 1.0])[None], np.diag([1.0, 9.0])[None]
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    mean = np.zeros((1, 2)), np.array([[3.0, 4.0]])
    # Of covariances of one set of axes: the sum of (sigma1 - sigma2)^2.
    assert find_frechet(mean[0], one, mean[1], other) == pytest.approx([25.0 + 1.0 + 4.0])
    turned = turn @ one @ turn.T, turn @ other @ turn.T
    assert find_frechet(mean[0], turned[0], mean[1], turned[1]) == pytest.approx([30.0])
    from scipy.linalg import sqrtm

    odd = turn @ one[0] @ turn.T
    theory = 25.0 + np.trace(odd + other[0] - 2.0 * sqrtm(odd @ other[0]))
    assert find_frechet(mean[0], odd[None], mean[1], other) == pytest.approx([theory.real])


def test_the_plain_frechet_distance_is_biased_and_the_debiased_is_not():
    found = [measure_frechet(draw(60, 60, 8, seed=s), deal(60, 60, 60, s)) for s in range(60)]
    plain = np.array([one["frechet"].values[0] for one in found])
    debiased = np.array([one["frechet_debiased"].values[0] for one in found])
    assert plain.mean() > 3.0 * plain.std()
    assert abs(debiased.mean()) < 4.0 * debiased.std() / np.sqrt(len(found))
    assert found[0]["frechet_debiased"].values[1:].mean() == pytest.approx(0.0, abs=1e-9)


def test_the_debiased_frechet_distance_of_a_shift_is_that_of_theory():
    found = measure_frechet(draw(3000, 3000, 4, 1.5, 2.0), deal(3000, 3000, 20, 0))
    theory = 1.5**2 + 4.0
    assert found["frechet_debiased"].values[0] == pytest.approx(theory, rel=0.06)
    assert found["frechet_ledoit_wolf"].values[0] == pytest.approx(theory, rel=0.06)


def test_more_dimensions_than_sources_are_turned_to_the_widest():
    found = measure_frechet(draw(30, 30, 200), deal(30, 30, 10, 0))
    assert found["frechet"].d == 64
    assert np.isfinite(found["frechet"].values).all()


def test_the_area_is_that_of_theory():
    # Two Gaussians that are s apart: the area is Phi(s / sqrt 2).
    found = measure_separation(draw(3000, 3000, 5, 1.2), true_deal(3000, 3000))
    assert found.values[0] == pytest.approx(norm.cdf(1.2 / 2**0.5), abs=4.0 * found.error)
    assert found.error < 0.01


@pytest.mark.parametrize(("n", "m", "d"), [(40, 25, 6), (25, 60, 40)])
def test_p_values_are_uniform_where_both_sets_are_of_one_kind(n, m, d):
    repeats, permutations = 150, 39
    found = []
    for seed in range(repeats):
        pooled = draw(n, m, d, seed=seed)
        pooled = np.concatenate([fit_scale(pooled[:n], pooled[n:]).apply(pooled)])
        parts = measure_all(pooled, deal(n, m, permutations, seed))
        row = [part.summarise(m).p_value for part in parts.values()]
        found.append([*row, combine([parts["mmd"], parts["energy"], parts["separation"]])])
    values = np.array(found)
    assert (values.mean(axis=0) > 0.4).all() and (values.mean(axis=0) < 0.62).all()
    for column in values.T:
        # Steps of 1/40 are smeared to a continuous uniform distribution.
        smeared = column - np.random.default_rng(0).random(repeats) / (permutations + 1)
        assert kstest(smeared, "uniform").pvalue > 1e-3
    assert (values <= 0.05).mean(axis=0).max() < 0.05 + 4.0 * np.sqrt(0.05 * 0.95 / repeats)


def test_a_shift_is_found_by_all():
    pooled = draw(100, 100, 5, 1.5)
    parts = measure_all(pooled, deal(100, 100, 199, 0))
    for name, part in parts.items():
        found = part.summarise(100)
        assert found.p_value == pytest.approx(1 / 200), name
        assert found.low < found.value < found.high and found.n == 100 and found.d == 5
        assert found.value > found.null_mean + 3.0 * found.null_std
    assert combine(list(parts.values())) == pytest.approx(1 / 200)


def test_results_do_not_depend_on_blocks_or_order(monkeypatch):
    pooled, inside = draw(300, 250, 6, 0.3), deal(300, 250, 10, 0)
    whole = measure_mmd(pooled, inside).values
    monkeypatch.setattr("survey_ml.learning.shift_distances.BLOCK", 64)
    assert measure_mmd(pooled, inside).values == pytest.approx(whole, abs=1e-6)
    order = np.concatenate([np.arange(300)[::-1], 300 + np.arange(250)[::-1]])
    width = find_median_distance(pooled)
    one, other = (measure_mmd(p, i, width).values[0] for p, i in ((pooled, inside), (pooled[order], inside)))
    assert one == pytest.approx(other, abs=1e-6)


def test_deals_keep_the_sizes_and_the_seed():
    inside = deal(7, 4, 50, 1)
    assert inside.shape == (11, 51) and (inside.sum(axis=0) == 7).all()
    assert inside[:7, 0].all() and not inside[7:, 0].any()
    assert np.array_equal(inside, deal(7, 4, 50, 1))
    assert not np.array_equal(inside, deal(7, 4, 50, 2))
    assert len(np.unique(inside[:, 1:], axis=1).T) > 40
    with pytest.raises(ConfigError, match="permutations"):
        deal(7, 4, 1, 0)


def test_ranks_by_hand():
    assert rank_first(np.array([3.0, 1.0, 2.0, 4.0])) == 0.5
    assert rank_first(np.array([1.0, 1.0, 1.0])) == 1.0
    assert combine([]) == 1.0


def test_thinning_keeps_order_and_all_that_fit():
    values = np.arange(100)
    assert thin(values, 100, 0) is values
    found = thin(values, 10, 0)
    assert len(set(found.tolist())) == 10 and (np.diff(found) > 0).all()


def test_dead_features_and_outliers_do_not_spoil_a_distance():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 5))
    values[:, 3] = 0.0
    values[:, 4] *= 1e-4
    scale = fit_scale(values)
    assert scale.kept.tolist() == [True, True, True, False, False]
    other = values + np.array([0.0, 0.0, 1e9, 1.0, 1.0])
    assert np.abs(scale.apply(other)).max() == CLIP
    assert scale.apply(values).std(axis=0) == pytest.approx(1.0, abs=1e-3)
    made = make_scale(values.mean(axis=0), values.var(axis=0))
    assert np.array_equal(made.apply(values), scale.apply(values))


@pytest.mark.parametrize(
    "values", [np.full((30, 3), np.nan), np.zeros((0, 3)), np.zeros(30), np.full((4, 2), np.inf)]
)
def test_embeddings_that_are_none_are_refused(values):
    with pytest.raises(InputError):
        fit_scale(values)


def test_what_cannot_be_compared_says_why():
    with pytest.raises(SurveyMLError, match="varies"):
        fit_scale(np.ones((30, 3)))
    with pytest.raises(InputError, match="4 numbers"):
        fit_scale(np.random.default_rng(0).normal(size=(30, 3))).apply(np.zeros((30, 4)))


def test_another_mix_is_that_of_weighted_pairs():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=60)
    values = (rng.normal(size=(60, 3)) + labels[:, None]).astype(np.float32)
    change = np.array([0.3, -0.2, -0.1])
    width = find_median_distance(values)
    table = np.exp(-(cdist(values, values) ** 2) / (2 * width**2))
    np.fill_diagonal(table, np.nan)
    means = [[np.nanmean(table[labels == a][:, labels == b]) for b in range(3)] for a in range(3)]
    assert measure_mix(values, labels, change) == pytest.approx(change @ means @ change, abs=1e-6)
    assert measure_mix(values, labels, np.zeros(3)) == 0.0
