"""A new plugin passes its own tests and the checks as it is, and nothing is ever overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from kits import call

from survey_ml.cli.starter import make_plugin
from survey_ml.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_new_plugin_passes_its_tests_and_the_checks(tmp_path):
    path = os.pathsep.join(path for path in sys.path if path)
    done = call(path, "plugins", "new", "wide-light", "--into", tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "wide-light"
    done = call(path, "plugins", "check", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stage wide_light" in done.stdout
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "6 passed" in tests.stdout


def test_the_new_names_are_everywhere(tmp_path):
    folder = make_plugin("wide-light", tmp_path)
    text = "".join(path.read_text() for path in sorted(folder.rglob("*.*")) if path.is_file())
    assert "survey_ml_template" not in text
    assert "survey-ml-template" not in text
    assert 'name = "wide-light"' in text
    assert 'wide-light = "wide_light.plugin"' in text
    assert 'name="wide_light"' in text
    assert "wide_light: {outer_beams: 1.5}" in text
    assert {path.name for path in tmp_path.iterdir()} == {"wide-light"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Wide", "no name for a plugin"),
        ("wide light", "no name for a plugin"),
        ("../wide", "no name for a plugin"),
        ("-wide", "no name for a plugin"),
        ("w" * 41, "no name for a plugin"),
        ("json", "uses itself"),
        ("class", "uses itself"),
        ("survey-ml", "uses itself"),
        ("numpy", "is installed already"),
        ("extraction", "name of a built-in stage"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(tmp_path, name, said):
    with pytest.raises(ConfigError, match=said):
        make_plugin(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "wide").mkdir()
    (tmp_path / "narrow").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("mine")
    for name in ("wide", "narrow"):
        with pytest.raises(ConfigError, match="exists; nothing was written"):
            make_plugin(name, tmp_path)
    with pytest.raises(ConfigError, match="cannot be written"):
        make_plugin("other", tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {"wide", "narrow", "file"}


@pytest.mark.slow
def test_an_installed_wheel_has_the_template(tmp_path):
    """The wheel by itself, made from the source distribution as an index would serve it."""
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    done = call(str(site), "plugins", "new", "wide-light", "--into", tmp_path)
    assert done.returncode == 0, done.stderr
    mine, theirs = make_plugin("wide-light", tmp_path / "again"), tmp_path / "wide-light"
    names = {path.relative_to(mine) for path in mine.rglob("*") if path.is_file()}
    assert names == {path.relative_to(theirs) for path in theirs.rglob("*") if path.is_file()}
    assert all((mine / name).read_bytes() == (theirs / name).read_bytes() for name in names)
