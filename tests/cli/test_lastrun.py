"""What `survey-ml status` says of the last run: how it ended, what is left, and what to do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from survey_ml.data.store import ReleaseStore
from survey_ml.engine.lastrun import read_last_run


def count(release, stage="level"):
    return len(list((release.parent / "out").glob(f"units/*/{stage}/*/[!.]*/_COMMIT.json")))


def says(release, text):
    return any(text in path.read_text() for path in release.parent.glob("out/logs/*"))


def start(*args):
    command = [sys.executable, "-m", "survey_ml.cli", *map(str, args)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for(found, process, seconds=60):
    end = time.monotonic() + seconds
    while not found():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("sent", "code", "state", "reason"),
    [
        (signal.SIGINT, 130, "cancelled", "interrupted by hand"),
        (signal.SIGTERM, 1, "cancelled", "ended by a signal"),
        (signal.SIGKILL, -signal.SIGKILL, "interrupted", ""),
    ],
)
def test_a_run_that_was_ended_early_is_told(call, release, plugin_path, sent, code, state, reason):
    with start("run", release, "--set", "level.seconds=0.3", "--quiet") as process:
        wait_for(lambda: count(release) >= 1, process)
        assert call("status", release, "--json").json["last_run"]["state"] == "running"
        process.send_signal(sent)
        process.communicate(timeout=30)
    assert process.returncode == code
    done = count(release)
    assert 1 <= done < 8
    found = call("status", release, "--json").json
    run = found["last_run"]
    assert (run["state"], run["reason"], run["pid"]) == (state, reason, process.pid)
    assert (run["ended"] is None) == (sent == signal.SIGKILL)
    assert found["held_by"] is None
    assert (found["stages"]["level"]["done"], found["stages"]["level"]["todo"]) == (done, 8 - done)
    said = call("status", release).out
    assert f"last run: {state}, " in said
    assert f"; {8 - done} unit{'s' * (done < 7)} to do; the same command goes on" in said

    assert call("run", release, "--set", "level.seconds=0.3", "--json").json["done"] == 8 - done
    found = call("status", release, "--json").json
    assert (found["last_run"]["state"], found["last_run"]["exit_code"]) == ("completed", 0)
    assert [stage["todo"] for stage in found["stages"].values()] == [0, 0]
    assert "last run: completed, " in (said := call("status", release).out)
    assert "to do;" not in said


def test_one_that_was_killed_after_it_was_cancelled_is_cancelled(call, release, plugin_path):
    with start("run", release, "--set", "level.seconds=60", "--quiet") as process:
        wait_for(lambda: count(release, "ingest") == 8 and says(release, '"stage": "level"'), process)
        # A tile that takes a minute is in hand, and has to end before the run does.
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: says(release, "run_stops"), process)
        process.kill()
        process.communicate(timeout=30)
    run = call("status", release, "--json").json["last_run"]
    assert (run["state"], run["reason"], run["ended"]) == ("cancelled", "ended by a signal", None)


def test_a_watch_ends_with_its_run(call, release, plugin_path):
    with start("watch", release, "--set", "level.seconds=0.3", "--every", "1s") as process:
        wait_for(lambda: count(release) >= 1, process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, count(release) < 8) == (1, True)
    assert "cancelled; the same command goes on" in said
    assert call("status", release, "--json").json["last_run"]["state"] == "cancelled"


def test_what_failed_or_was_set_aside_is_told(call, release):
    assert call("run", release, "--quiet", "--set", "level.fail=true").code == 2
    assert call("status", release, "--json").json["last_run"]["state"] == "failed"
    (release.parent / "text.fits").write_text("no image")
    assert call("run", release, "--quiet").code == 1
    run = call("status", release, "--json").json["last_run"]
    assert (run["state"], run["set_aside"], run["exit_code"]) == ("set aside", 1, 1)
    assert ", 1 set aside" in call("status", release).out


def test_of_two_runs_within_a_second_the_later_one_counts(tmp_path):
    (tmp_path / "logs").mkdir()
    for name, when, state in (("ffffff", "100", "failed"), ("000000", "900", "completed")):
        run = f"20261124T134323Z-{name}"
        common = {"time": f"2026-11-24T13:43:23.{when}Z", "run": run, "host": "node", "pid": 7}
        lines = [
            {**common, "event": "run_begins"},
            {**common, "event": "run_ends", "state": state, "exit_code": 0},
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "logs" / f"{run}.jsonl").write_text(text + '{"cut off')
    found = read_last_run(ReleaseStore.open(str(tmp_path)))
    assert found is not None
    assert (found.state, found.id[-6:]) == ("completed", "000000")


def test_a_release_without_logs_has_no_last_run(call, release):
    assert call("run", release, "--quiet").code == 0
    for path in release.parent.glob("out/logs/*"):
        path.unlink()
    assert call("status", release, "--json").json["last_run"] is None
    assert "last run" not in call("status", release).out
