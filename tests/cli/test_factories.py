"""What plugins name is imported in processes of its own, so that nothing it does ends the listing."""

from __future__ import annotations

import pytest

HEAD = """
from survey_ml.hookspecs import CommandSpec, ExporterSpec, hookimpl
from survey_ml.products import Column, table
from survey_ml.stage import StageSpec
C = (Column("row", "int64"),)

@hookimpl
def survey_ml_stages():
    return [StageSpec(f"odd_{name}", f"plugin_odd_{name}:Odd", writes=(table(f"odd_{name}s", columns=C),))
            for name in ("good", "exits", "function", "lost", "raises")]
"""
MODULES = {
    "good": "from survey_ml.stage import Stage\nprint('hello')\nclass Odd(Stage):\n    pass\n",
    "exits": "import os\nos._exit(3)\n",
    "function": "def Odd():\n    pass\n",
    "raises": "raise RuntimeError('no licence\\nfor this machine')\n",
}


@pytest.fixture
def odd(make_distribution, monkeypatch):
    site = make_distribution("plugin-odd", HEAD)
    for name, text in MODULES.items():
        (site / f"plugin_odd_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(site))


def test_verbose_imports_every_factory_and_names_what_fails(call, odd):
    assert call("plugins", "--json").json["broken"] == []
    answer = call("plugins", "--verbose", "--json")
    assert answer.code == 0, answer.err
    causes = {one["cause"].split(":")[0]: one["cause"] for one in answer.json["broken"]}
    assert set(causes) == {"odd_exits", "odd_function", "odd_lost", "odd_raises"}
    assert "ended the process (exit code 3)" in causes["odd_exits"]
    assert "not a class derived from survey_ml.stage.Stage" in causes["odd_function"]
    assert "No module named 'plugin_odd_lost'" in causes["odd_lost"]
    assert causes["odd_raises"].endswith("RuntimeError: no licence")
    text = call("plugins", "--verbose").out
    assert "broken:\n  plugin_odd (plugin-odd 1.0): odd_exits: " in text
    assert "Traceback" in text


def test_strict_makes_it_an_error(call, odd, monkeypatch):
    monkeypatch.setenv("SURVEY_ML_STRICT", "1")
    assert call("plugins").code == 0
    assert call("plugins", "--verbose").code == 2
