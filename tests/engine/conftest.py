"""Fixtures of the engine's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from releases import make_registry, write_fields


@pytest.fixture(scope="session")
def registry():
    """Return the stages of `trial` beside the built-in ones."""
    return make_registry()


@pytest.fixture
def release_folder(tmp_path: Path) -> Path:
    """Return a folder with two fields of 3 x 3 tiles."""
    return write_fields(tmp_path)
