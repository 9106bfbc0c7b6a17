"""Errors in correlated noise against dense matrices, closed forms and simulated noise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from survey_ml.stages.extraction.covariance import (
    estimate_covariance,
    measure_shape_excess,
    spread_covariance,
)
from survey_ml.stages.extraction.fit import CONVERGED, fit_components, select_pixels
from survey_ml.stages.extraction.model import FIXED, FREE, POINT

SHAPE = (25, 27)
BEAM = np.array([0.45, 0.11, 0.62])
RADII, LEAST = np.array([0.0, 1.1, 1.4]), np.array([0.0, 1.5, 2.3])


def make_acf(precision, lag=9):
    v, u = np.mgrid[-lag : lag + 1, -lag : lag + 1]
    a, b, c = precision
    return np.exp(-0.5 * (a * u * u + 2 * b * u * v + c * v * v))


def render(theta):
    y, x = np.indices(SHAPE, dtype=float)
    total = np.zeros(SHAPE)
    for peak, cx, cy, a, b, c in theta:
        dx, dy = x - cx, y - cy
        total += peak * np.exp(-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy))
    return total


def differentiate(theta, kinds, pixels):
    """Jacobian (m, p) by central differences of the rendered model."""
    columns = []
    for k, kind in enumerate(kinds):
        for j in range({FIXED: 0, POINT: 3, FREE: 6}[int(kind)]):
            step = np.zeros_like(theta)
            step[k, j] = 1e-5
            columns.append((render(theta + step) - render(theta - step))[tuple(pixels.T)] / 2e-5)
    return np.array(columns).T


@pytest.mark.parametrize(
    "kinds",
    [(POINT,), (FREE,), (POINT, FREE), (FREE, FIXED, POINT)],
    ids=lambda kinds: "".join(map(str, kinds)),
)
def test_the_sandwich_is_that_of_dense_matrices(kinds):
    rng = np.random.default_rng(4)
    kinds = np.array(kinds)
    n = len(kinds)
    theta = np.array(
        [(20.0, 12.3, 11.8, *BEAM), (15.0, 15.1, 13.2, 0.2, -0.04, 0.3), (9.0, 9.7, 13.9, *BEAM)]
    )[:n]
    rms = rng.uniform(0.5, 2.0, SHAPE)
    residual = rng.standard_normal(SHAPE)
    # Wider than high, tilted, and cut off at a lag that matters.
    acf = make_acf((0.10, 0.04, 0.25), lag=3)
    valid = rng.random(SHAPE) > 0.1
    pixels = select_pixels(theta, kinds, n, valid, 2 * RADII, LEAST)
    jacobian = differentiate(theta, kinds, pixels)
    step = np.empty(jacobian.shape[1])
    good, covariance = estimate_covariance(theta, kinds, n, 1.0 / rms, pixels, acf, residual, step)
    assert good

    dy, dx = (pixels[:, None] - pixels[None]).transpose(2, 0, 1)
    near = (np.abs(dy) <= 3) & (np.abs(dx) <= 3)
    correlation = np.where(near, acf[np.clip(dy + 3, 0, 6), np.clip(dx + 3, 0, 6)], 0.0)
    sigma = rms[tuple(pixels.T)]
    weights = np.diag(sigma**-2)
    inverse = np.linalg.inv(jacobian.T @ weights @ jacobian)
    noise = np.outer(sigma, sigma) * correlation
    dense = inverse @ jacobian.T @ weights @ noise @ weights @ jacobian @ inverse
    scale = np.sqrt(np.diag(dense))
    assert_allclose(covariance / np.outer(scale, scale), dense / np.outer(scale, scale), atol=1e-6)
    assert_allclose(step, inverse @ jacobian.T @ weights @ residual[tuple(pixels.T)], rtol=1e-5)
    # The correlation matters: independent pixels would give far smaller errors.
    assert np.sqrt(dense[0, 0]) > 1.3 * np.sqrt(inverse[0, 0])

    p0 = 0
    for k, kind in enumerate(kinds):
        width = {FIXED: 0, POINT: 3, FREE: 6}[int(kind)]
        if width:
            block = np.full((6, 6), 7.0)
            assert spread_covariance(covariance, kinds, n, k, block) == p0
            assert_allclose(block[:width, :width], covariance[p0 : p0 + width, p0 : p0 + width])
            assert not block[width:].any()
            assert not block[:, width:].any()
        p0 += width


@pytest.mark.parametrize("snr", [10.0, 100.0])
def test_a_point_in_noise_as_wide_as_the_beam(snr):
    """No estimate beats reading off the peak: its error is the rms, that of x is sigma over S/N."""
    rms = 0.3
    theta = np.array([[snr * rms, 13.1, 12.4, *BEAM]])
    kinds = np.array([POINT])
    pixels = select_pixels(theta, kinds, 1, np.ones(SHAPE, bool), RADII, LEAST)
    good, covariance = estimate_covariance(
        theta, kinds, 1, np.full(SHAPE, 1.0 / rms), pixels, make_acf(BEAM), np.zeros(SHAPE), np.empty(3)
    )
    assert good
    shape = np.linalg.inv([[BEAM[0], BEAM[1]], [BEAM[1], BEAM[2]]])
    assert_allclose(np.sqrt(covariance[0, 0]), rms, rtol=0.05)
    assert_allclose(covariance[1:, 1:], shape / snr**2, rtol=0.12, atol=0.03 * shape[0, 0] / snr**2)


def test_degenerate_parameters_are_told():
    theta = np.array([[10.0, 12.0, 12.0, *BEAM]] * 2)
    kinds = np.full(2, POINT)
    pixels = select_pixels(theta, kinds, 2, np.ones(SHAPE, bool), RADII, LEAST)
    for part in (pixels, pixels[:4]):
        good, covariance = estimate_covariance(
            theta, kinds, 2, np.ones(SHAPE), part, make_acf(BEAM), np.zeros(SHAPE), np.empty(6)
        )
        assert not good
        assert np.isnan(covariance).all()
    out = np.zeros(9)
    statistic = measure_shape_excess(
        theta, 0, np.ones(SHAPE), pixels[:4], make_acf(BEAM), np.zeros(SHAPE), out
    )
    assert statistic == 0.0
    assert np.isnan(out).all()


@pytest.fixture(scope="module")
def null_trials(make_noise, beam_covariance):
    """Point sources of S/N 60 in 2000 patches of noise as wide as the beam, fitted as points."""
    inverse = np.linalg.inv(beam_covariance)
    beam = np.array([inverse[0, 0], inverse[0, 1], inverse[1, 1]])
    acf = make_acf(beam)
    rng = np.random.default_rng(8)
    noise = make_noise((45 * SHAPE[0], 45 * SHAPE[1]), beam_covariance / 2, 17).astype(float)
    weight, valid, kinds = np.ones(SHAPE), np.ones(SHAPE, bool), np.array([POINT])
    statistics, excesses, fits, truths, errors = [], [], [], [], []
    for row in range(45):
        for column in range(45):
            truth = np.array([[60.0, *rng.uniform(11.5, 13.5, 2), *beam]])
            y0, x0 = row * SHAPE[0], column * SHAPE[1]
            data = noise[y0 : y0 + SHAPE[0], x0 : x0 + SHAPE[1]] + render(truth)
            theta, anchor = truth.copy(), np.array([[*truth[0, 1:3], 4.0, 0.0]])
            pixels = select_pixels(truth, kinds, 1, valid, RADII, LEAST)
            assert fit_components(theta, kinds, 1, data, weight, pixels, anchor, 0.01, 9.0) == CONVERGED
            residual = data - render(theta)
            out, step = np.empty(9), np.empty(3)
            _, covariance = estimate_covariance(theta, kinds, 1, weight, pixels, acf, residual, step)
            wide = select_pixels(theta, np.array([FREE]), 1, valid, RADII, LEAST)
            statistics.append(measure_shape_excess(theta, 0, weight, wide, acf, residual, out))
            excesses.append(out)
            fits.append(theta[0, :3])
            truths.append(truth[0, :3])
            errors.append(np.sqrt(np.diag(covariance)))
    return tuple(map(np.array, (statistics, excesses, fits, truths, errors)))


def test_pulls_of_the_fit_are_standard_normal(null_trials):
    _, _, fits, truths, errors = null_trials
    pulls = (fits - truths) / errors
    assert_allclose(pulls.mean(axis=0), 0.0, atol=4 / np.sqrt(len(pulls)))
    assert_allclose(pulls.std(axis=0), 1.0, atol=0.06)


def test_the_shape_test_is_chi_squared_of_points(null_trials):
    statistics, excesses, *_ = null_trials
    upper = np.triu_indices(3)
    spread = np.empty((len(excesses), 3, 3))
    spread[:, upper[0], upper[1]] = spread[:, upper[1], upper[0]] = excesses[:, 3:]
    change = excesses[:, :3]
    full = np.einsum("ni,ni->n", change, np.linalg.solve(spread, change[:, :, None])[:, :, 0])
    assert_allclose(full.mean(), 3.0, atol=0.25)
    assert stats.kstest(full, stats.chi2(3).cdf).pvalue > 1e-4
    # What is narrower than the beam along every axis is no resolved source.
    matrices = np.array([[change[:, 0], change[:, 1]], [change[:, 1], change[:, 2]]]).transpose(2, 0, 1)
    wider = np.linalg.eigvalsh(matrices)[:, -1] > 0.0
    assert 0.5 < wider.mean() < 1.0
    assert_allclose(statistics, np.where(wider, full, 0.0), rtol=1e-6, atol=1e-9)


def test_the_shape_test_sees_an_extended_source(beam_covariance):
    """Without noise one step measures a small excess to first order, and its significance grows with S/N."""
    inverse = np.linalg.inv(beam_covariance)
    beam = np.array([inverse[0, 0], inverse[0, 1], inverse[1, 1]])
    extra = np.array([[0.06, 0.02], [0.02, 0.03]])
    precision = np.linalg.inv(beam_covariance + extra)
    statistics = []
    for snr in (50.0, 100.0):
        data = render([(snr, 13.0, 12.0, precision[0, 0], precision[0, 1], precision[1, 1])])
        theta = np.array([[snr, 13.0, 12.0, *beam]])
        kinds, valid = np.array([POINT]), np.ones(SHAPE, bool)
        pixels = select_pixels(theta, kinds, 1, valid, RADII, LEAST)
        fit_components(
            theta, kinds, 1, data, np.ones(SHAPE), pixels, np.array([[13.0, 12.0, 4.0, 0.0]]), 0.01, 9.0
        )
        wide = select_pixels(theta, np.array([FREE]), 1, valid, RADII, LEAST)
        out = np.empty(9)
        statistics.append(
            measure_shape_excess(theta, 0, np.ones(SHAPE), wide, make_acf(beam), data - render(theta), out)
        )
        assert_allclose(out[:3], [0.06, 0.02, 0.03], rtol=0.15)
    assert_allclose(statistics[1] / statistics[0], 4.0, rtol=0.01)
