"""Limits that the configuration sets to tiles and workers."""

from __future__ import annotations

import pytest

from survey_ml.config import Engine
from survey_ml.errors import ConfigError
from survey_ml.loader import config_for_images


def test_a_time_limit_needs_an_engine_that_can_keep_it(tmp_path):
    assert Engine(tile_seconds=5).tile_seconds == 5.0
    with pytest.raises(ConfigError, match=r"engine.tile_seconds: a limit needs the ray engine"):
        config_for_images(["a.fits"], str(tmp_path), settings=["engine.tile_seconds=5"], engine="local")
    freed = ["engine.tile_seconds=5", "engine.tile_seconds=null"]
    assert config_for_images(["a.fits"], str(tmp_path), settings=freed, engine="local")
