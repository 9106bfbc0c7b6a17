"""Models are found by name, file or folder; a plugin that is broken spoils no other."""

from __future__ import annotations

import json
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from model_files import write_model

from survey_ml.errors import ConfigError, PluginError
from survey_ml.models.registry import find_model, list_models
from survey_ml.models.spec import MODELS
from survey_ml.plugins import load_plugins

PLUGIN = """
from survey_ml.hookspecs import ModelSpec, hookimpl

@hookimpl
def survey_ml_models():
    return [{specs}]
"""
GOOD = 'ModelSpec("mine", "{module}_files:path", summary="ours")'


@pytest.fixture
def install(make_distribution, monkeypatch):
    """Install plugins; return the registry of what is there then."""
    seen: list[str] = []

    def put(**sources: str):
        for name, source in sources.items():
            site = make_distribution(name, source)
            (site / f"{name}_files.py").write_text(
                "import sys\nfrom pathlib import Path\n"
                f"def path(name): return Path({str(site)!r}) / f'{{name}}.safetensors'\n"
                "def number(name): return 7\ndef fail(name): return 1 / 0\n"
                "def leave(name): sys.exit(3)\n"
            )
            seen.extend((name, f"{name}_files"))
        monkeypatch.syspath_prepend(str(site))
        return load_plugins(e for d in distributions(path=[str(site)]) for e in d.entry_points), site

    yield put
    for name in seen:
        sys.modules.pop(name, None)


def test_a_plugin_brings_a_model(install):
    registry, site = install(plug=PLUGIN.format(specs=GOOD.format(module="plug")))
    assert registry.broken == []
    path = write_model(site / "mine.safetensors")
    found = find_model("mine", registry)
    assert (found.name, found.path, found.origin, found.fault) == ("mine", path, "plug 1.0", "")
    listed = list_models(registry)
    assert [model.name for model in listed] == [*sorted(spec.name for spec in MODELS), "mine"]
    assert all(model.origin.startswith("survey-ml ") for model in listed[:-1])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ('ModelSpec("bad", "bad_files:number")', "returned int"),
        ('ModelSpec("bad", "bad_files:fail")', "ZeroDivisionError"),
        ('ModelSpec("bad", "bad_files:leave")', "SystemExit"),
        ('ModelSpec("bad", "bad_files:nothing")', "cannot be imported"),
        ('ModelSpec("bad", "no_such_module:path")', "cannot be imported"),
        ('ModelSpec("bad", "bad_files:path")', "is not there"),
    ],
)
def test_a_model_without_a_file_is_named_and_harms_nothing(install, spec, said):
    registry, site = install(
        bad=PLUGIN.format(specs=spec), good=PLUGIN.format(specs=GOOD.format(module="good"))
    )
    write_model(site / "mine.safetensors")
    faults = {model.name: model.fault for model in list_models(registry)}
    assert said in faults["bad"]
    assert faults["mine"] == ""
    with pytest.raises(PluginError, match=r"model bad of bad 1\.0"):
        find_model("bad", registry)
    assert find_model("mine", registry).fault == ""


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ('ModelSpec("Bad Name", "a:b")', "lower-case"),
        ('ModelSpec("bad", "a/b.safetensors")', "package.module"),
        ('ModelSpec("bad", "a:b", api=(1, 99))', "update survey_ml"),
        ('ModelSpec("mirabest-d4", "a:b")', "also provided by survey-ml"),
        ('"mirabest"', "list of ModelSpec"),
    ],
)
def test_a_broken_announcement_is_listed(install, specs, said):
    registry, _ = install(bad=PLUGIN.format(specs=specs))
    assert [said in broken.cause for broken in registry.broken] == [True]
    assert sorted(spec.name for spec in registry.models()) == sorted(spec.name for spec in MODELS)


def test_a_model_of_a_broken_plugin_that_may_be_meant_is_named(install):
    registry, _ = install(bad=PLUGIN.format(specs='ModelSpec("wanted", "a:b", api=(9, 0))'))
    with pytest.raises(ConfigError, match="plugin bad is broken"):
        find_model("wanted", registry)


def test_files_and_folders_are_models(tmp_path):
    registry = load_plugins([])
    path = write_model(tmp_path / "trial.safetensors")
    for given in (path, str(path), tmp_path, str(tmp_path)):
        found = find_model(given, registry)
        assert (found.name, found.path, found.origin) == ("trial", path, "file")
    write_model(tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"holds 2 models: other\.safetensors, trial\.safetensors"):
        find_model(tmp_path, registry)
    with pytest.raises(ConfigError, match="holds 0 models"):
        find_model(Path(__file__).parents[1] / "models" / "..", registry)


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean mirabest-d4") as caught:
        find_model("mirabest_d4", load_plugins([]))
    assert "firstgalaxy-forest" in caught.value.hint


def test_plugins_lists_models(install):
    from survey_ml.cli.plugins import describe

    registry, _ = install(plug=PLUGIN.format(specs=GOOD.format(module="plug")))
    found = describe(registry, [])["models"]
    assert json.loads(json.dumps(found[-1]))["distribution"] in ("plug", "survey-ml")
    assert {"mine", "mirabest-d4"} <= {model["name"] for model in found}
