"""A way to call the command line, and a small release to call it on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_release import COMMAND, LEVEL, write_image


@dataclass
class Answer:
    """What a call of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on standard output."""
        return json.loads(self.out)


Call = Callable[..., Answer]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that calls ``survey-ml`` in this process."""
    from survey_ml.cli.group import call as call_cli

    def run(*args: object) -> Answer:
        capsys.readouterr()
        code = call_cli([str(arg) for arg in args])
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run


@pytest.fixture
def level_plugin(make_distribution, monkeypatch) -> Path:
    """Install the plugin of this file; return the folder it is in."""
    site = make_distribution("plugin-level", LEVEL)
    (site / "plugin_level_command.py").write_text(COMMAND)
    monkeypatch.syspath_prepend(str(site))
    yield site
    for name in ("plugin_level", "plugin_level_command"):
        sys.modules.pop(name, None)


@pytest.fixture
def plugin_path(level_plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other processes find the plugin."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(level_plugin), str(Path.cwd())]))


@pytest.fixture
def release(tmp_path: Path, level_plugin: Path) -> Path:
    """Return the YAML of a release of two fields that runs the free stage in this process."""
    folder = tmp_path / "release"
    folder.mkdir()
    for name, seed in (("east", 1), ("west", 2)):
        write_image(folder / f"{name}.fits", seed=seed)
    path = folder / "release.yaml"
    path.write_text(
        "name: small\nfields: ['*.fits']\nstages: {level: {}}\nengine: {kind: local}\n"
        "tiling: {core_px: 64}\nout: out\n"
    )
    return path
