"""Laplace's approximation is exact for a linear model with Gaussian noise, and so is its evidence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from survey_ml.errors import SurveyMLError
from survey_ml.learning.laplace import fit_laplace, measure_curvature

NOISE, PRIOR = 0.3, 0.8


def make_line(n=40, width=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, width))
    y = x @ rng.normal(0, PRIOR, width) + 0.5 + rng.normal(0, NOISE, n)
    return x, y


def solve(x, y, prior=PRIOR):
    """Exact posterior mean and covariance of weights and bias."""
    extended = np.column_stack([x, np.ones(len(x))])
    covariance = np.linalg.inv(extended.T @ extended / NOISE**2 + np.eye(extended.shape[1]) / prior**2)
    return covariance @ extended.T @ y / NOISE**2, covariance


def fit(x, y, mean, prior):
    residual = y - np.column_stack([x, np.ones(len(x))]) @ mean
    likelihood = stats.norm.logpdf(residual, scale=NOISE).sum()
    curvature = np.full((len(x), 1, 1), NOISE**-2)
    return fit_laplace(x, curvature, mean[None, :-1], mean[-1:], likelihood, prior_scale=prior)


def test_the_posterior_of_a_linear_regression_is_exact():
    x, y = make_line()
    mean, covariance = solve(x, y)
    posterior = fit(x, y, mean, PRIOR)
    np.testing.assert_allclose(posterior.mean[0], mean)
    np.testing.assert_allclose(posterior.factor @ posterior.factor.T, covariance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("prior", [0.1, 0.8, 4.0])
def test_the_evidence_of_a_linear_regression_is_exact(prior):
    x, y = make_line(seed=1)
    extended = np.column_stack([x, np.ones(len(x))])
    exact = stats.multivariate_normal.logpdf(
        y, np.zeros(len(y)), NOISE**2 * np.eye(len(y)) + prior**2 * extended @ extended.T
    )
    assert fit(x, y, solve(x, y, prior)[0], prior).log_evidence == pytest.approx(exact, abs=1e-8)


def test_the_prior_with_the_largest_evidence_is_found():
    x, y = make_line(200, 8, seed=2)
    mean, _ = solve(x, y, 10.0)
    chosen = fit(x, y, mean, None)
    for factor in (0.8, 1.25):
        assert fit(x, y, mean, chosen.prior_scale * factor).log_evidence < chosen.log_evidence
    assert 0.3 < chosen.prior_scale < 2.0


def test_curvature_is_that_of_the_softmax():
    p = np.array([[0.7, 0.2, 0.1]])
    np.testing.assert_allclose(measure_curvature(p)[0], np.diag(p[0]) - np.outer(p[0], p[0]))


def test_what_does_not_fit_is_said():
    with pytest.raises(SurveyMLError, match="do not fit"):
        fit_laplace(np.ones((3, 2)), np.ones((3, 2, 2)), np.ones((1, 2)), np.ones(1), 0.0)
    with pytest.raises(SurveyMLError, match="not finite"):
        fit_laplace(np.full((3, 2), np.nan), np.ones((3, 1, 1)), np.ones((1, 2)), np.ones(1), 0.0)
