"""A smeared point source keeps its flux when the finder is told how wide points are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from survey_ml.field import Beam
from survey_ml.measure import measure_image
from survey_ml.stages.extraction.options import ExtractionOptions

WIDER = 1.2


@pytest.fixture(scope="module")
def smeared(make_noise, make_field, beam_covariance, add_source):
    """100 sources of S/N 20 whose axes are a fifth wider than the beam's."""
    shape = (700, 700)
    image = make_noise(shape, beam_covariance / 2, 3)
    rng = np.random.default_rng(4)
    for y in range(40, 680, 64):
        for x in range(40, 680, 64):
            dy, dx = rng.uniform(-1, 1, 2)
            add_source(image, y + dy, x + dx, 20.0, beam_covariance * WIDER**2)
    return image, make_field(shape)


def test_totals_count_areas_of_the_beam(smeared):
    image, field = smeared
    beam = field.beam
    wide = (beam.major * WIDER, beam.minor * WIDER, beam.pa)
    found = measure_image(image, field, ExtractionOptions(point_arcsec=wide))["components"]
    assert len(found["peak_flux"]) == 100
    assert_allclose(np.median(found["peak_flux"]), 20.0, rtol=0.02)
    assert_allclose(np.median(found["total_flux"]), 20.0 * WIDER**2, rtol=0.02)
    assert found["resolved"].mean() < 0.05
    assert_allclose(np.median(found["major"]), wide[0], rtol=0.01)


def test_the_same_as_a_field_with_that_beam_but_for_the_unit(smeared):
    image, field = smeared
    wide = Beam(field.beam.major * WIDER, field.beam.minor * WIDER, field.beam.pa)
    told = measure_image(image, field, ExtractionOptions(point_arcsec=(wide.major, wide.minor, wide.pa)))
    other = measure_image(image, replace(field, beam=wide))
    for table in ("components", "sources"):
        assert_allclose(told[table]["x"], other[table]["x"], atol=0.05)
        ratio = np.median(told[table]["total_flux"] / other[table]["total_flux"])
        assert_allclose(ratio, WIDER**2, rtol=0.02)
