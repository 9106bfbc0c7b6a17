"""`survey-ml status --watch`: a release that is worked on by another process, and one that is done."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from survey_ml.cli import follow as watch_module
from survey_ml.cli.follow import Row, Watcher
from survey_ml.data.commit import Unit, quarantine
from survey_ml.data.store import ReleaseStore


def start(*args: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "survey_ml.cli", *map(str, args)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def test_a_finished_release_is_shown_once(call, release):
    assert call("run", release, "--quiet").code == 0
    found = call("status", release, "--watch", "--json").json
    assert found["complete"]
    assert {name: (row["done"], row["total"], row["todo"]) for name, row in found["stages"].items()} == {
        "ingest": (8, 8, 0), "level": (8, 8, 0),
    }  # fmt: skip
    assert (found["run"]["exit_code"], found["run"]["pid"]) == (0, os.getpid())
    line = call("status", release, "--watch")
    assert line.code == 0
    assert "ingest 8/8, level 8/8" in line.out
    assert len(line.out.splitlines()) == 1


def test_what_is_to_do_comes_from_the_store_alone(call, release):
    call("run", release, "--quiet", "--only", "ingest")
    for image in release.parent.glob("*.fits"):
        image.unlink()
    release.unlink()
    found = Watcher(str(release.parent / "out")).look()
    assert (found["stages"]["level"]["todo"], found["complete"]) == (8, False)
    store = ReleaseStore.open(str(release.parent / "out"))
    quarantine(store, Unit("east", "level", "0_0"), "k" * 64, "its worker died 3 times", "", 3)
    row = Watcher(store.out).look()["stages"]["level"]
    assert (row["todo"], row["quarantined"]) == (7, 1)


def test_a_release_that_has_not_begun_is_waited_for(release, capsys):
    waits = []
    out = release.parent / "out"

    def begin_meanwhile(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            out.mkdir()
            (out / "release.json").write_text("{}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch_module.time, "sleep", begin_meanwhile)
        assert watch_module.wait_for_release(str(release), None, 7.0) == str(out)
    assert waits == [7.0, 7.0]
    assert capsys.readouterr().err == f"{release}: not run yet: waiting for it to begin\n"


def test_rates_start_with_the_first_unit(monkeypatch):
    watcher = Watcher("nowhere")
    rows = []
    for now, done in ((0, 0), (10, 0), (20, 5), (30, 10), (40, 20)):
        row = Row(done=done, total=20)
        watcher._take_rate("level", row, now)
        rows.append(row)
    assert [row.rate for row in rows] == [None, None, 0.5, 0.5, None]
    assert rows[3].seconds_left == 20.0
    again = Row(done=2, total=20)
    watcher._take_rate("level", again, 50)
    assert again.rate is None


@pytest.mark.slow
def test_a_run_is_followed_to_its_end(release, plugin_path):
    out = release.parent / "out"
    with start("run", release, "--quiet") as run:
        while not (out / "release.json").exists():
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.05)
        with start("status", out, "--watch", "--json", "--every", "0.2", stdout=subprocess.PIPE) as watch:
            said, wrong = watch.communicate(timeout=60)
        assert run.wait(timeout=60) == 0
    assert watch.returncode == 0, wrong
    assert json.loads(said.splitlines()[-1])["complete"]


@pytest.mark.slow
def test_an_interrupt_ends_it_in_peace(call, release, plugin_path):
    call("run", release, "--quiet", "--only", "ingest")
    with start("status", release, "--watch", "--every", "0.2", stdout=subprocess.PIPE) as watch:
        assert "level 0/8" in watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        _, wrong = watch.communicate(timeout=30)
    assert (watch.returncode, wrong) == (0, "")


@pytest.mark.slow
def test_a_terminal_gets_a_table(call, release, plugin_path):
    call("run", release, "--quiet")
    master, slave = pty.openpty()
    with start("status", release, "--watch", stdout=slave) as watch:
        assert watch.wait(timeout=60) == 0
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert "stage" in shown
    assert "to do" in shown
    assert "ended" in shown


def test_a_run_that_ends_with_failures_ends_the_watch(call, release, monkeypatch):
    slept = []

    def fail_meanwhile(seconds):
        slept.append(seconds)
        assert len(slept) < 3
        assert call("run", release, "--quiet", "--set", "level.fail=true").code == 2

    call("run", release, "--quiet", "--only", "ingest")
    monkeypatch.setattr(watch_module.time, "sleep", fail_meanwhile)
    assert watch_module.follow_release(str(release.parent / "out"), 0.1, True) == 1


def test_a_run_that_ended_a_moment_before_is_not_watched(call, release):
    call("run", release, "--quiet", "--only", "ingest")
    watcher = Watcher(str(release.parent / "out"))
    assert not watcher.has_ended(watcher.look())
