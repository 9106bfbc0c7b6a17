"""The Slurm scripts, with commands of Slurm's names that work on this machine: Slurm itself is not here."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from house import count_commits, read_catalogue, wait_until

from survey_ml.data.store import ReleaseStore
from survey_ml.engine.lastrun import read_last_run

SLURM = Path(__file__).parents[2] / "deploy" / "slurm"

SBATCH = """#!/usr/bin/env bash
printf '%s\\n' "$@" >"$STAND_IN/arguments"
echo "4711;cluster"
sleep "${STAND_IN_SECONDS:-0}" &
echo $! >"$STAND_IN/job"
wait $!
exit "${STAND_IN_CODE:-0}"
"""
SCANCEL = """#!/usr/bin/env bash
echo "$@" >"$STAND_IN/cancelled"
kill "$(cat "$STAND_IN/job")"
"""
SRUN = """#!/usr/bin/env bash
while [[ $1 == -* ]]; do [[ $1 == -w ]] && shift; shift; done
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
echo "$3"
"""
HOSTNAME = """#!/usr/bin/env bash
echo 127.0.0.1
"""


@pytest.fixture
def stand_ins(environment, tmp_path):
    """Return an environment in which the commands of Slurm are ours."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (
        ("sbatch", SBATCH),
        ("scancel", SCANCEL),
        ("srun", SRUN),
        ("scontrol", SCONTROL),
        ("hostname", HOSTNAME),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return {**environment, "PATH": f"{folder}{os.pathsep}{environment['PATH']}", "STAND_IN": str(tmp_path)}


def submit(environment, *args, **more):
    command = ["bash", str(SLURM / "submit.sh"), *args]
    return subprocess.Popen(command, env={**environment, **more}, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_submit_leaves_with_the_code_of_the_job(stand_ins, tmp_path, code):
    more = {"PREFECT__FLOW_RUN_ID": "abc", "SURVEY_ML_SBATCH_OPTIONS": "--partition=long --time=1:00"}
    with submit(stand_ins, "--nodes=4", STAND_IN_CODE=str(code), **more) as process:
        said, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert said.strip() == "4711;cluster"
    given = (tmp_path / "arguments").read_text().split("\n")[:-1]
    assert {"--wait", "--parsable", "--export=ALL", "--job-name=survey-ml-abc"} <= set(given)
    assert given[-4:] == ["--partition=long", "--time=1:00", "--nodes=4", str(SLURM / "release.sbatch")]


def test_submit_takes_the_job_away_when_it_does_not_end(stand_ins, tmp_path):
    with submit(stand_ins, STAND_IN_SECONDS="60", SURVEY_ML_SLURM_GRACE="1") as process:
        wait_until(
            lambda: (tmp_path / "job").is_file() and (tmp_path / "job").read_text(), 20, "it is submitted"
        )
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143
    assert (tmp_path / "cancelled").read_text() == "4711\n"


def test_submit_lets_a_job_end_by_itself(stand_ins, tmp_path):
    with submit(stand_ins, STAND_IN_SECONDS="2") as process:
        wait_until(
            lambda: (tmp_path / "job").is_file() and (tmp_path / "job").read_text(), 20, "it is submitted"
        )
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=40)
    assert process.returncode == 143
    assert not (tmp_path / "cancelled").exists()


def start_job(stand_ins, tmp_path, path):
    import socket
    import sys

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mine = {
        **stand_ins,
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "here",
        "SLURM_CPUS_ON_NODE": "2",
        "SURVEY_ML_VENV": str(Path(sys.executable).parents[1]),
        "SURVEY_ML_TOKEN_FOLDER": str(tmp_path),
        "SURVEY_ML_RAY_PORT": str(port),
    }
    command = ["bash", str(SLURM / "release.sbatch"), str(path), "--json"]
    return subprocess.Popen(command, env=mine, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_the_job_starts_ray_with_a_token_and_makes_the_catalogue(stand_ins, tmp_path, make_release, expected):
    path = make_release("allocated")
    with start_job(stand_ins, tmp_path, path) as process:
        said, errors = process.communicate(timeout=240)
    assert process.returncode == 0, said + errors
    assert read_catalogue(path.parent / "allocated") == expected
    assert not list(tmp_path.glob(".survey-ml-token-*"))


@pytest.mark.slow
def test_the_job_cleans_up_at_its_time_limit(stand_ins, tmp_path, make_release):
    path = make_release("limited", seconds=3.0)
    with start_job(stand_ins, tmp_path, path) as process:
        wait_until(lambda: count_commits(path.parent / "limited"), 150, "a tile is done")
        (token,) = tmp_path.glob(".survey-ml-token-*")
        assert token.stat().st_mode & 0o077 == 0
        process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        process.communicate(timeout=90)
    assert time.monotonic() - start < 60
    assert not list(tmp_path.glob(".survey-ml-token-*"))
    run = read_last_run(ReleaseStore.open(str(path.parent / "limited")))
    assert run is not None
    assert (run.state, run.reason, run.exit_code) == ("cancelled", "ended by a signal", 1)
