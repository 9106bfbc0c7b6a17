"""Shapes between pixels and sky in awkward projections, against astropy's spherical geometry."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from numpy.testing import assert_allclose

from survey_ml.field import Beam, Field
from survey_ml.stages.extraction.components import Shapes, describe_shapes, invert_precision
from survey_ml.stages.extraction.model import FWHM
from survey_ml.stages.extraction.projection import beam_precision, congruence, locate, measure_jacobians

SHAPE = (900, 1000)
BEAM = Beam(8.0, 5.0, 35.0)

FIELDS = {
    "usual": {},
    "RA grows to the right": {"CDELT1": 2 / 3600},
    "upside down": {"CDELT2": -2 / 3600},
    "turned": {"PC1_1": 0.6, "PC1_2": -0.8, "PC2_1": 0.8, "PC2_2": 0.6},
    "oblong pixels": {"CDELT1": -1.2 / 3600},
    "across RA 0": {"CRVAL1": 0.02, "CRVAL2": 40.0},
    "across RA 0 flipped": {"CRVAL1": 359.99, "CRVAL2": -65.0, "CDELT1": 2 / 3600},
    "near the pole": {"CRVAL1": 80.0, "CRVAL2": 89.8, "CTYPE1": "'RA---TAN'", "CTYPE2": "'DEC--TAN'"},
    "near the south pole": {"CRVAL1": 80.0, "CRVAL2": -89.7, "CDELT1": 2 / 3600},
    "declination first": {
        "CTYPE1": "'DEC--SIN'", "CTYPE2": "'RA---SIN'", "CRVAL1": -30.0, "CRVAL2": 150.0,
        "CDELT1": 2 / 3600, "CDELT2": -2 / 3600,
    },
}  # fmt: skip


def build_field(changes, beam=BEAM):
    cards = {
        "WCSAXES": 2, "CTYPE1": "'RA---SIN'", "CTYPE2": "'DEC--SIN'", "CRVAL1": 150.0, "CRVAL2": -30.0,
        "CRPIX1": 480.0, "CRPIX2": 450.0, "CDELT1": -2 / 3600, "CDELT2": 2 / 3600,
        "CUNIT1": "'deg'", "CUNIT2": "'deg'", "RADESYS": "'ICRS'", **changes,
    }  # fmt: skip
    header = "".join(f"{key:<8}= {value!s:>22}".ljust(80) for key, value in cards.items())
    return Field("sky", SHAPE, header, beam, 1.4e9)


@pytest.fixture(params=FIELDS)
def any_field(request):
    return build_field(FIELDS[request.param])


def find_pixels(field, sky):
    """Zero-based x, y by astropy's high-level interface, whatever the order of the axes."""
    return np.array(field.wcs.world_to_pixel(sky))


PLACES = np.array([60.0, 470.0, 930.0]), np.array([840.0, 455.0, 30.0])


def test_positions_are_those_of_astropy(any_field):
    sky = any_field.wcs.pixel_to_world(*PLACES)
    found = locate(any_field.wcs, *PLACES)
    assert ((found[:, 0] >= 0.0) & (found[:, 0] < 360.0)).all()
    assert SkyCoord(*found.T, unit="deg").separation(sky).arcsec.max() < 1e-6


def test_the_beam_reaches_as_far_as_astropy_says(any_field):
    """A point one sigma along an axis from a source, on the sphere, lies at one sigma in pixels."""
    precision = beam_precision(any_field.beam, measure_jacobians(any_field.wcs, *PLACES))
    sky = any_field.wcs.pixel_to_world(*PLACES)
    axes = ((BEAM.pa, BEAM.major), (BEAM.pa + 90.0, BEAM.minor))
    for angle, fwhm in axes:
        there = sky.directional_offset_by(angle * u.deg, fwhm / FWHM * u.arcsec)
        dx, dy = find_pixels(any_field, there) - find_pixels(any_field, sky)
        a, b, c = precision.T
        assert_allclose(a * dx * dx + 2 * b * dx * dy + c * dy * dy, 1.0, rtol=2e-3)
    # The axes are conjugate: an ellipse of these lengths at another angle would pass through neither.
    ends = [
        find_pixels(any_field, sky.directional_offset_by(angle * u.deg, fwhm / FWHM * u.arcsec))
        - find_pixels(any_field, sky)
        for angle, fwhm in axes
    ]
    matrix = precision[:, [[0, 1], [1, 2]]]
    assert_allclose(np.einsum("in,nij,jn->n", ends[0], matrix, ends[1]), 0.0, atol=2e-3)
    assert (np.linalg.eigvalsh(matrix) > 0.0).all()


def describe(field, precision, spread=None, point=False):
    """Columns of components of given precision matrices (n, 3) at `PLACES`."""
    n = len(precision)
    shape, slopes = invert_precision(precision)
    error = np.zeros((n, 3, 3)) if spread is None else slopes @ spread @ np.swapaxes(slopes, 1, 2)
    shapes = Shapes(
        x=PLACES[0][:n], y=PLACES[1][:n], position=np.tile([0.04, 0.01, 0.09], (n, 1)),
        shape=shape, shape_error=error, point=np.full(n, point), excess=np.full((n, 9), np.nan),
    )  # fmt: skip
    return describe_shapes(shapes, field, np.full(n, 50.0), np.zeros(n), np.full(n, 0.1))


@pytest.mark.parametrize("intrinsic", [Beam(9.0, 4.0, 110.0), Beam(6.0, 2.0, 5.0), Beam(3.0, 0.5, 170.0)])
def test_convolving_and_deconvolving_return_the_source(any_field, intrinsic):
    """Axes and angle of the source survive the beam, the projection and back."""
    jacobians = measure_jacobians(any_field.wcs, *PLACES)
    upper = np.array([[0, 0, 1], [0, 1, 1]])
    both = [np.linalg.inv(beam_precision(beam, jacobians)[:, [[0, 1], [1, 2]]]) for beam in (intrinsic, BEAM)]
    precision = np.linalg.inv(both[0] + both[1])[:, upper[0], upper[1]]
    found = describe(any_field, precision, np.tile(1e-8 * np.eye(3), (3, 1, 1)))
    assert_allclose(found["dc_major"], intrinsic.major, rtol=1e-6)
    assert_allclose(found["dc_minor"], intrinsic.minor, rtol=1e-5)
    assert_allclose((found["dc_pa"] - intrinsic.pa + 90.0) % 180.0 - 90.0, 0.0, atol=1e-4)
    assert found["resolved"].all()
    assert (found["major"] > np.maximum(found["dc_major"], BEAM.major)).all()


def test_a_point_has_the_shape_of_the_beam(any_field):
    beams = beam_precision(BEAM, measure_jacobians(any_field.wcs, *PLACES))
    small = np.tile(1e-8 * np.eye(3), (3, 1, 1))
    for found in (describe(any_field, beams, small), describe(any_field, beams, point=True)):
        assert_allclose(found["major"], BEAM.major, rtol=1e-6)
        assert_allclose(found["minor"], BEAM.minor, rtol=1e-6)
        assert_allclose(found["pa"], BEAM.pa, atol=1e-4)
        assert not found["resolved"].any()
    assert np.isnan(found["dc_pa"]).all()
    assert_allclose(found["dc_major"], 0.0)
    # Without a test of the shape: what 50 sigma can tell, some way below the beam.
    assert ((found["dc_limit"] > 0.1 * BEAM.major) & (found["dc_limit"] < 0.6 * BEAM.major)).all()


def test_position_errors_are_those_of_draws_on_the_sphere(any_field):
    beams = beam_precision(BEAM, measure_jacobians(any_field.wcs, *PLACES))
    found = describe(any_field, beams)
    covariance = np.array([[0.04, 0.01], [0.01, 0.09]])
    shift = np.random.default_rng(3).multivariate_normal([0.0, 0.0], covariance, 4000)
    for i in range(3):
        here = any_field.wcs.pixel_to_world(PLACES[0][i], PLACES[1][i])
        drawn = any_field.wcs.pixel_to_world(PLACES[0][i] + shift[:, 0], PLACES[1][i] + shift[:, 1])
        distance, angle = here.separation(drawn).deg, here.position_angle(drawn).rad
        assert_allclose(found["ra_err"][i], np.std(distance * np.sin(angle)), rtol=0.05)
        assert_allclose(found["dec_err"][i], np.std(distance * np.cos(angle)), rtol=0.05)


@pytest.mark.parametrize("name", ["usual", "RA grows to the right", "near the pole"])
def test_size_errors_are_those_of_draws(name):
    """Draws of the precision matrix go through the same columns; their scatter is the error."""
    field = build_field(FIELDS[name])
    jacobian = measure_jacobians(field.wcs, *PLACES)[:1]
    precision = beam_precision(Beam(14.0, 9.0, 75.0), jacobian)
    root = 0.004 * np.array([[1.0, 0.0, 0.0], [0.3, 0.8, 0.0], [0.2, -0.4, 1.1]]) * precision[0, 0] * 3
    covariance = root @ root.T
    found = describe(field, precision, covariance[None])
    draws = precision + np.random.default_rng(6).standard_normal((5000, 3)) @ root.T
    n = len(draws)
    shapes = Shapes(
        x=np.full(n, PLACES[0][0]), y=np.full(n, PLACES[1][0]), position=np.ones((n, 3)),
        shape=invert_precision(draws)[0], shape_error=np.zeros((n, 3, 3)), point=np.zeros(n, bool),
        excess=np.full((n, 9), np.nan),
    )  # fmt: skip
    many = describe_shapes(shapes, field, np.full(n, 50.0), np.zeros(n), np.ones(n))
    for column in ("major", "minor", "pa", "dc_major", "dc_minor"):
        assert found[f"{column}_err"][0] > 0.0
        assert_allclose(found[f"{column}_err"][0], np.std(many[column]), rtol=0.06, err_msg=column)


def test_the_derivatives_of_an_inverse_are_those_of_differences():
    row = np.array([[0.4, 0.1, 0.7]])
    covariance, slopes = invert_precision(row)
    inverse = np.linalg.inv(row[0][[[0, 1], [1, 2]]])
    assert_allclose(covariance[0], inverse[[0, 0, 1], [0, 1, 1]])
    for j in range(3):
        step = np.zeros((1, 3))
        step[0, j] = 1e-6
        change = (invert_precision(row + step)[0] - invert_precision(row - step)[0]) / 2e-6
        assert_allclose(slopes[0, :, j], change[0], rtol=1e-6, atol=1e-8)


def test_a_shape_turned_onto_the_sky_and_back_is_itself(any_field):
    jacobians = measure_jacobians(any_field.wcs, *PLACES)
    there, back = congruence(jacobians), congruence(np.linalg.inv(jacobians))
    assert_allclose(back @ there, np.broadcast_to(np.eye(3), (3, 3, 3)), atol=1e-9)
