"""Kill what a run is made of at random moments; the same command again ends with the same release.

The smallest stages on Ray; ``survey-ml selftest --faults`` tries the whole matrix.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "engine"))
from releases import read_bytes_of, write_fields  # noqa: E402

from survey_ml.engine.server import PrefectServer  # noqa: E402

UNITS = 57
LIMIT = 150.0


def drive(folder: Path, engine: str = "ray", api: str = "", **options) -> subprocess.Popen:
    """Start a run in a process of its own, with a Prefect API of its own unless given one."""
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder.parent / "prefect"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment.pop("PREFECT_API_URL", None)
    if api:
        environment["PREFECT_API_URL"] = api
    return subprocess.Popen(
        [sys.executable, str(HERE / "drive.py"), str(folder), engine, json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen) -> dict:
    """Wait for a run and return what it says."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode in (0, 1), err[-3000:]
    return json.loads(out.strip().splitlines()[-1])


def wait_for_commits(process: subprocess.Popen, out: Path, count: int) -> None:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if sum(1 for _ in out.glob("units/*/*/*/[!.]*/_COMMIT.json")) >= count:
            return
        assert process.poll() is None, process.stderr.read()[-3000:]
        time.sleep(0.02)
    raise AssertionError("no commits in time")


def find(process: subprocess.Popen, what: str) -> list[psutil.Process]:
    """Return the processes below a run whose title or command holds a word."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if what in " ".join(child.cmdline()):
                found.append(child)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return sorted(found, key=lambda child: child.pid)


def wait_until_gone(pids: list[int]) -> None:
    """Wait for processes to end; Ray's own agents, which touch no release, may take their time."""
    end = time.monotonic() + 60
    while left := [line for pid in pids if (line := describe(pid)) and "agent" not in line.lower()]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def describe(pid: int) -> str:
    """Return the command of a live process, or nothing."""
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else " ".join(process.cmdline())[:200]
    except psutil.NoSuchProcess:
        return ""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, str]:
    """Return what a run in one process makes of the two fields."""
    folder = write_fields(tmp_path_factory.mktemp("undisturbed") / "release")
    said = finish(drive(folder, "local"))
    assert said["exit_code"] == 0
    assert said["done"] == UNITS
    return read_bytes_of(folder / "out")


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def api(prefect_home) -> Iterator[str]:
    """Return a Prefect API for the runs in which it is not what is killed."""
    before = os.environ.get("PREFECT_HOME")
    os.environ["PREFECT_HOME"] = str(prefect_home / "prefect")
    server = PrefectServer()
    server.launch()
    yield server.wait()
    server.stop()
    os.environ.pop("PREFECT_HOME")
    if before is not None:
        os.environ["PREFECT_HOME"] = before


def check(folder: Path, undisturbed: dict[str, str]) -> None:
    """Hold a release against the undisturbed one, and a last run against nothing left to do."""
    assert read_bytes_of(folder / "out") == undisturbed
    markers = list((folder / "out").glob("units/*/*/*/*/_COMMIT.json"))
    assert len(markers) == UNITS
    again = finish(drive(folder))
    assert (again["done"], again["redone"], again["skipped"]) == (0, 0, UNITS)
    assert not list((folder / "out").rglob(".tmp-*"))
    assert [str(p) for p in markers] == [str(p) for p in (folder / "out").glob("units/*/*/*/*/_COMMIT.json")]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_driver_killed(seed, prefect_home, undisturbed):
    rng = random.Random(seed)
    folder = write_fields(prefect_home / f"driver{seed}")
    process = drive(folder)
    try:
        wait_for_commits(process, folder / "out", rng.randrange(2, 40))
        time.sleep(rng.uniform(0, 0.1))
        below = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    finally:
        process.kill()
    before = sum(1 for _ in (folder / "out").glob("units/*/*/*/[!.]*/_COMMIT.json"))
    assert before < UNITS
    # Nothing that a run starts may outlive it, its Prefect API least of all.
    wait_until_gone(below)
    said = finish(drive(folder))
    assert said["exit_code"] == 0
    assert said["done"] + said["skipped"] == UNITS
    assert said["skipped"] >= before
    check(folder, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_workers_killed(seed, prefect_home, api, undisturbed):
    rng = random.Random(seed)
    folder = write_fields(prefect_home / f"workers{seed}")
    process = drive(folder, api=api)
    killed = 0
    try:
        for at in sorted(rng.sample(range(20, 36), 2)):
            wait_for_commits(process, folder / "out", at)
            time.sleep(rng.uniform(0, 0.1))
            workers = find(process, "ray::UnitActor")
            if workers:
                rng.choice(workers).kill()
                killed += 1
        said = finish(process)
    finally:
        process.kill()
    assert killed
    assert said["exit_code"] == 0
    assert said["done"] == UNITS
    check(folder, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 6])
def test_raylet_killed(seed, prefect_home, api, undisturbed):
    rng = random.Random(seed)
    folder = write_fields(prefect_home / f"raylet{seed}")
    process = drive(folder, api=api)
    try:
        wait_for_commits(process, folder / "out", rng.randrange(3, 36))
        time.sleep(rng.uniform(0, 0.1))
        found = find(process, "raylet/raylet")
        for raylet in found:
            raylet.kill()
        said = finish(process)
    finally:
        process.kill()
    assert found
    assert said["exit_code"] == 0
    assert said["done"] == UNITS
    check(folder, undisturbed)


@pytest.mark.slow
def test_poison_tile(prefect_home, api):
    folder = write_fields(prefect_home / "poison", names=("north",))
    stages = {"census": {}, "smooth": {"poison": "1_1"}}
    said = finish(drive(folder, api=api, stages=stages))
    assert said["exit_code"] == 1
    (held,) = [entry for entry in said["aside"] if entry["stage"] == "smooth"]
    assert (held["field"], held["tile"]) == ("north", "1_1")
    assert "died 3 times" in held["cause"]
    assert held["hint"]
    done = {path.parts[-5:-2] for path in (folder / "out").glob("units/*/*/*/[!.]*/_COMMIT.json")}
    assert sum(1 for _, stage, _ in done if stage == "smooth") == 8
    # What needs the tile waits, by name; a second run tries nothing again and starts nothing.
    waiting = [e for e in said["aside"] if e["stage"] in ("total", "ratio")]
    assert len(waiting) == 2
    assert all("smooth" in e["cause"] for e in waiting)
    start = time.monotonic()
    again = finish(drive(folder, stages=stages))
    assert time.monotonic() - start < 8
    assert (again["done"], again["exit_code"]) == (0, 1)
