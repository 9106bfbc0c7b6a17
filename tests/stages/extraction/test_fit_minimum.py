"""The Levenberg-Marquardt fit against finite differences and SciPy's least squares."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import least_squares

from survey_ml.stages.extraction.fit import (
    CONVERGED,
    HELD,
    SINGULAR,
    UNCONVERGED,
    count_parameters,
    fill_gradient,
    fit_components,
    select_pixels,
    sum_squares,
)
from survey_ml.stages.extraction.model import FIXED, FREE, POINT

SHAPE = (41, 43)
BEAM = np.array([0.45, 0.11, 0.62])
RADII, LEAST = np.array([0.0, 1.1, 1.4]), np.array([0.0, 1.5, 2.3])
LOWEST, HIGHEST = 1e-3, 4.0

CASES = {
    "point": [(50.0, 20.3, 19.6, None)],
    "shape": [(30.0, 21.4, 20.2, (0.11, -0.05, 0.16))],
    "two points": [(40.0, 18.8, 20.1, None), (25.0, 22.6, 21.2, None)],
    "point on a shape": [(40.0, 18.0, 19.1, (0.07, 0.02, 0.10)), (30.0, 24.2, 22.7, None)],
    "three": [(40.0, 15.2, 19.1, None), (30.0, 19.3, 21.6, (0.12, 0.03, 0.2)), (20.0, 24.7, 19.9, None)],
    "four": [
        (60.0, 16.1, 16.3, None),
        (45.0, 20.4, 17.2, None),
        (35.0, 17.7, 21.8, (0.15, 0.04, 0.2)),
        (50.0, 25.3, 22.4, (0.2, -0.06, 0.12)),
    ],
}


def make_components(rows):
    theta = np.array([(a, x, y, *(BEAM if shape is None else shape)) for a, x, y, shape in rows])
    return theta, np.array([POINT if row[3] is None else FREE for row in rows])


def evaluate_model(theta, pixels):
    """Sum of Gaussians at (row, column) pixels, written independently of the kernels."""
    y, x = pixels.T
    total = np.zeros(len(pixels))
    for peak, cx, cy, a, b, c in theta:
        offset = np.stack([x - cx, y - cy])
        total += peak * np.exp(-0.5 * np.einsum("in,ij,jn->n", offset, [[a, b], [b, c]], offset))
    return total


def pack(theta, kinds):
    return np.concatenate(
        [row[: 6 if kind == FREE else 3] for row, kind in zip(theta, kinds, strict=True) if kind != FIXED]
    )


def unpack(vector, theta, kinds):
    result, start = theta.copy(), 0
    for row, kind in zip(result, kinds, strict=True):
        width = {FIXED: 0, POINT: 3, FREE: 6}[int(kind)]
        row[:width] = vector[start : start + width]
        start += width
    return result


def make_patch(theta, make_noise, beam_covariance, seed):
    """Noise that varies over the patch, and the weights that belong to it."""
    grid = np.stack([axis.ravel() for axis in np.indices(SHAPE)], axis=1)
    rms = 0.8 + 0.4 * np.linspace(0.0, 1.0, SHAPE[1]) * np.ones(SHAPE)
    noise = make_noise(SHAPE, beam_covariance / 2, seed) * rms
    return noise + evaluate_model(theta, grid).reshape(SHAPE), 1.0 / rms


def anchor_all(theta, reach=8.0):
    return np.column_stack([theta[:, 1], theta[:, 2], np.full(len(theta), reach), np.zeros(len(theta))])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_minimum_is_that_of_scipy(case, seed, make_noise, beam_covariance):
    truth, kinds = make_components(CASES[case])
    data, weight = make_patch(truth, make_noise, beam_covariance, seed)
    n = len(truth)
    pixels = select_pixels(truth, kinds, n, np.ones(SHAPE, bool), RADII, LEAST)
    start = truth.copy()
    start[:, 0] *= 0.8
    start[:, 1:3] += np.random.default_rng(seed).uniform(-0.4, 0.4, (n, 2))
    start[kinds == FREE, 3:] *= 1.2
    rows, columns = pixels.T

    def residuals(vector):
        model = evaluate_model(unpack(vector, start, kinds), pixels)
        return (data[rows, columns] - model) * weight[rows, columns]

    peer = least_squares(residuals, pack(start, kinds), xtol=1e-12, ftol=1e-12, gtol=1e-12)
    theta = start.copy()
    status = fit_components(theta, kinds, n, data, weight, pixels, anchor_all(start), LOWEST, HIGHEST)
    assert status == CONVERGED
    chi2 = sum_squares(theta, kinds, n, data, weight, pixels)
    assert_allclose(chi2, 2.0 * peer.cost, rtol=1e-6)
    errors = np.sqrt(np.diag(np.linalg.inv(peer.jac.T @ peer.jac)))
    assert np.max(np.abs(pack(theta, kinds) - peer.x) / errors) < 1e-3
    # It moved: the comparison is not between two copies of the start.
    assert np.max(np.abs(pack(theta, kinds) - pack(start, kinds)) / errors) > 1.0
    assert_array_equal(theta[kinds == POINT, 3:], np.broadcast_to(BEAM, theta[kinds == POINT, 3:].shape))


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_finite_differences(case):
    theta, kinds = make_components(CASES[case])
    n, p = len(theta), count_parameters(kinds, len(theta))
    assert p == sum(3 if row[3] is None else 6 for row in CASES[case])
    for x, y in np.random.default_rng(5).uniform(12.0, 28.0, (40, 2)):
        at = np.array([[y, x]])
        row = np.empty(p)
        value = fill_gradient(theta, kinds, n, x, y, row)
        assert_allclose(value, evaluate_model(theta, at)[0], rtol=1e-9, atol=1e-9)
        vector = pack(theta, kinds)
        numeric = np.empty(p)
        for j in range(p):
            step = np.zeros(p)
            step[j] = 1e-5 * max(1.0, abs(vector[j]))
            ahead, behind = (
                evaluate_model(unpack(vector + sign * step, theta, kinds), at)[0] for sign in (1, -1)
            )
            numeric[j] = (ahead - behind) / (2.0 * step[j])
        assert_allclose(row, numeric, rtol=1e-5, atol=1e-6 * max(1.0, np.abs(numeric).max()))


def test_a_fixed_component_is_neither_fitted_nor_subtracted(make_noise, beam_covariance):
    truth, kinds = make_components(CASES["two points"])
    kinds[0] = FIXED
    data, weight = make_patch(truth[1:], make_noise, beam_covariance, 7)
    pixels = select_pixels(truth, kinds, 2, np.ones(SHAPE, bool), RADII, LEAST)
    assert_array_equal(pixels, select_pixels(truth[1:], kinds[1:], 1, np.ones(SHAPE, bool), RADII, LEAST))
    both, alone = truth.copy(), truth[1:].copy()
    fit_components(both, kinds, 2, data, weight, pixels, anchor_all(truth), LOWEST, HIGHEST)
    fit_components(alone, kinds[1:], 1, data, weight, pixels, anchor_all(alone), LOWEST, HIGHEST)
    assert_array_equal(both[0], truth[0])
    assert_array_equal(both[1], alone[0])
    assert not np.array_equal(both[1], truth[1])


def test_apertures_are_ellipses_of_valid_pixels_each_once():
    theta, kinds = make_components(CASES["point on a shape"])
    valid = np.ones(SHAPE, bool)
    valid[18:21, 17] = False
    found = select_pixels(theta, kinds, 2, valid, RADII, LEAST)
    y, x = np.indices(SHAPE)
    wanted = np.zeros(SHAPE, bool)
    for (_, cx, cy, a, b, c), kind in zip(theta, kinds, strict=True):
        q = a * (x - cx) ** 2 + 2 * b * (x - cx) * (y - cy) + c * (y - cy) ** 2
        wanted |= q <= max(RADII[kind] ** 2, LEAST[kind] ** 2 * np.sqrt(a * c - b * b))
    assert_array_equal(found, np.argwhere(wanted & valid))


@pytest.mark.parametrize(("kind", "least"), [(POINT, 3), (FREE, 6)])
def test_too_few_pixels_are_singular(kind, least):
    theta = np.array([[10.0, 20.0, 20.0, *BEAM]])
    data = np.zeros(SHAPE)
    data[19:22, 19:22] = 5.0
    pixels = np.argwhere(data > 0.0)
    for m in (0, 1, least - 1):
        before = theta.copy()
        status = fit_components(
            theta, np.array([kind]), 1, data, np.ones(SHAPE), pixels[:m], anchor_all(theta), LOWEST, HIGHEST
        )
        assert status == SINGULAR
        assert_array_equal(theta, before)


def test_nothing_to_fit_is_singular():
    theta = np.array([[10.0, 20.0, 20.0, *BEAM]])
    pixels = np.argwhere(np.ones(SHAPE, bool))
    status = fit_components(
        theta, np.array([FIXED]), 1, np.zeros(SHAPE), np.ones(SHAPE), pixels, anchor_all(theta), LOWEST,
        HIGHEST,
    )  # fmt: skip
    assert status == SINGULAR


@pytest.mark.parametrize("kind", [POINT, FREE])
def test_without_curvature_it_does_not_converge(kind):
    """A peak of zero has no derivative by anything else: the normal matrix is singular."""
    theta = np.array([[0.0, 20.0, 20.0, *BEAM]])
    pixels = np.argwhere(np.ones(SHAPE, bool))
    status = fit_components(
        theta, np.array([kind]), 1, np.ones(SHAPE), np.ones(SHAPE), pixels, anchor_all(theta), LOWEST, HIGHEST
    )
    assert status == UNCONVERGED
    assert np.isfinite(theta).all()


def test_two_components_on_one_spot_do_not_converge(make_noise, beam_covariance):
    theta = np.array([[25.0, 20.0, 20.0, *BEAM]] * 2)
    kinds = np.full(2, POINT)
    data, weight = make_patch(2 * theta[:1], make_noise, beam_covariance, 3)
    pixels = select_pixels(theta, kinds, 2, np.ones(SHAPE, bool), RADII, LEAST)
    status = fit_components(theta, kinds, 2, data, weight, pixels, anchor_all(theta), LOWEST, HIGHEST)
    assert np.isfinite(theta).all()
    assert status in (CONVERGED, UNCONVERGED)
    assert np.hypot(*(theta[:, 1:3] - 20.0).T).max() <= 8.0


def test_a_flat_patch_meets_the_bound_on_size():
    theta = np.array([[1.0, 20.0, 20.0, *BEAM]])
    kinds = np.array([FREE])
    pixels = select_pixels(theta, kinds, 1, np.ones(SHAPE, bool), RADII, LEAST)
    status = fit_components(
        theta, kinds, 1, np.full(SHAPE, 100.0), np.ones(SHAPE), pixels, anchor_all(theta), LOWEST, HIGHEST
    )
    assert status == HELD
    eigenvalues = np.linalg.eigvalsh([[theta[0, 3], theta[0, 4]], [theta[0, 4], theta[0, 5]]])
    assert LOWEST <= eigenvalues[0] <= eigenvalues[1] <= HIGHEST


def test_a_component_stays_near_its_anchor(make_noise, beam_covariance):
    truth, kinds = make_components([(80.0, 22.0, 20.0, None)])
    data, weight = make_patch(truth, make_noise, beam_covariance, 3)
    theta = truth.copy()
    theta[0, 1] = 20.5
    pixels = select_pixels(theta, kinds, 1, np.ones(SHAPE, bool), 2 * RADII, LEAST)
    status = fit_components(theta, kinds, 1, data, weight, pixels, anchor_all(theta, 1.0), LOWEST, HIGHEST)
    assert status == HELD
    assert 20.9 < theta[0, 1] <= 21.5
    free = theta.copy()
    assert (
        fit_components(free, kinds, 1, data, weight, pixels, anchor_all(theta, 9.0), LOWEST, HIGHEST)
        == CONVERGED
    )
    assert_allclose(free[0, 1:3], [22.0, 20.0], atol=0.1)


def test_a_component_at_its_bound_does_not_keep_others_from_their_minimum(make_noise, beam_covariance):
    """The neighbour of a held component ends where it would if that one were where it is held."""
    truth, kinds = make_components([(80.0, 16.0, 20.0, None), (60.0, 24.0, 20.0, None)])
    data, weight = make_patch(truth, make_noise, beam_covariance, 4)
    theta = truth.copy()
    theta[0, 1], theta[1, 1:3] = 14.0, [23.4, 20.6]
    pixels = select_pixels(truth, kinds, 2, np.ones(SHAPE, bool), 2 * RADII, LEAST)
    anchor = anchor_all(theta, 1.0)
    anchor[1, 2] = 8.0
    assert fit_components(theta, kinds, 2, data, weight, pixels, anchor, LOWEST, HIGHEST) == HELD
    assert_allclose(anchor[:, 3], [1.0, 0.0])
    assert theta[0, 1] <= 15.0
    rows, columns = pixels.T

    def residuals(vector):
        both = theta.copy()
        both[0, 0], both[1, :3] = vector[0], vector[1:]
        return (data[rows, columns] - evaluate_model(both, pixels)) * weight[rows, columns]

    best = least_squares(residuals, [70.0, 60.0, 24.0, 20.0], xtol=1e-12, ftol=1e-12)
    assert_allclose([theta[0, 0], *theta[1, :3]], best.x, rtol=1e-4)
