"""Published images, or a skip that says what is missing."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import pytest

from survey_ml.data.labelled.mirabest import ARCHIVE, MiraBest, read_mirabest_table
from survey_ml.data.labelled.reading import find_data, read_labelled
from survey_ml.errors import ConfigError
from survey_ml.labelled import LabelledImages


@cache
def read_mirabest() -> MiraBest:
    try:
        path = find_data(ARCHIVE)
    except ConfigError as error:
        pytest.skip(f"{error.message}; set SURVEY_ML_DATA")
    return read_mirabest_table(path)


@cache
def read_published(name: str, subset: str | None = None, split: str | None = None) -> LabelledImages:
    if name == "firstgalaxy" and find_spec("firstgalaxydata") is None:
        pytest.skip("firstgalaxydata is not installed")
    try:
        return read_labelled(name, subset, split)
    except ConfigError as error:
        if "is not in" not in error.message:
            raise
        pytest.skip(f"{error.message}; set SURVEY_ML_DATA")
