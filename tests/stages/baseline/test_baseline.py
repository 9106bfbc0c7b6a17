"""The baseline finder: peaks where they are, once each, whatever the tiles."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.field import split_tiles
from survey_ml.stage import Inputs
from survey_ml.stages.baseline.peaks import find_peaks, refine_peaks
from survey_ml.stages.baseline.stage import Baseline, BaselineOptions

COLUMNS = {"peak_id", "ra", "dec", "x", "y", "peak_flux", "local_rms", "snr"}
RMS = 2e-5


@pytest.fixture(scope="module")
def sky(make_noise, add_source, beam_covariance):
    """A grid of sources from 8 to 300 sigma at known places; the left edge is blank."""
    image = make_noise((480, 500), beam_covariance / 2, 1)
    rng = np.random.default_rng(2)
    truth = []
    for y in range(30, 470, 40):
        for x in range(40, 490, 40):
            place = (*(np.array([y, x]) + rng.uniform(-0.5, 0.5, 2)), float(8 * 10 ** rng.uniform(0, 1.57)))
            add_source(image, *place, beam_covariance)
            truth.append(place)
    image *= np.float32(RMS)
    image[:, :20] = np.nan
    return image, np.array(truth)


def run(image, field, core, seed_snr=5.0):
    stage = Baseline(BaselineOptions(seed_snr=seed_snr))
    parts = []
    for tile in split_tiles(image.shape, core, stage.halo(field)):
        inputs = Inputs(field, tile, arrays={"image": image[tile.window.slices]})
        parts.append(stage.run(inputs)["peaks"])
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def test_every_source_is_found_where_it_is(sky, make_field):
    image, truth = sky
    peaks = run(image, make_field(image.shape), 1024)
    assert set(peaks) == COLUMNS
    distance = np.hypot(peaks["y"][:, None] - truth[:, 0], peaks["x"][:, None] - truth[:, 1])
    nearest = distance.argmin(axis=0)
    assert distance.min(axis=0).max() < 1.5
    assert len(peaks["x"]) < len(truth) + 5
    bright = truth[:, 2] > 50
    assert np.median(distance.min(axis=0)[bright]) < 0.08
    np.testing.assert_allclose(np.median(peaks["peak_flux"][nearest] / truth[:, 2] / RMS), 1.0, atol=0.01)
    np.testing.assert_allclose(np.median(peaks["local_rms"]), RMS, rtol=0.04)


def test_positions_on_the_sky_match_the_pixels(sky, make_field):
    image, _ = sky
    field = make_field(image.shape)
    peaks = run(image, field, 1024)
    x, y = field.wcs.all_world2pix(peaks["ra"], peaks["dec"], 0)
    np.testing.assert_allclose(x, peaks["x"], atol=1e-6)
    np.testing.assert_allclose(y, peaks["y"], atol=1e-6)
    assert (peaks["snr"] > 5).all()
    assert np.abs(peaks["peak_id"] // image.shape[1] - peaks["y"]).max() <= 1
    assert np.abs(peaks["peak_id"] % image.shape[1] - peaks["x"]).max() <= 1


@pytest.mark.parametrize("core", [64, 97, 250])
def test_tiles_do_not_change_the_answer(sky, make_field, core):
    image, _ = sky
    field = make_field(image.shape)
    one, many = run(image, field, 1024), run(image, field, core)
    order = np.argsort(many["peak_id"])
    assert len(np.unique(many["peak_id"])) == len(order)
    for name in COLUMNS:
        np.testing.assert_array_equal(many[name][order], one[name][np.argsort(one["peak_id"])])


def test_a_blank_tile_gives_an_empty_table(make_field):
    field = make_field((90, 90))
    peaks = run(np.full((90, 90), np.nan, np.float32), field, 90)
    assert {name: len(values) for name, values in peaks.items()} == dict.fromkeys(COLUMNS, 0)
    assert peaks["peak_id"].dtype == np.int64
    assert peaks["ra"].dtype == np.float64


def test_the_first_of_equal_pixels_is_the_peak():
    image = np.zeros((5, 6), dtype=np.float32)
    image[2, 2:4] = 9
    flat, ones = np.zeros_like(image), np.ones_like(image)
    assert find_peaks(image, flat, ones, 5.0, 0, 5, 0, 6).tolist() == [[2, 2]]
    assert find_peaks(image, flat, ones, 9.0, 0, 5, 0, 6).tolist() == []
    assert find_peaks(image, flat, ones, 5.0, 0, 5, 3, 6).tolist() == []


def test_a_gaussian_is_refined_exactly(add_source):
    image = np.zeros((21, 21))
    add_source(image, 10.3, 9.8, 7.0, np.array([[3.0, 0.8], [0.8, 2.0]]))
    y, x, value = refine_peaks(image, np.array([[10, 10]]))
    np.testing.assert_allclose([y[0], x[0], value[0]], [0.3, -0.2, 7.0], rtol=1e-6)


def test_a_peak_beside_blank_pixels_stays_on_its_pixel():
    image = np.array([[np.nan, 3.0, np.nan], [np.nan, 8.0, 5.0], [np.nan, 2.0, -1.0]], dtype=np.float32)
    y, x, value = refine_peaks(image, np.array([[1, 1]]))
    assert x[0] == 0.0
    assert -0.5 <= y[0] < 0.0
    assert value[0] >= 8.0
