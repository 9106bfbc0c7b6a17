"""A small release and its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_release import make_store

from survey_ml.data.store import ReleaseStore


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    return make_store(tmp_path / "out")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((150, 100)).astype(np.float32)
