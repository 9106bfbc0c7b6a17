"""A release and an operator say which plugins may be used; others are not even imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from survey_ml.allowed import allowing, operator_list, release_list, select
from survey_ml.config import ReleaseConfig
from survey_ml.errors import ConfigError
from survey_ml.plugins import load_plugins

PLUGIN = """
from pathlib import Path
Path({marker!r}).touch()
from survey_ml.hookspecs import hookimpl
from survey_ml.products import array, summary
from survey_ml.stage import Scope, Stage, StageSpec

class Count(Stage):
    def run(self, inputs):
        return {{"{name}": {{"n": 1}}}}

@hookimpl
def survey_ml_stages():
    return [StageSpec("{name}", "plugin_{name}:Count", reads=(array("image"),), writes=(summary("{name}"),))]
"""


@pytest.fixture
def site(make_distribution, tmp_path) -> Path:
    """Install two plugins that leave a mark when they are imported."""
    for name in ("one", "two"):
        source = PLUGIN.format(name=name, marker=str(tmp_path / f"imported-{name}"))
        site = make_distribution(f"plugin-{name}", source)
    return site


def call(site: Path, *args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("SURVEY_ML_")}
    path = os.pathsep.join([str(site), *(p for p in sys.path if p)])
    return subprocess.run(
        [sys.executable, "-m", "survey_ml.cli", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
        env=known | {"PYTHONPATH": path} | environment,
        check=False,
    )


def write_release(folder: Path, more: str = "") -> Path:
    import numpy as np

    from survey_ml.data.sky import write_image
    from survey_ml.field import Beam, Field
    from survey_ml.simulation.sky import make_cards

    cards = "".join(card.ljust(80) for card in make_cards((64, 64), 2.0, (150.0, 2.0)))
    image = np.random.default_rng(1).normal(0, 1e-4, (64, 64)).astype(np.float32)
    write_image(folder / "a.fits", image, Field("a", (64, 64), cards, Beam(8.0, 8.0, 0.0), 1.4e9))
    path = folder / "release.yaml"
    path.write_text(f"name: r\nfields: ['*.fits']\nstages: {{one: {{}}}}\nout: out\n{more}")
    return path


def entry(name: str, distribution: str):
    from importlib.metadata import EntryPoint

    class Dist:
        version = "1"

        def __init__(self, name):
            self.name = name

    return EntryPoint(name, "m", "survey_ml.v1")._for(Dist(distribution))


def test_both_lists_must_name_a_plugin():
    found = [entry("a", "Dist.A"), entry("b", "dist-b"), entry("c", "dist-c")]
    selection = select(found, ("dist_a", "b"), ("b", "c", "nobody"))
    assert [e.name for e in selection.chosen] == ["b"]
    assert [(n.name, n.cause) for n in selection.not_allowed] == [
        ("a", "not allowed: plugins.allow does not name it"),
        ("c", "not allowed: SURVEY_ML_PLUGINS does not name it"),
    ]
    assert selection.missing == (("nobody", "plugins.allow"),)
    assert [e.name for e in select(found).chosen] == ["a", "b", "c"]
    assert select(found, allow=()).chosen == ()


def test_the_list_of_a_release_lasts_as_long_as_its_context(monkeypatch):
    monkeypatch.setenv("SURVEY_ML_PLUGINS", "a, b,")
    assert operator_list() == ("a", "b")
    with allowing(["x"]):
        with allowing(None):
            assert release_list() is None
        assert release_list() == ("x",)
    assert release_list() is None


def test_a_release_allows_all_unless_it_says_otherwise():
    given = {"name": "r", "fields": ["a"], "out": "o"}
    assert ReleaseConfig(**given).plugins.allow is None
    assert ReleaseConfig(**given, plugins={"allow": ["a"]}).plugins.allow == ("a",)


def test_a_stage_of_a_plugin_that_is_not_allowed_is_explained():
    registry = load_plugins([entry("a", "dist-a")], allow=[])
    assert [n.distribution for n in registry.not_allowed] == ["dist-a"]
    assert registry.broken == []
    with pytest.raises(ConfigError, match=r"no stage other.*plugin dist-a is not allowed: plugins\.allow"):
        registry.stage("other")


def test_a_run_imports_only_what_the_release_allows(site, tmp_path):
    release = write_release(tmp_path, "plugins: {allow: [plugin-one]}\n")
    done = call(site, "run", release, "--engine", "local", "--json")
    assert done.returncode == 0, done.stderr
    assert "installed but not allowed in this release: plugin-two" in done.stderr
    assert (tmp_path / "imported-one").exists()
    assert not (tmp_path / "imported-two").exists()
    for command in (["check", release], ["plan", release], ["export", tmp_path / "out"]):
        assert call(site, *command).returncode == 0
    assert not (tmp_path / "imported-two").exists()


def test_an_operator_can_only_narrow_what_a_release_allows(site, tmp_path):
    release = write_release(tmp_path, "plugins: {allow: [plugin-one]}\n")
    done = call(site, "run", release, "--engine", "local", SURVEY_ML_PLUGINS="two")
    assert done.returncode == 2
    assert "plugin plugin-one is not allowed: SURVEY_ML_PLUGINS does not name it" in done.stderr
    assert not list(tmp_path.glob("imported-*"))


def test_plugins_lists_what_is_not_allowed(site, tmp_path):
    release = write_release(tmp_path, "plugins: {allow: [one]}\n")
    found = json.loads(call(site, "plugins", "--json", SURVEY_ML_PLUGINS="").stdout)
    assert {n["distribution"] for n in found["not_allowed"]} >= {"plugin-one", "plugin-two"}
    assert not list(tmp_path.glob("imported-*"))
    text = call(site, "plugins", "--release", release).stdout
    assert "not allowed:\n" in text
    assert "two (plugin-two 1.0): plugins.allow does not name it" in text
    assert not (tmp_path / "imported-two").exists()


@pytest.mark.slow
def test_workers_on_ray_refuse_what_their_machine_does_not_allow(site, tmp_path):
    """The driver allows the plugin; the environment of the cluster, started apart, does not."""
    from ray_process import ray_cluster

    release = write_release(tmp_path)
    known = {"PYTHONPATH": os.pathsep.join([str(site), *(p for p in sys.path if p)])}
    with ray_cluster(**known, SURVEY_ML_PLUGINS="two") as attached:
        done = call(site, "run", release, "--json", **attached)
    assert done.returncode in (1, 2), done.stderr
    assert "stage one of plugin-one is not allowed: SURVEY_ML_PLUGINS does not name it" in done.stdout
