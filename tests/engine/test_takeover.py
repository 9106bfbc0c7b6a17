"""A run that was suspended for longer than its lease holds, and another that took over meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from releases import make_config, read_bytes_of, write_fields

from survey_ml.data.lease import read_holder
from survey_ml.data.store import ReleaseStore
from survey_ml.engine.run import run_release
from survey_ml.errors import LeaseError

DRIVE = str(Path(__file__).parents[1] / "faults" / "drive.py")
STAGES = {"census": {}, "smooth": {"seconds": 0.05}}
LEASE = {"engine_options": {"lease_seconds": 1.0}}


def list_times(out: Path) -> dict[Path, int]:
    """Return when each file was written; a run's own log may still say how it ended."""
    files = [path for path in out.rglob("*") if path.is_file() and path.parent.name != "logs"]
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_suspended_run_is_taken_over_and_writes_no_more(tmp_path, registry):
    folder = write_fields(tmp_path / "release", names=("north",))
    config = make_config(folder, stages=STAGES, **LEASE)
    first = subprocess.Popen(
        [sys.executable, DRIVE, str(folder), "local", json.dumps({"stages": STAGES, **LEASE})],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 60
        while not list(Path(config.out).glob("units/north/smooth/*/[!.]*/_COMMIT.json")):
            assert time.monotonic() < end and first.poll() is None
            time.sleep(0.01)
        with pytest.raises(LeaseError, match=f"process {first.pid}"):
            run_release(config, registry=registry, assemble=False)
        first.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, first.pid, os.WSTOPPED)
        result = run_release(config, registry=registry, assemble=False)
        assert (result.exit_code, result.redone) == (0, 0)
        assert result.skipped > 0
        held = read_bytes_of(Path(config.out))
        times = list_times(Path(config.out))
        first.send_signal(signal.SIGCONT)
        _, said = first.communicate(timeout=30)
    finally:
        first.kill()
        with first:
            pass  # closes its pipes
    assert first.returncode == 1
    assert "LeaseError" in said and "was taken over by" in said
    assert read_bytes_of(Path(config.out)) == held
    assert times == list_times(Path(config.out))
    assert read_holder(ReleaseStore.open(config.out).medium) is None
    assert os.getpid() != first.pid
