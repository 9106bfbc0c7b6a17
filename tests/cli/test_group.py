"""Commands load when called, and errors are for people."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from survey_ml.cli.spec import COMMANDS
from survey_ml.errors import ConfigError


def test_help_lists_every_command_with_its_line(call):
    answer = call("--help")
    assert answer.code == 0
    for name, _, summary in COMMANDS:
        assert f"{name} " in answer.out
        assert summary in answer.out


@pytest.mark.parametrize("name", [name for name, _, _ in COMMANDS])
def test_every_command_loads_and_has_help(call, name):
    answer = call(name, "--help")
    assert answer.code == 0, answer.err
    assert f"survey-ml {name}" in answer.out


def test_an_unknown_command_names_the_nearest(call):
    answer = call("rnu")
    assert answer.code == 2
    assert "did you mean run?" in answer.err


def test_a_wrong_option_is_nothing_done(call):
    assert call("run", "--nonsense").code == 2
    assert call("run").code == 2


def test_an_error_is_a_message_and_a_hint_without_a_traceback(call, tmp_path):
    answer = call("check", tmp_path / "absent.yaml")
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert "\nhint: " in answer.err
    assert "Traceback" not in answer.err
    assert "Traceback" in call("check", tmp_path / "absent.yaml", "--debug").err
    assert "Traceback" in call("--debug", "check", tmp_path / "absent.yaml").err


def test_with_json_an_error_is_one_object(call, tmp_path):
    answer = call("run", tmp_path / "absent.yaml", "--json")
    assert answer.code == 2
    assert answer.json["exit_code"] == 2
    assert "absent.yaml" in answer.json["error"]
    assert call("run", "--json").json["exit_code"] == 2


def test_a_fault_of_ours_says_so(call, monkeypatch):
    import survey_ml.cli.version as module

    monkeypatch.setattr(module, "find_version", lambda name: 1 / 0)
    answer = call("version")
    assert answer.code == 2
    assert "ZeroDivisionError" in answer.err
    assert "--debug" in answer.err


def test_an_interruption_says_how_to_go_on(call, monkeypatch):
    import survey_ml.cli.version as module

    def interrupt(name: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "find_version", interrupt)
    answer = call("version")
    assert answer.code == 130
    assert "the same command goes on" in answer.err


def test_commands_of_plugins_are_there_and_imported_when_called(call, level_plugin):
    assert "level-it" in call("--help").out
    assert "plugin_level_command" not in sys.modules
    answer = call("level-it")
    assert (answer.code, answer.out) == (0, "levelled\n")
    lost = call("level-lost")
    assert lost.code == 2
    assert "plugin_level_nowhere" in lost.err


def test_a_broken_pipe_is_not_an_error():
    script = f"{sys.executable} -m survey_ml.cli plugins --json | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_nothing_but_the_object_reaches_standard_output():
    """Libraries write to the file descriptor; that must not spoil what is read as JSON."""
    script = (
        "import os\n"
        "from survey_ml.cli.output import json_output\n"
        "with json_output(True) as emit:\n"
        "    print('python'); os.write(1, b'descriptor\\n'); os.system('echo child')\n"
        "    emit({'a': float('nan')})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == {"a": None}
    assert {"python", "descriptor", "child"} <= set(done.stderr.split())


def test_the_message_of_an_error_with_a_place_begins_with_it(call, monkeypatch):
    import survey_ml.cli.version as module

    def fail(name: str) -> str:
        raise ConfigError("it failed", "mend it", field="A", tile="0_1", stage="noise")

    monkeypatch.setattr(module, "find_version", fail)
    assert call("version").err == "error: field A, tile 0_1, stage noise: it failed\nhint: mend it\n"
