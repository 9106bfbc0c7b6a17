"""Extraction on an image in memory gives what the stages give, whatever the tiles."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.errors import ConfigError
from survey_ml.measure import measure_image
from survey_ml.simulation.sky import Recipe, simulate_sky
from survey_ml.validation.completeness import compare_with_truth


@pytest.fixture(scope="module")
def sky():
    return simulate_sky(Recipe(640, 5, blank=True))


@pytest.fixture(scope="module")
def whole(sky):
    return measure_image(sky.image, sky.field)


def test_it_finds_what_is_there_and_maps_cover_the_image(sky, whole):
    compared = compare_with_truth(whole["components"], sky.truth, radius=8.0)
    bright = sky.truth["snr"] > 10
    assert compared.found[bright].mean() > 0.9
    assert compared.total_reliability.value > 0.95
    for name in ("background", "rms", "residual", "model", "island_mask"):
        assert whole[name].shape == sky.image.shape
    data = np.isfinite(sky.image)
    assert np.median((whole["rms"] / sky.rms)[data]) == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(
        (whole["residual"] + whole["model"] + whole["background"])[data], sky.image[data], atol=1e-8
    )


def test_tiles_do_not_show(sky, whole):
    tiled = measure_image(sky.image, sky.field, core=160, noise_model=whole["noise_model"])
    for name in ("components", "sources", "islands"):
        for column, values in whole[name].items():
            np.testing.assert_array_equal(tiled[name][column], values, err_msg=f"{name}.{column}")
    np.testing.assert_array_equal(tiled["rms"], whole["rms"])


def test_options_reach_the_stage(sky, whole):
    high = measure_image(sky.image, sky.field, {"seed_snr": 20.0})
    assert 0 < len(high["islands"]["island_id"]) < len(whole["islands"]["island_id"])
    inverted = measure_image(-sky.image, sky.field, {"inverted": True})
    assert len(inverted["inverted"]["x"]) == len(whole["components"]["x"])


def test_a_wrong_shape_is_refused(sky):
    with pytest.raises(ConfigError, match="pixels"):
        measure_image(sky.image[:-1], sky.field)


def test_an_unknown_option_is_named_with_the_nearest(sky):
    with pytest.raises(ConfigError, match="seed_snrr") as caught:
        measure_image(sky.image, sky.field, {"seed_snrr": 5})
    assert "did you mean seed_snr?" in str(caught.value)
    with pytest.raises(ConfigError, match="stage extraction"):
        measure_image(sky.image, sky.field, {"seed_snr": "much"})
