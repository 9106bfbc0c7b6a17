"""Distances from the training's classes against closed forms, and p-values that are uniform."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi, kstest
from sklearn.covariance import ledoit_wolf

from survey_ml.errors import SurveyMLError
from survey_ml.learning.outliers import (
    Gaussians,
    find_p_values,
    fit_gaussians,
    measure_distances,
    shrink_covariance,
)

SHAPE = np.array([[2.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.2]])
CENTRES = np.array([[0.0, 0.0, 0.0], [5.0, -3.0, 1.0]])


def draw(n, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    return CENTRES[labels] + rng.normal(size=(n, 3)) @ SHAPE, labels


def test_gaussians_are_found_again():
    made = fit_gaussians(*draw(20000), 2)
    assert made.means == pytest.approx(CENTRES, abs=0.05)
    assert np.linalg.inv(made.precision) == pytest.approx(SHAPE.T @ SHAPE, abs=0.1)


@pytest.mark.parametrize(("n", "d"), [(20, 40), (200, 10), (5000, 3)])
def test_shrinking_is_that_of_scikit_learn(n, d):
    rng = np.random.default_rng(d)
    values = rng.normal(size=(n, d)) * np.linspace(0.1, 3.0, d)
    assert shrink_covariance(values) == pytest.approx(ledoit_wolf(values, assume_centered=True)[0])


def test_distance_is_in_standard_deviations_of_the_nearest_class():
    made = Gaussians(np.array([[0.0, 0.0], [10.0, 0.0]]), np.diag([1.0, 0.25]))
    found = measure_distances(made, [[3.0, 0.0], [0.0, 4.0], [9.0, 0.0], [0.0, 0.0]])
    assert found == pytest.approx([3.0, 2.0, 1.0, 0.0])
    # About one centre they are distributed as the length of a normal vector.
    values, labels = draw(3000)
    one = fit_gaussians(values[labels == 0], np.zeros((labels == 0).sum(), int), 1)
    assert kstest(measure_distances(one, draw(3000, 1)[0][draw(3000, 1)[1] == 0]), chi(3).cdf).pvalue > 1e-3


def test_p_values_by_hand():
    found = find_p_values([0.5, 2.0, 2.5, 9.0], [3.0, 1.0, 2.0])
    assert found == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert find_p_values([1.0], []) == pytest.approx([1.0])


def test_p_values_of_like_sources_are_uniform_and_of_others_small():
    made = fit_gaussians(*draw(300), 2)
    held = measure_distances(made, draw(999, 1)[0])
    like = find_p_values(measure_distances(made, draw(2000, 2)[0]), held)
    for level in (0.01, 0.05, 0.2):
        assert (like <= level).mean() == pytest.approx(level, abs=4.0 * (level / 999 + level / 2000) ** 0.5)
    far = measure_distances(made, draw(50, 3)[0] + [0.0, 0.0, 5.0])
    assert find_p_values(far, held) == pytest.approx(1 / 1000)


def test_more_dimensions_than_images_and_unused_ones():
    rng = np.random.default_rng(0)
    values = np.maximum(rng.normal(size=(30, 64)), 0.0)
    values[:, :10] = 0.0
    made = fit_gaussians(values, [0, 1] * 15, 2)
    found = measure_distances(made, values)
    assert np.isfinite(found).all() and (found > 0.0).all()
    assert measure_distances(made, values + np.eye(64)[0] * 3.0).min() > found.max()
    assert np.array_equal(found, np.concatenate([measure_distances(made, row[None]) for row in values]))


@pytest.mark.parametrize(
    ("embedding", "labels"),
    [
        (np.ones((4, 2)), [0, 1, 0, 1]),
        (np.eye(4), [0, 0, 0, 0]),
        (np.eye(4), [0, 1, 2, 0]),
        (np.eye(4), [0, 1]),
        (np.full((4, 2), np.nan), [0, 1, 0, 1]),
    ],
)
def test_what_cannot_be_fitted_is_refused(embedding, labels):
    with pytest.raises(SurveyMLError):
        fit_gaussians(embedding, labels, 2)
