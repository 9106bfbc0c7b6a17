"""What breaks the contract is named by the check that is about it, and takes nothing along."""

from __future__ import annotations

import json
import sys

import pytest
from kits import EXITS, call, install, write_broken, write_kit

from survey_ml.conformance import check_plugin
from survey_ml.conformance.check import STAGE_CHECKS
from survey_ml.errors import PluginError


def outcome(report, about: str) -> dict[str, bool | None]:
    return {check.name: check.passed for check in report.checks if check.about == about}


def detail(report, about: str, name: str) -> str:
    return next(c.detail for c in report.checks if (c.about, c.name) == (about, name))


def test_a_good_plugin_passes_every_check(tmp_path):
    report = check_plugin(write_kit(tmp_path, "kit-good", 'spec("good")'))
    report.raise_if_failed()
    assert report.passed
    found = outcome(report, "stage good")
    assert set(STAGE_CHECKS) | {"tile_independent", "time_limit", "process"} == set(found)
    assert set(found.values()) == {True}
    assert detail(report, "stage good", "runs") == "6 units in 2 fields"
    assert "kit_good" not in sys.modules


@pytest.mark.slow
def test_what_is_being_checked_is_told_at_a_terminal_only(tmp_path, capsys, monkeypatch):
    from survey_ml.cli.group import call

    kits = write_broken(tmp_path)
    kit, broken = str(kits["good"]), str(kits["import"])
    cases = ((kit, True, [], 0), (broken, True, [], 1), (broken, False, [], 1), (broken, True, ["--json"], 1))
    for path, at_terminal, options, code in cases:
        monkeypatch.setattr(sys.stderr, "isatty", lambda answer=at_terminal: answer)
        assert call(["plugins", "check", path, *options]) == code
        said = capsys.readouterr()
        lines = said.err.splitlines()
        if path == kit:
            assert lines[:2] == ["importing kit-good ...", "importing stage good ..."]
            assert [line.partition(":")[0] for line in lines[2:]] == ["stage good"] * 3
        else:
            assert lines == (["importing kit-import ..."] if at_terminal and not options else [])
        assert "importing" not in said.out


NAMED = {
    "import": ("plugin kit-import", "importable", "RuntimeError: at import"),
    "api": ("plugin kit-api", "api", "update survey_ml"),
    "misspelt": ("plugin kit-misspelt", "hooks", "did you mean survey_ml_stages?"),
    "extra": ("stage extra", "outputs", "returned surprise, which it does not declare"),
    "hangs": ("stage hangs", "time_limit", "while running stage hangs on"),
    "leaves": ("stage leaves", "runs", "SystemExit: 3"),
    "exits": ("stage exits", "process", "exit code 3 while running stage exits on"),
}


@pytest.mark.parametrize("what", NAMED)
def test_a_broken_plugin_is_named_by_its_check(tmp_path, what):
    about, name, said = NAMED[what]
    report = check_plugin(write_broken(tmp_path)[what], timeout=6 if what == "hangs" else 60)
    assert not report.passed
    assert outcome(report, about)[name] is False
    assert said in detail(report, about, name)
    assert all(check.hint for check in report.failed)
    with pytest.raises(PluginError, match=f"{about}: {name}"):
        report.raise_if_failed()


@pytest.mark.slow
@pytest.mark.parametrize("line", ["time.sleep(1e6)", "sum(iter(int, 1))"])
def test_where_it_hangs_is_said(tmp_path, line):
    """In Python, and in C with the interpreter locked, where no signal handler gets its turn."""
    stages = f"class Hangs(Base):\n    def run(self, inputs):\n        {line}\n"
    report = check_plugin(write_kit(tmp_path, "kit-hangs", 'spec("hangs")', stages), timeout=10)
    assert "at stages.py:" in detail(report, "stage hangs", "time_limit")
    assert outcome(report, "stage hangs")["deterministic"] is None


def test_what_dies_at_import_is_named(tmp_path):
    died = write_kit(tmp_path, "kit-died", 'spec("good")', head="import os\nos._exit(9)\n")
    report = check_plugin(died)
    assert "exit code 9 while importing kit_died.plugin" in detail(report, "plugin kit-died", "process")
    hung = write_kit(tmp_path, "kit-hung", 'spec("good")', head="import time\ntime.sleep(1e6)\n")
    report = check_plugin(hung, timeout=4)
    assert "while importing kit_hung.plugin" in detail(report, "plugin kit-hung", "time_limit")
    crash = "import ctypes\nctypes.string_at(0)\n"
    crashed = write_kit(tmp_path, "kit-crashed", 'spec("good")', stages=crash)
    report = check_plugin(crashed)
    assert "SIGSEGV while importing kit_crashed.stages:Good" in detail(report, "stage good", "process")


def test_registration_is_light_and_cheap(tmp_path):
    head = "import zarr, time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\n"
    report = check_plugin(write_kit(tmp_path, "kit-heavy", "", head=head))
    found = outcome(report, "plugin kit-heavy")
    assert (found["light_import"], found["import_cost"]) == (False, False)
    assert "zarr" in detail(report, "plugin kit-heavy", "light_import")


IMPURE = """
class Wild(Base):
    def run(self, inputs):
        made = self.make(inputs.arrays["image"], inputs.tile)
        made["wild_looks"]["n"] = hash("a") + random.getrandbits(60)
        return made

class Order(Base):
    calls = 0
    def run(self, inputs):
        made = self.make(inputs.arrays["image"], inputs.tile)
        self.calls += 1
        made["order_looks"]["n"] = self.calls
        return made

class Inputs(Base):
    def run(self, inputs):
        inputs.arrays["more"] = np.zeros(1)
        return super().run(inputs)

class Files(Base):
    def run(self, inputs):
        Path("left.txt").write_text("x")
        return super().run(inputs)

class Network(Base):
    def run(self, inputs):
        try:
            socket.create_connection(("127.0.0.1", 9), timeout=1)
        except OSError:
            pass
        return super().run(inputs)

class Environ(Base):
    def run(self, inputs):
        os.environ["KIT_MARK"] = "1"
        np.random.seed(1)
        return super().run(inputs)

class Near(Base):
    def run(self, inputs):
        image, tile = inputs.arrays["image"], inputs.tile
        image = np.nan_to_num(image)
        wide = image + np.roll(image, 1, 0)
        return self.make(wide, tile)

class Loose(Base):
    class options_type(Options):
        model_config = {"frozen": False, "extra": "allow"}
        bare: int = 1
"""


@pytest.mark.slow
def test_each_impurity_fails_its_own_check(tmp_path):
    names = ("wild", "order", "inputs", "files", "network", "environ", "near", "loose")
    specs = ", ".join(f'spec("{name}")' for name in names)
    report = check_plugin(write_kit(tmp_path, "kit-impure", specs, IMPURE))
    failed = {
        name: {n for n, passed in outcome(report, f"stage {name}").items() if passed is False}
        for name in names
    }
    assert failed["order"] == {"order", "fresh_instance"}
    assert failed["inputs"] == {"inputs_unchanged"}
    assert failed["files"] == {"no_files"}
    assert failed["network"] == {"no_network"}
    assert failed["environ"] == {"environment"}
    assert failed["near"] == {"tile_independent"}
    assert failed["loose"] == {"options"}
    assert "deterministic" in failed["wild"]
    assert "looks up 127.0.0.1" in detail(report, "stage network", "no_network")
    assert "left.txt" in detail(report, "stage files", "no_files")
    assert "KIT_MARK" in detail(report, "stage environ", "environment")
    assert "bare" in detail(report, "stage loose", "options")


@pytest.mark.slow
def test_what_reads_a_stage_that_fails_is_not_judged(tmp_path):
    stages = EXITS + "\nclass After(Base):\n    pass\n"
    looks = 'reads=(summary("exits_looks"),), writes=(summary("a"),)'
    after = f'StageSpec("after", "kit_chain.stages:After", {looks})'
    report = check_plugin(write_kit(tmp_path, "kit-chain", f'{after}, spec("exits")', stages))
    assert outcome(report, "stage after")["runs"] is None
    assert "stage exits writes, which fails" in detail(report, "stage after", "runs")


@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_said_and_no_fault(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    root = write_kit(tmp_path, "kit-gpu", 'spec("good", resources=Resources(gpus=0.5))')
    report = check_plugin(root)
    report.raise_if_failed()
    assert "0.5 GPU" in detail(report, "stage good", "resources")
    assert "no GPU here: it is tried without one" in detail(report, "stage good", "resources")


@pytest.mark.slow
def test_the_command_takes_a_folder_or_an_installed_name(tmp_path):
    roots = write_broken(tmp_path)
    path = install([roots["good"], roots["api"]], tmp_path / "site")
    done = call(path, "plugins", "check", roots["api"], "--json")
    assert done.returncode == 1
    (api,) = [check for check in json.loads(done.stdout)["checks"] if check["passed"] is False]
    assert (api["name"], bool(api["detail"]), bool(api["hint"])) == ("api", True, True)
    done = call(path, "plugins", "check", "kit-api")
    assert done.returncode == 1
    assert "FAILED  api" in done.stdout
    assert "1 of " in done.stdout
    done = call(path, "plugins", "check", "kit_good")
    assert done.returncode == 0, done.stdout
    assert "all checks passed" in done.stdout


def test_nothing_to_check_is_an_error_of_its_own(tmp_path):
    for target, said in ((tmp_path, "has no pyproject.toml"), ("no-such-plugin", "nor an installed plugin")):
        done = call("", "plugins", "check", target)
        assert done.returncode == 2
        assert said in done.stderr
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    done = call("", "plugins", "check", tmp_path)
    assert done.returncode == 2
    assert "has no entry point in 'survey_ml.v1'" in done.stderr


def test_a_plugin_that_is_not_allowed_is_named_and_not_imported(tmp_path):
    mark = tmp_path / "mark"
    head = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    path = install([write_kit(tmp_path, "kit-left", 'spec("good")', head=head)], tmp_path / "site")
    done = call(path, "plugins", "check", "kit-left", SURVEY_ML_PLUGINS="other")
    assert done.returncode == 1
    assert "SURVEY_ML_PLUGINS does not name it" in done.stdout
    assert not mark.exists()


FAMILIES = """
class Even(Base):
    def score(self, tile, n):
        return {"p_a": np.zeros(n), "p_b": np.ones(n), "seen": np.zeros((n, 3))}

    def run(self, inputs):
        n = 0 if inputs.field.name == "empty" else 2
        rows = {"number": np.arange(n), **self.score(inputs.tile, n)}
        return {type(self).__name__.lower() + "_scores": rows}

class Names(Even):
    def score(self, tile, n):
        found = super().score(tile, n)
        return found if n else {"seen": found["seen"]}

class Lengths(Even):
    def score(self, tile, n):
        return super().score(tile, n) | {"seen": np.zeros((n, 3 if tile.name == "0_0" else 4))}
"""


@pytest.mark.slow
def test_families_must_be_the_same_for_every_unit(tmp_path):
    head = """
from survey_ml.products import Column, table
def scores(name):
    columns = (Column("number", "int64"), Column("p_*", "float32"), Column("seen", "float32[*]"))
    return spec(name, writes=(table(name + "_scores", columns=columns),))
"""
    kit = write_kit(
        tmp_path, "kit-scores", 'scores("even"), scores("names"), scores("lengths")', FAMILIES, head
    )
    report = check_plugin(kit)
    assert outcome(report, "stage even")["outputs"] is True
    assert detail(report, "stage even", "outputs") == "even_scores (8 rows)"
    for name, words in (("names", "p_a float32, p_b float32"), ("lengths", "float32[3], seen float32[4]")):
        assert outcome(report, f"stage {name}")["outputs"] is False
        assert words in detail(report, f"stage {name}", "outputs")
