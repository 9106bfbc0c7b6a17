"""Posteriors over a last layer: what they are where it is known, and what they do not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special

from survey_ml.errors import SurveyMLError

pytest.importorskip("torch", reason="survey-ml[learning] is not installed")

from survey_ml.learning.heads import (
    Embedded,
    draw_gaussian,
    draw_masks,
    evaluate_heads,
    fit_by_backprop,
    fit_by_laplace,
)


def draw_features(n=600, d=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    logits = x @ np.array([[1.0, -0.5, 0.0], [-1.0, 0.5, 0.3]]).T[:d] + np.array([0.2, -0.2])
    labels = (rng.random(n) > special.softmax(logits, axis=1)[:, 0]).astype(np.int64)
    return x, labels


def find_map(x, labels, prior_scale):
    """The best weights (2, d + 1) under a Gaussian prior, and the Hessian of the loss there."""
    extended = np.column_stack([x, np.ones(len(x))])

    def lose(flat):
        logs = special.log_softmax(extended @ flat.reshape(2, -1).T, axis=1)
        return -logs[np.arange(len(x)), labels].sum() + 0.5 * (flat**2).sum() / prior_scale**2

    best = optimize.minimize(lose, np.zeros(2 * extended.shape[1]), method="BFGS").x.reshape(2, -1)
    p = special.softmax(extended @ best.T, axis=1)
    curve = p[:, :, None] * np.eye(2) - p[:, :, None] * p[:, None, :]
    hessian = np.einsum("ni,nab,nj->aibj", extended, curve, extended).reshape(best.size, best.size)
    return best, hessian + np.eye(best.size) / prior_scale**2


@pytest.fixture(scope="module")
def fitted():
    x, labels = draw_features()
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return x, labels, fit_by_backprop(Embedded(x[None], labels), 2, prior_scale=1.0)


def test_backprop_finds_the_mean_field_about_the_best_weights(fitted):
    x, labels, posterior = fitted
    best, precision = find_map(x, labels, 1.0)
    # With so many images the posterior is nearly Gaussian: its mean is the best weights, and the best
    # independent Gaussians have the inverse of the diagonal of the precision as variances.
    np.testing.assert_allclose(posterior.mean, best, atol=0.06)
    scales = np.sqrt(np.diag(posterior.factor @ posterior.factor.T))
    np.testing.assert_allclose(scales, np.diag(precision) ** -0.5, rtol=0.08)


def test_laplace_at_the_best_weights_has_the_inverse_of_the_hessian():
    x, labels = draw_features(400, seed=1)
    best, precision = find_map(x, labels, 0.7)
    posterior = fit_by_laplace(Embedded(x[None], labels), best[:, :-1], best[:, -1], prior_scale=0.7)
    covariance = posterior.factor @ posterior.factor.T
    np.testing.assert_allclose(covariance, np.linalg.inv(precision), rtol=1e-3, atol=1e-6)


def test_units_of_the_embedding_do_not_matter(fitted):
    x, labels, posterior = fitted
    other = fit_by_backprop(Embedded((7.0 * x - 3.0)[None], labels), 2, prior_scale=1.0)
    one, two = (
        evaluate_heads(draw_gaussian(p.mean, p.factor, 20, 5), values)
        for p, values in ((posterior, x), (other, 7.0 * x - 3.0))
    )
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert other.log_evidence == pytest.approx(posterior.log_evidence, abs=1e-5)


def test_a_narrow_prior_is_less_likely_and_less_sure(fitted):
    x, labels, posterior = fitted
    narrow = fit_by_backprop(Embedded(x[None], labels), 2, prior_scale=0.03)
    assert narrow.log_evidence < posterior.log_evidence
    assert np.abs(narrow.mean).sum() < 0.7 * np.abs(posterior.mean).sum()


def test_rows_do_not_depend_on_each_other(fitted):
    x, _, posterior = fitted
    heads = draw_gaussian(posterior.mean, posterior.factor, 30, 0)
    whole = evaluate_heads(heads, x[:50])
    for rows in ([3], [49, 0, 7], range(50)):
        assert np.array_equal(evaluate_heads(heads, x[list(rows)]), whole[:, list(rows)])
    assert np.array_equal(draw_gaussian(posterior.mean, posterior.factor, 30, 0), heads)
    assert not np.array_equal(draw_gaussian(posterior.mean, posterior.factor, 30, 1), heads)
    np.testing.assert_allclose(whole.sum(axis=2), 1.0)
    with pytest.raises(SurveyMLError, match="reads 3 numbers"):
        evaluate_heads(heads, x[:, :2])


def test_masks_keep_the_mean_and_drop_whole_features():
    mean = np.arange(1.0, 13.0).reshape(2, 6)
    drawn = draw_masks(mean, 0.25, 20_000, 0)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, rtol=0.02)
    assert (drawn[:, :, -1] == mean[:, -1]).all()
    gone = drawn[:, :, :-1] == 0
    assert (gone[:, 0] == gone[:, 1]).all() and gone.mean() == pytest.approx(0.25, abs=0.01)
