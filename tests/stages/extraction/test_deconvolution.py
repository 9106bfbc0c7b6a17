"""Limits, coverage and unresolved axes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from survey_ml.stages.extraction.deconvolution import ANGLE_LIMIT, limit_size, measure_axes
from survey_ml.stages.extraction.model import FWHM


@pytest.mark.parametrize("variance", [0.5, 4.0])
def test_the_limit_covers_95_percent(variance):
    error = 0.5
    measured = variance + error * np.random.default_rng(1).standard_normal(20000)
    covered = limit_size(measured, np.full(20000, error)) >= FWHM * np.sqrt(variance)
    # Where a negative variance counts as zero the limit is only more careful.
    assert 0.94 < covered.mean() < 0.96 + 0.05 * (variance < 2 * error)


def test_an_axis_of_nothing_has_the_length_that_its_error_allows():
    error = np.diag([0.09, 0.0, 0.04])
    axes = measure_axes(np.array([[4.0, 0.0, -1.0], [4.0, 0.0, 0.0]]), np.stack([error, error]))
    assert_allclose(axes.major, FWHM * 2.0)
    assert_allclose(axes.major_err, FWHM * 0.5 * 0.3 / 2.0)
    assert_allclose(axes.minor, 0.0)
    assert_allclose(axes.minor_err, FWHM * np.sqrt(0.2))
    assert_allclose(axes.variance, 4.0)
    assert_allclose(axes.variance_err, 0.3)


def test_angles_run_from_north_through_east():
    """Along north 0, along east 90, north-east 45: (ee, en, nn) of a line."""
    lines = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5]])
    axes = measure_axes(lines, np.zeros((4, 3, 3)))
    assert_allclose(axes.pa, [0.0, 90.0, 45.0, 135.0], atol=1e-9)
    assert_allclose(axes.major, FWHM)
    assert_allclose(axes.minor, 0.0, atol=1e-6)


def test_the_error_of_an_angle_grows_until_nothing_is_known():
    ratios = np.array([0.2, 0.6, 0.9, 0.99, 0.9999])
    shapes = np.stack([np.full(5, 9.0), np.zeros(5), 9.0 * ratios**2], axis=1)
    axes = measure_axes(shapes, np.tile(0.01 * np.eye(3), (5, 1, 1)))
    assert (np.diff(axes.pa_err) > 0.0).all()
    assert_allclose(axes.pa_err[0], np.degrees(0.1 / (9.0 - 0.36)), rtol=1e-6)
    assert axes.pa_err[-1] == ANGLE_LIMIT
