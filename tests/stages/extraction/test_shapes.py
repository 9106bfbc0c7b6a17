"""Sky positions, axes, angles and deconvolved sizes, against astropy and by drawing."""

from __future__ import annotations

from math import erfc, sqrt

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from survey_ml.field import Beam
from survey_ml.stages.extraction.deconvolution import ANGLE_LIMIT, limit_size, measure_axes
from survey_ml.stages.extraction.model import FWHM
from survey_ml.stages.extraction.options import find_chi2_threshold
from survey_ml.stages.extraction.projection import beam_precision, congruence, locate, measure_jacobians
from survey_ml.stages.noise.beam import find_covariance


def make_wcs(ra, dec, projection="SIN", rotate=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [500, 400]
    wcs.wcs.cdelt = [-2 / 3600, 2 / 3600]
    c, s = np.cos(np.deg2rad(rotate)), np.sin(np.deg2rad(rotate))
    wcs.wcs.pc = [[c, -s], [s, c]]
    return wcs


@pytest.mark.parametrize(
    ("ra", "dec", "projection", "rotate"),
    [
        (150.0, -30.0, "SIN", 0.0),
        (0.01, 60.0, "TAN", 30.0),
        (10.0, 89.9, "SIN", 0.0),
        (359.99, 0.0, "ZEA", 100),
    ],
)
def test_jacobians_are_small_offsets_on_the_sky(ra, dec, projection, rotate):
    wcs = make_wcs(ra, dec, projection, rotate)
    x, y = np.array([30.0, 700.0]), np.array([900.0, 10.0])
    jacobians = measure_jacobians(wcs, x, y)
    here = SkyCoord(*locate(wcs, x, y).T, unit="deg")
    for axis, (dx, dy) in enumerate(((0.5, 0.0), (0.0, 0.5))):
        there = SkyCoord(*locate(wcs, x + dx, y + dy).T, unit="deg")
        distance, angle = here.separation(there).arcsec, here.position_angle(there).rad
        expected = 2.0 * np.stack([distance * np.sin(angle), distance * np.cos(angle)], axis=1)
        assert_allclose(jacobians[:, :, axis], expected, atol=2e-4)


def test_no_positions_are_no_positions():
    wcs = make_wcs(10.0, 0.0)
    assert locate(wcs, np.empty(0), np.empty(0)).shape == (0, 2)
    assert measure_jacobians(wcs, np.empty(0), np.empty(0)).shape == (0, 2, 2)


def test_the_beam_in_pixels_follows_the_rotation():
    beam = Beam(8.0, 6.0, 20.0)
    straight = beam_precision(beam, measure_jacobians(make_wcs(10.0, 0.0), *np.array([[499.0], [399.0]])))
    # RA grows to the left, so the major axis at PA 20 points up and left.
    assert straight[0, 1] > 0.0
    size = FWHM / np.sqrt(np.linalg.eigvalsh(straight[0][[[0, 1], [1, 2]]]))
    assert_allclose(size, [4.0, 3.0], rtol=1e-6)


angles = st.floats(1.0, 179.0)


@given(st.floats(1.0, 50.0), st.floats(0.05, 0.95), angles)
def test_axes_of_a_matrix_are_those_it_was_made_of(major, ratio, pa):
    matrix = find_covariance(Beam(major, major * ratio, pa))
    axes = measure_axes(matrix[[0, 0, 1], [0, 1, 1]][None], np.zeros((1, 3, 3)))
    assert_allclose([axes.major[0], axes.minor[0]], [major, major * ratio], rtol=1e-6)
    assert abs((axes.pa[0] - pa + 90) % 180 - 90) < 1e-5
    assert axes.major_err[0] == axes.pa_err[0] == 0.0


def test_deconvolution_takes_the_beam_off():
    inner, beam = find_covariance(Beam(5.0, 3.0, 70.0)), find_covariance(Beam(8.0, 6.4, 35.0))
    left = (inner + beam - beam)[[0, 0, 1], [0, 1, 1]][None]
    axes = measure_axes(left, np.zeros((1, 3, 3)))
    assert_allclose([axes.major[0], axes.minor[0], axes.pa[0]], [5.0, 3.0, 70.0], rtol=1e-9)


def test_errors_of_axes_are_those_of_draws():
    matrix = find_covariance(Beam(9.0, 5.0, 40.0))[[0, 0, 1], [0, 1, 1]]
    rng = np.random.default_rng(5)
    root = 0.1 * rng.standard_normal((3, 3))
    draws = matrix + rng.standard_normal((20000, 3)) @ root.T
    many = measure_axes(draws, np.zeros((len(draws), 3, 3)))
    one = measure_axes(matrix[None], (root @ root.T)[None])
    for name in ("major", "minor", "pa"):
        assert_allclose(getattr(one, f"{name}_err")[0], np.std(getattr(many, name)), rtol=0.03)


def test_what_is_narrower_than_the_beam_has_no_size_but_a_limit():
    axes = measure_axes(np.array([[-1.0, 0.0, -2.0]]), np.eye(3)[None] * 0.25)
    assert axes.major[0] == axes.minor[0] == 0.0
    assert_allclose(axes.major_err[0], FWHM * np.sqrt(0.5))
    assert_allclose(limit_size(axes.variance, axes.variance_err), FWHM * np.sqrt(1.645 * 0.5))


def test_a_round_source_has_any_angle():
    axes = measure_axes(np.array([[4.0, 0.0, 4.0]]), np.eye(3)[None])
    assert axes.pa_err[0] == ANGLE_LIMIT


def test_congruence_is_that_of_matrices():
    rng = np.random.default_rng(2)
    jacobian, half = rng.standard_normal((2, 2)), rng.standard_normal((2, 2))
    matrix = half @ half.T
    whole = jacobian @ matrix @ jacobian.T
    row = congruence(jacobian[None])[0] @ matrix[[0, 0, 1], [0, 1, 1]]
    assert_allclose(row, whole[[0, 0, 1], [0, 1, 1]])


@pytest.mark.parametrize("sigma", [1e-4, 0.01, 0.3, 1.0, 2.0, 5.0, 20.0])
def test_the_threshold_of_the_shape_test_has_the_tail_of_a_normal_variable(sigma):
    wanted = stats.chi2.isf(erfc(sigma / sqrt(2.0)), 3)
    assert_allclose(find_chi2_threshold(sigma), wanted, rtol=1e-6)
