"""`survey-ml models`: what there is, what it is, and whether it keeps its word."""

from __future__ import annotations

import sys

import pytest
from model_files import make_card, make_network, write_model

from survey_ml.models.card import Metric, Training
from survey_ml.models.format import save_model
from survey_ml.models.spec import MODELS
from survey_ml.plugins import get_manager

PLUGIN = """
from survey_ml.hookspecs import ModelSpec, hookimpl

@hookimpl
def survey_ml_models():
    return [ModelSpec("mine", "plug_files:path", summary="ours"), ModelSpec("gone", "plug_files:path")]
"""


@pytest.fixture
def plugin(make_distribution, monkeypatch):
    """Install a plugin that brings one model that is there and one that is not."""
    site = make_distribution("plug", PLUGIN)
    (site / "plug_files.py").write_text(
        f"from pathlib import Path\ndef path(name): return Path({str(site)!r}) / (name + '.safetensors')\n"
    )
    write_model(site / "mine.safetensors", group="D4")
    monkeypatch.syspath_prepend(str(site))
    yield site
    for name in ("plug", "plug_files"):
        sys.modules.pop(name, None)


def test_list_shows_built_in_models_and_those_of_plugins(call, plugin):
    answer = call("models", "list", "--json")
    found = {model["name"]: model for model in answer.json["models"]}
    assert {spec.name for spec in MODELS} | {"mine", "gone"} == found.keys()
    mine = found["mine"]
    assert mine["classes"] == ["FRI", "FRII"]
    assert (mine["origin"], mine["invariant_under"], mine["summary"]) == ("plug 1.0", "D4", "ours")
    assert mine["bytes"] == (plugin / "mine.safetensors").stat().st_size
    assert len(mine["hash"]) == 64
    assert "is not there" in found["gone"]["fault"]
    assert answer.code == 1
    text = call("models", "list")
    assert mine["hash"][:12] in text.out
    assert "broken:" in text.out


def test_plugins_shows_models(call, plugin):
    found = call("plugins", "--json").json["models"]
    assert {"name": "mine", "distribution": "plug"}.items() <= {
        k: v for model in found if model["name"] == "mine" for k, v in model.items()
    }.items()
    assert "mirabest-d4" in call("plugins").out
    assert get_manager().broken == []


def test_show_prints_the_card(call, tmp_path):
    network = make_network(group="D4")
    card = make_card(
        network.architecture,
        invariant_under="D4",
        training=Training(data="MiraBest", n=729, seeds=(3,), recipe={"epochs": 60}),
        metrics=(Metric(quantity="accuracy", value=0.95, low=0.9, high=0.98, n=104, data="test"),),
        limits="Nothing but FIRST was ever tried.",
    )
    path = tmp_path / "m.safetensors"
    digest = save_model(path, network, card)
    found = call("models", "show", path, "--json").json
    assert found["hash"] == digest
    assert found["card"]["metrics"][0]["value"] == 0.95
    assert found["card"]["preprocessing"]["side"] == 50
    text = call("models", "show", path).out
    for part in (digest, "D4", "729 images", "Nothing but FIRST", "0.950", "FRI, FRII", "epochs 60"):
        assert part in text


def test_show_names_what_is_wrong(call, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"\x80\x04x")
    answer = call("models", "show", tmp_path / "m.safetensors")
    assert answer.code == 2
    assert "a pickle" in answer.err
    answer = call("models", "show", "mirabest-d5")
    assert answer.code == 2
    assert "did you mean mirabest-d4" in answer.err


def test_check_passes_what_is_kept_and_fails_what_is_not(call, tmp_path):
    good = write_model(tmp_path / "good.safetensors", group="D4")
    answer = call("models", "check", good, "--n", 5, "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert found["passed"] is True
    assert [one["name"] for one in found["checks"]] == ["file", "batch", "runtimes", "symmetry"]
    assert len(found["symmetries"]) == 7
    network = make_network()
    liar = tmp_path / "liar.safetensors"
    save_model(liar, network, make_card(network.architecture, invariant_under="D4"))
    answer = call("models", "check", liar, "--n", 5)
    assert answer.code == 1
    assert "FAILED  symmetry" in answer.out
    assert "not invariant" in answer.out
    assert call("models", "check", tmp_path / "absent.safetensors").code == 2
