"""Discovery: what is good is used, what is broken is named, and order never matters."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from survey_ml.errors import ConfigError, PluginError
from survey_ml.plugins import load_factory, load_plugins

HEAD = """
from survey_ml.hookspecs import hookimpl, ReaderSpec, ExporterSpec, CommandSpec
from survey_ml.products import Column, array, table, summary
from survey_ml.stage import Resources, Scope, StageSpec
C = (Column("source_id", "int64"), Column("value", "float64"))
"""


def stage(name: str, extra: str = "", writes: str = "") -> str:
    writes = writes or f'table("{name}_table", columns=C),'
    return (
        HEAD
        + f"""
@hookimpl
def survey_ml_stages():
    return [StageSpec("{name}", "{name}_module:Stage", writes=({writes}), {extra})]
"""
    )


def entry_points(site: Path) -> list[EntryPoint]:
    return [entry for dist in distributions(path=[str(site)]) for entry in dist.entry_points]


@pytest.fixture
def install(make_distribution, monkeypatch):
    """Install plugins and return their entry points."""
    seen: list[str] = []

    def put(**sources: str) -> list[EntryPoint]:
        for name, source in sources.items():
            site = make_distribution(name.replace("_", "-"), source)
            seen.append(name)
        monkeypatch.syspath_prepend(str(site))
        return entry_points(site)

    yield put
    for name in seen:
        sys.modules.pop(name, None)


def causes(registry) -> dict[str, str]:
    return {broken.distribution: broken.cause for broken in registry.broken}


def test_the_built_in_stages_are_there_and_whole():
    registry = load_plugins([])
    assert registry.broken == []
    names = [spec.name for spec in registry.stages()]
    assert names == sorted(names)
    assert {"ingest", "noise", "extraction", "baseline", "forced"} <= set(names)
    assert all(registry.distribution_of(spec) == "survey-ml" for spec in registry.stages())


def test_a_plugin_is_listed_with_its_distribution(install):
    registry = load_plugins(install(plugin_a=stage("alpha")))
    assert registry.broken == []
    origin = registry.origin_of(registry.stage("alpha"))
    assert (origin.distribution, origin.version, origin.plugin) == ("plugin-a", "1.0", "plugin_a")
    assert "alpha_module" not in sys.modules


BROKEN = {
    "import": ("import no_such_module_anywhere", "ModuleNotFoundError"),
    "syntax": ("def (", "SyntaxError"),
    "exit": ("raise SystemExit(3)", "SystemExit"),
    "base": ("class Panic(BaseException): pass\nraise Panic('deep down')", "Panic: deep down"),
    "base_in_hook": (HEAD + "@hookimpl\ndef survey_ml_stages(): raise GeneratorExit\n", "GeneratorExit"),
    "comma": (stage("x", 'reads=(table("t"))'), "tuples of products"),
    "members": (
        stage("x") + "def __dir__(): return ['survey_ml_odd']\ndef __getattr__(name): return 1 / 0\n",
        "ZeroDivisionError",
    ),
    "rubbish": (HEAD + "@hookimpl\ndef survey_ml_stages(): return 7\n", "must return a list of StageSpec"),
    "raises": (HEAD + "@hookimpl\ndef survey_ml_stages(): return 1 / 0\n", "ZeroDivisionError"),
    "kind": (HEAD + "@hookimpl\ndef survey_ml_stages(): return ['x']\n", "with a str in it"),
    "misspelt": (
        HEAD + "@hookimpl\ndef survey_ml_stagess(): return []\n",
        "unknown hook survey_ml_stagess; did you mean survey_ml_stages?",
    ),
    "unmarked": (HEAD + "def survey_ml_stages(): return []\n", "not marked with @hookimpl"),
    "argument": (HEAD + "@hookimpl\ndef survey_ml_stages(what): return []\n", "PluginValidationError"),
    "wrapper": (HEAD + "@hookimpl(wrapper=True)\ndef survey_ml_stages():\n    return (yield)\n", "wrapper"),
    "newer": (stage("x", "api=(1, 99)"), "update survey_ml"),
    "newer_major": (
        stage("x", "api=(2, 0)"),
        "for version 2.0 of the contract, this is 1.0: update survey_ml",
    ),
    "older": (stage("x", "api=(0, 1)"), "update the plugin"),
    "factory": (
        HEAD + "@hookimpl\ndef survey_ml_stages(): return [StageSpec('x', 'nope')]\n",
        "package.module:Class",
    ),
    "name": (stage("x").replace('StageSpec("x"', 'StageSpec("X y"'), "lower-case"),
    "twice": (stage("x", writes='table("t", columns=C), table("t", columns=C),'), "writes product t twice"),
    "nothing": (
        HEAD + "@hookimpl\ndef survey_ml_stages(): return [StageSpec('x', 'a:B')]\n",
        "writes no product",
    ),
    "columns": (stage("x", writes='table("t"),'), "declares no columns"),
    "dtype": (stage("x", writes='table("t", columns=(Column("a", "complex64"),)),'), "unknown dtype"),
    "join": (stage("x", writes='table("t", "source", columns=C[1:]),'), "needs a source_id"),
    "rows": (stage("x", writes='table("t", "galaxy", columns=C),'), "has dims"),
    "loop": (stage("x", 'reads=(table("t"),)', writes='table("t", columns=C),'), "both reads and writes"),
    "arrays": (stage("x", "scope=Scope.FIELD", writes='array("a"),'), "tile scope"),
    "taken": (stage("ingest"), "taken by survey_ml"),
    "needs": (stage("x", "resources=Resources(memory=0)"), "must be positive"),
    "suffix": (
        HEAD + "@hookimpl\ndef survey_ml_readers(): return [ReaderSpec('x', 'a:B', '.fits')]\n",
        "tuple of file name ends",
    ),
    "clash": (
        HEAD + "@hookimpl\ndef survey_ml_exporters(): return [ExporterSpec('fits', 'a:b')]\n",
        "also provided by survey-ml",
    ),
    "command": (
        HEAD + "@hookimpl\ndef survey_ml_commands(): return [CommandSpec('run', 'a:b')]\n",
        "also provided by survey-ml",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_plugin_is_named_and_harms_nothing(install, what):
    source, cause = BROKEN[what]
    registry = load_plugins(install(bad=source, good=stage("fine")))
    assert cause in causes(registry)["bad"]
    assert set(causes(registry)) == {"bad"}
    assert registry.stage("fine").name == "fine"
    assert {"extraction", "noise"} <= {spec.name for spec in registry.stages()}
    assert [spec.name for spec in registry.exporters()].count("fits") == 1


def test_a_bad_spec_leaves_the_others_of_its_plugin(install):
    poor = "StageSpec('poor', 'nope', writes=(summary('s'),))"
    source = stage("fine").replace("return [", f"return [{poor}, ")
    registry = load_plugins(install(mixed=source))
    assert registry.stage("fine")
    assert causes(registry)["mixed"].startswith("stage poor: factory")


def test_the_trace_of_a_broken_plugin_names_its_line(install):
    registry = load_plugins(install(bad="x = 1\nimport no_such_module_anywhere\n"))
    (broken,) = registry.broken
    assert "line 2" in broken.trace


def test_strict_makes_it_an_error(install):
    with pytest.raises(PluginError, match="plugin bad of bad: ModuleNotFoundError"):
        load_plugins(install(bad="import no_such_module_anywhere"), strict=True)


def test_only_what_is_asked_for_is_loaded(install):
    entries = install(bad="import no_such_module_anywhere", plugin_a=stage("alpha"))
    assert load_plugins(entries, only="").broken == []
    registry = load_plugins(entries, only="plugin-a, absent")
    assert registry.stage("alpha")
    assert [(b.name, b.cause) for b in registry.broken] == [
        ("absent", "named in SURVEY_ML_PLUGINS but not installed")
    ]


def test_the_order_of_loading_changes_nothing(install):
    entries = install(plugin_a=stage("zeta"), plugin_b=stage("alpha"), bad="def (", worse="1 / 0")
    one, two = load_plugins(entries), load_plugins(entries[::-1])
    assert one.offers == two.offers
    assert one.origins == two.origins
    assert [(b.distribution, b.cause) for b in one.broken] == [(b.distribution, b.cause) for b in two.broken]


def test_two_providers_need_a_pick(install):
    entries = install(plugin_a=stage("alpha"), plugin_b=stage("alpha", "version='2'"))
    registry = load_plugins(entries)
    assert registry.broken == []
    with pytest.raises(ConfigError) as caught:
        registry.stage("alpha")
    assert "plugin-a 1.0 and plugin-b 1.0" in caught.value.message
    assert "providers: {alpha: plugin-b}" in caught.value.hint
    assert registry.stage("alpha", {"alpha": "plugin-a"}).version == "1"
    assert registry.stage("alpha", {"alpha": "plugin_b"}).version == "2"
    assert "alpha" not in [spec.name for spec in registry.stages()]
    with pytest.raises(ConfigError, match="picks plugin-c"):
        registry.stage("alpha", {"alpha": "plugin-c"})


def test_a_built_in_stage_is_overridden_only_by_a_pick(install):
    registry = load_plugins(install(plugin_a=stage("baseline")))
    with pytest.raises(ConfigError, match=r"survey-ml .* and plugin-a"):
        registry.stage("baseline")
    mine = registry.stage("baseline", {"baseline": "plugin-a"})
    assert mine.factory == "baseline_module:Stage"
    theirs = registry.stage("baseline", {"baseline": "survey-ml"})
    assert theirs.factory.startswith("survey_ml.")


def test_an_unknown_stage_names_the_nearest_and_a_broken_plugin_that_may_be_meant(install):
    with pytest.raises(ConfigError, match="did you mean extraction"):
        load_plugins([]).stage("extracton")
    registry = load_plugins(install(bad=stage("wanted", "api=(9, 0)")))
    with pytest.raises(ConfigError, match="plugin bad is broken"):
        registry.stage("wanted")


def test_an_unknown_stage_names_every_broken_plugin_when_any_may_have_it(install):
    misspelt = HEAD + "@hookimpl\ndef survey_ml_stagess(): return []\n"
    entries = install(bad="1 / 0", worse=misspelt, other=stage("y", "api=(9, 0)"), fine=stage("fine"))
    registry = load_plugins(entries)
    with pytest.raises(ConfigError) as caught:
        registry.stage("wanted")
    message = caught.value.message
    assert message.startswith("there is no stage wanted; ")
    assert "; plugin bad is broken: ZeroDivisionError: division by zero" in message
    assert "; plugin worse is broken: " in message
    assert "unknown hook survey_ml_stagess; did you mean survey_ml_stages?" in message
    assert "; plugin other is broken: stage y: it was written for version 9.0" in message
    assert "plugin fine" not in message
    with pytest.raises(ConfigError) as caught:
        registry.stage("y")
    assert "plugin other is broken" in caught.value.message and "plugin bad" not in caught.value.message


def test_another_version_of_the_contract_is_said_once_a_plugin(install):
    two = "StageSpec('b', 'b:B', writes=(summary('s'),), api=(9, 0))"
    source = stage("a", "api=(9, 0)").replace("return [", f"return [{two}, ")
    reader = "@hookimpl\ndef survey_ml_readers(): return [ReaderSpec('r', 'a:B', ('.x',), api=(9, 0))]\n"
    registry = load_plugins(install(bad=source + reader))
    (broken,) = registry.broken
    assert broken.cause.startswith("stage b, stage a, reader r: it was written for version 9.0")
    for name in ("a", "b"):
        with pytest.raises(ConfigError, match="plugin bad is broken"):
            registry.stage(name)


def test_what_a_plugin_prints_stays_off_standard_output(install, capsys):
    load_plugins(install(loud="print('noise')\n" + stage("x")))
    assert capsys.readouterr().out == ""


def test_a_factory_that_is_not_there_is_named():
    with pytest.raises(PluginError, match="json:Nothing of me cannot be imported: AttributeError"):
        load_factory("json:Nothing", "me")
    assert load_factory("json:JSONDecoder.decode").__name__ == "decode"
