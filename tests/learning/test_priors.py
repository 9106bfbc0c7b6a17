"""Priors: their densities, and divergences from them, where they are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from survey_ml.errors import ConfigError
from survey_ml.learning.priors import Prior

WIDE, NARROW, SHARE = 0.7, 0.05, 0.6
SHAPES = {
    "gaussian": lambda w: stats.norm.pdf(w, scale=WIDE),
    "laplace": lambda w: stats.laplace.pdf(w, scale=WIDE),
    "gaussian-mixture": lambda w: (
        SHARE * stats.norm.pdf(w, scale=WIDE) + (1 - SHARE) * stats.norm.pdf(w, scale=NARROW)
    ),
    "laplace-mixture": lambda w: (
        SHARE * stats.laplace.pdf(w, scale=WIDE) + (1 - SHARE) * stats.laplace.pdf(w, scale=NARROW)
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_densities_are_those_of_their_names(shape):
    prior = Prior(shape, WIDE, NARROW, SHARE)
    weights = np.array([-1.3, -0.02, 0.0, 0.4])
    found = float(prior.measure_density(torch.from_numpy(weights)))
    assert found == pytest.approx(np.log(SHAPES[shape](weights)).sum(), rel=1e-9)
    # Far out nothing becomes infinite.
    assert np.isfinite(float(prior.measure_density(torch.tensor([80.0]))))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_divergence_is_its_integral_on_average(shape):
    prior, mean, scale = Prior(shape, WIDE, NARROW, SHARE), 0.3, 0.2
    own = stats.norm(mean, scale)

    def integrand(w):
        return own.pdf(w) * (own.logpdf(w) - np.log(SHAPES[shape](w)))

    wanted = integrate.quad(integrand, mean - 10 * scale, mean + 10 * scale, points=[0.0], limit=200)[0]
    generator = torch.Generator().manual_seed(0)
    n = 200_000
    drawn = mean + scale * torch.randn(n, generator=generator, dtype=torch.float64)
    given = torch.full((n,), mean, dtype=torch.float64), torch.full((n,), scale, dtype=torch.float64)
    found = float(prior.measure_divergence(*given, drawn)) / n
    assert found == pytest.approx(wanted, abs=1e-9 if shape == "gaussian" else 0.01)


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"narrow": -1.0}, {"share": 1.0}, {"shape": "cauchy"}])
def test_what_is_no_prior_is_said(wrong):
    with pytest.raises(ConfigError):
        Prior(**wrong)
