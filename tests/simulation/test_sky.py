"""One seed fixes a simulated sky, and its truth is true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from survey_ml.simulation.sky import Recipe, draw_components, simulate_sky
from survey_ml.simulation.truth import REACH, measure_isolation

SMALL = Recipe(512, 7)


@pytest.fixture(scope="module")
def sky():
    return simulate_sky(SMALL)


def test_the_same_seed_gives_the_same_sky(sky):
    again = simulate_sky(SMALL)
    np.testing.assert_array_equal(sky.image, again.image)
    for name, values in sky.truth.items():
        np.testing.assert_array_equal(values, again.truth[name])
    assert not np.array_equal(sky.image, simulate_sky(replace(SMALL, seed=8)).image)


def test_another_noise_has_the_same_sources(sky):
    other = simulate_sky(replace(SMALL, correlation="psf"))
    np.testing.assert_array_equal(sky.truth["x"], other.truth["x"])
    assert not np.array_equal(sky.image, other.image)


def test_columns_and_kinds(sky):
    truth = sky.truth
    assert {"source_id", "kind", "x", "y", "ra", "dec", "total_flux", "peak_flux"} <= set(truth)
    assert {"major", "minor", "pa", "local_rms", "snr", "isolation"} <= set(truth)
    assert len({len(values) for values in truth.values()}) == 1
    assert set(truth["kind"]) <= {"point", "resolved", "lobe", "core", "diffuse"}
    points = truth["kind"] == "point"
    assert not truth["major"][points].any()
    np.testing.assert_allclose(truth["peak_flux"][points], truth["total_flux"][points])
    assert (truth["peak_flux"][~points] <= truth["total_flux"][~points]).all()
    x, y = sky.field.wcs.all_world2pix(np.stack([truth["ra"], truth["dec"]], axis=1), 0).T
    np.testing.assert_allclose(x, truth["x"], atol=1e-5)
    np.testing.assert_allclose(y, truth["y"], atol=1e-5)


def test_the_image_without_noise_is_what_the_truth_says():
    quiet = simulate_sky(replace(SMALL, content="grid", rms=1e-9, uniform=True))
    truth = quiet.truth
    assert len(truth["x"]) == 64
    assert truth["isolation"].min() > 60
    assert truth["snr"].min() >= 3
    assert truth["snr"].max() <= 300
    grid = simulate_sky(replace(SMALL, content="grid"))
    row, column = np.rint(grid.truth["y"]).astype(int), np.rint(grid.truth["x"]).astype(int)
    pull = (grid.image[row, column] - grid.truth["peak_flux"]) / grid.truth["local_rms"]
    bright = grid.truth["snr"] > 20
    near = np.hypot(grid.truth["x"] - column, grid.truth["y"] - row) < 0.2
    assert np.abs(pull[bright & near]).max() < 10
    np.testing.assert_allclose(
        grid.truth["peak_flux"], grid.truth["snr"] * grid.truth["local_rms"], rtol=1e-6
    )


def test_realistic_numbers():
    truth = simulate_sky(Recipe(1024, 5)).truth
    assert len(truth["x"]) == pytest.approx(78_300 / 16, rel=0.06)
    assert np.count_nonzero(truth["snr"] > 5) == pytest.approx(3_400 / 16, rel=0.3)
    assert np.count_nonzero(truth["kind"] == "point") / len(truth["x"]) == pytest.approx(0.60, abs=0.03)


def test_noise_only_blank_and_inverted(sky):
    noise = simulate_sky(replace(SMALL, content="noise"))
    assert len(noise.truth["x"]) == 0
    assert np.std(noise.image / noise.rms) == pytest.approx(1.0, abs=0.03)
    inverted = simulate_sky(replace(SMALL, inverted=True))
    np.testing.assert_array_equal(inverted.image, -sky.image)
    blank = simulate_sky(replace(SMALL, blank=True))
    hole = ~np.isfinite(blank.image)
    assert hole[0, 0]
    assert hole[170:173, 200].all()
    assert not hole[169, 200]
    assert hole[300, 330]
    kept = blank.truth
    assert len(kept["x"]) < len(sky.truth["x"])
    assert not hole[np.rint(kept["y"]).astype(int), np.rint(kept["x"]).astype(int)].any()


def test_artefacts_surround_bright_sources_and_nothing_else():
    seeds = (seed for seed in range(40) if _peak(replace(SMALL, seed=seed)) > 60e-3)
    bright = replace(SMALL, seed=next(seeds))
    plain, striped = simulate_sky(bright), simulate_sky(replace(bright, artefacts=True))
    change = np.abs(striped.image - plain.image).max()
    assert 0 < change < 0.0025 * plain.truth["peak_flux"].max() * 2
    np.testing.assert_array_equal(
        simulate_sky(replace(SMALL, content="noise", artefacts=True)).image,
        simulate_sky(replace(SMALL, content="noise")).image,
    )


def _peak(recipe):
    rng = np.random.default_rng(np.random.SeedSequence(recipe.seed).spawn(2)[0])
    components = draw_components(rng, recipe, np.ones(recipe.shape, np.float32))
    return components.flux[components.kind == 0].max()


def test_isolation_is_the_distance_to_what_matters():
    x = np.array([0.0, 3.0, 10.0, 500.0])
    y = np.zeros(4)
    peak = np.array([100.0, 5.0, 20.0, 1.0])
    isolation = measure_isolation(x, y, peak, peak)
    assert isolation[0] == 10.0  # the one at 3 has less than a tenth of its peak
    assert isolation[1] == 3.0
    assert isolation[2] == 7.0
    assert isolation[3] == REACH
    assert measure_isolation(x, y, peak, peak / 1e6).tolist() == [REACH] * 4


def test_isolation_agrees_with_all_pairs():
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 200, (2, 600))
    peak = np.exp(rng.normal(0, 2, 600))
    snr = peak * 2
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    counts = (snr > 1) & (peak > 0.1 * peak[:, None]) & ~np.eye(600, dtype=bool)
    expected = np.minimum(np.where(counts, distance, np.inf).min(axis=1), REACH)
    np.testing.assert_allclose(measure_isolation(x, y, peak, snr), expected)
