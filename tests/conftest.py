"""What tests of several rooms share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MakeDistribution = Callable[..., Path]


@pytest.fixture
def make_distribution(tmp_path: Path) -> MakeDistribution:
    """Return a function that puts an installed plugin distribution into a folder for ``sys.path``."""

    def make(name: str, source: str, *, version: str = "1.0", entry: str = "", folder: str = "site") -> Path:
        site = tmp_path / folder
        module = name.replace("-", "_")
        site.mkdir(exist_ok=True)
        (site / f"{module}.py").write_text(source)
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[survey_ml.v1]\n{entry or module} = {module}\n")
        return site

    return make
