"""Rendered components have the flux, the place and the shape they are given."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.simulation.geometry import convolve_peaks, make_covariances
from survey_ml.simulation.rendering import FLOOR, render_gaussians, render_stripes


def render(x, y, major, minor, pa, flux, shape=(201, 181), beam=(8.0, 6.4, 35.0)):
    b = make_covariances(*(np.array([v]) for v in beam), 2.0)[0]
    intrinsic = make_covariances(np.array([major]), np.array([minor]), np.array([pa]), 2.0)
    image = np.zeros(shape, np.float32)
    peak = convolve_peaks(np.array([flux]), intrinsic, b)
    render_gaussians(image, np.array([x]), np.array([y]), peak, intrinsic + b, FLOOR)
    area = 2 * np.pi * np.sqrt(b[0] * b[2] - b[1] ** 2)
    return image, peak[0], intrinsic[0] + b, area


@pytest.mark.parametrize(("major", "minor", "pa"), [(0.0, 0.0, 0.0), (20.0, 6.0, 120.0)])
def test_flux_centre_and_shape(major, minor, pa):
    image, peak, covariance, area = render(90.3, 100.8, major, minor, pa, 0.01)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    total = image.sum(dtype=np.float64)
    assert total / area == pytest.approx(0.01, rel=2e-4)
    assert (image * x).sum() / total == pytest.approx(90.3, abs=1e-3)
    assert (image * y).sum() / total == pytest.approx(100.8, abs=1e-3)
    moments = [
        (image * a * b).sum() / total
        for a, b in [(x - 90.3, x - 90.3), (x - 90.3, y - 100.8), (y - 100.8, y - 100.8)]
    ]
    assert moments == pytest.approx(list(covariance), rel=5e-3, abs=1e-3)
    assert image.max() <= peak


def test_position_angle_turns_from_north_to_east():
    # North is up, east is left: at 45 degrees the major axis goes from lower right to upper left.
    xx, xy, yy = make_covariances(np.array([20.0]), np.array([5.0]), np.array([45.0]), 1.0)[0]
    assert xy < 0
    assert xx == pytest.approx(yy)
    north = make_covariances(np.array([20.0]), np.array([5.0]), np.array([0.0]), 1.0)[0]
    assert north[2] > north[0]


def test_nothing_is_cut_off_above_the_floor():
    image, *_ = render(90.0, 100.0, 0.0, 0.0, 0.0, 1.0)
    assert 0 < image[image > 0].min() < 3 * FLOOR


def test_components_beyond_the_border_still_reach_in():
    image, *_ = render(-2.0, 100.0, 0.0, 0.0, 0.0, 0.01)
    assert image[100, 0] > 0
    outside, *_ = render(-500.0, 100.0, 0.0, 0.0, 0.0, 0.01)
    assert not outside.any()


def test_stripes_are_small_and_average_out():
    image = np.zeros((401, 401), np.float32)
    at = np.array([200.0])
    render_stripes(image, at, at, np.array([0.1]), 0.002, 12, 120.0)
    assert 0 < np.abs(image).max() <= 0.002 * 0.1
    assert abs(image.mean()) < 0.01 * np.abs(image).max()
