"""What the commands say when there is no Prefect, and how a cancelled run ends; no server is needed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from house import count_commits, survey_ml
from releases import make_config, make_registry, read_bytes_of, write_fields

from survey_ml.engine.link import RunLink
from survey_ml.engine.run import run_release
from survey_ml.errors import ConfigError, StoppedError


@pytest.fixture
def call(capsys, monkeypatch):
    """Return a function that calls the command line in this process, without an API unless given."""
    from survey_ml.cli.group import call as call_cli

    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    def run(*args: object) -> tuple[int, str]:
        code = call_cli([str(arg) for arg in args])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write_fields(tmp_path, names=("north",))
    path = tmp_path / "release.yaml"
    path.write_text("name: small\nfields: ['fields/*.fits']\nstages: {extraction: {}}\nout: out\n")
    return path


@pytest.mark.parametrize(
    "command",
    [("trigger", "small"), ("cancel", "small"), ("deploy", "YAML", "--pool", "p"), ("serve", "YAML")],
    ids=lambda command: command[0],
)
def test_without_an_api_they_say_what_to_set(call, release, monkeypatch, command):
    args = [str(release) if arg == "YAML" else arg for arg in command]
    code, said = call(*args)
    assert code == 2
    assert "PREFECT_API_URL is not set" in said
    assert "prefect server start" in said
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    code, said = call(*args, "--json")
    assert code == 2
    assert "does not answer" in said
    assert '"exit_code": 2' in said
    monkeypatch.setenv("PREFECT_API_URL", "somewhere")
    assert "is no web address" in call(*args)[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--cron", "0 0 * * *", "--interval", "1h"], "exclude each other"),
        (["--interval", "soon"], "write 90, 90s, 15m, 6h or 1d"),
        (["--interval", "0"], "write 90"),
        (["--only", "nothing"], "has no such stage"),
        (["--set", "extraction.sead=1"], "sead"),
    ],
)
def test_a_wrong_deployment_is_named_before_prefect_hears_of_it(call, release, options, expected):
    code, said = call("deploy", release, "--pool", "p", *options)
    assert code == 2
    assert expected in said


@pytest.mark.parametrize(
    ("cron", "timezone"), [("every night", None), ("61 0 * * *", None), ("0 0 * * *", "Mars/Olympus")]
)
def test_times_that_never_come_are_named(cron, timezone):
    from survey_ml.engine.operation import Schedule

    with pytest.raises(ConfigError, match="is no schedule"):
        Schedule(cron=cron, timezone=timezone).options()
    assert Schedule(cron="30 2 * * *", timezone="Europe/Berlin").options()
    assert Schedule(interval=60.0).options()
    assert Schedule().options() == {}


def test_what_is_no_yaml_is_not_deployed(call, tmp_path):
    assert "is no release YAML" in call("serve", tmp_path / "image.fits")[1]


def test_registration_says_what_the_flow_takes(release):
    from survey_ml.cli.schedule import make_registration

    made = make_registration(
        str(release), None, None, 90.0, None, "ingest", None, "local", ("tiling.core_px=64",), True
    )
    assert made.name == "small"
    assert made.parameters == {
        "config": str(release),
        "only": "ingest",
        "engine": "local",
        "settings": ["tiling.core_px=64"],
        "strict": True,
    }


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_stop_ends_the_run_and_the_next_goes_on(tmp_path, engine, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    slow = {"census": {}, "smooth": {"seconds": 0.4}}
    config = make_config(write_fields(tmp_path / "a"), engine=engine, stages=slow)
    out, link = Path(config.out), RunLink()

    def ask():
        end = time.monotonic() + 90
        while time.monotonic() < end and count_commits(out) < 2:
            time.sleep(0.02)
        link.stop.request("cancelled for a test")

    asker = threading.Thread(target=ask)
    asker.start()
    result = run_release(config, registry=make_registry(), link=link, assemble=False)
    asker.join()
    assert result.cancelled
    assert result.exit_code == 1
    assert isinstance(result.stopped, StoppedError)
    assert result.set_aside == []
    done = count_commits(out)
    assert 2 <= done < 8
    assert (result.done, result.skipped) == (18 + done, 0)
    again = run_release(config, registry=make_registry(), assemble=False)
    assert not again.cancelled
    assert (again.exit_code, again.skipped) == (0, 18 + done)
    whole = make_config(write_fields(tmp_path / "b"))
    run_release(whole, registry=make_registry(), assemble=False)
    assert read_bytes_of(out) == read_bytes_of(Path(whole.out))


def test_a_red_field_fails_a_strict_run_and_is_named(tmp_path):
    from survey_ml.engine.deployment import judge_run
    from survey_ml.engine.run import RunResult

    done = RunResult(out=str(tmp_path), done=3)
    fine, red = (judge_run(done, True, found, cancelled=False) for found in ({}, {"west": "beam"}))
    assert fine.is_completed() and red.is_failed()
    assert "unlike those that the model was made for: west (beam)" in red.message


def test_a_stop_before_the_work_does_nothing(tmp_path):
    config = make_config(write_fields(tmp_path))
    link = RunLink()
    link.stop.request("at once")
    result = run_release(config, registry=make_registry(), link=link, assemble=False)
    assert (result.cancelled, result.exit_code, result.done) == (True, 1, 0)


def test_help_imports_no_prefect(environment):
    answer = survey_ml(environment, "deploy", "--help")
    assert answer.returncode == 0
    import subprocess
    import sys

    code = (
        "import sys; from survey_ml.cli.group import call\n"
        "call(['trigger', '--help']); call(['cancel', 'x'])\n"
        "assert not {'prefect', 'ray', 'zarr'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
