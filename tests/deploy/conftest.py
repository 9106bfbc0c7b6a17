"""A release of trial stages, and an environment in which every process finds them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from house import QUIET, read_catalogue, survey_ml, write_release

ROOT = Path(__file__).parents[2]
YAML = """\
name: {name}
fields: ['fields/*.fits']
tiling: {{core_px: 32, halo_px: 4}}
stages: {{census: {{}}, smooth: {{seconds: {seconds}}}}}
engine: {{kind: ray, workers: 2, batch_seconds: 0.5}}
out: {name}
"""


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment with the trial stages installed and nothing of the user's Prefect or Ray."""
    site = tmp_path_factory.mktemp("site")
    info = site / "trial_stages-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trial-stages\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[survey_ml.v1]\ntrial = trial\n")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "RAY_", "SURVEY_ML_"))}
    paths = [str(ROOT), str(ROOT / "tests" / "engine"), str(site)]
    return {
        **kept,
        **QUIET,
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
    }


@pytest.fixture(scope="session")
def make_release(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that writes a release of one field of 3 x 3 tiles and returns its YAML."""

    def make(name: str, seconds: float = 0.0) -> Path:
        folder = write_release(tmp_path_factory.mktemp(name))
        path = folder / f"{name}.yaml"
        path.write_text(YAML.format(name=name, seconds=seconds))
        return path

    return make


@pytest.fixture(scope="session")
def expected(make_release: Callable[..., Path], environment: dict[str, str]) -> dict[str, Any]:
    """Return the catalogue that ``survey-ml run --engine local`` makes."""
    path = make_release("reference")
    answer = survey_ml(environment, "run", path, "--engine", "local", "--quiet")
    assert answer.returncode == 0, answer.stderr
    return read_catalogue(path.parent / "reference")
