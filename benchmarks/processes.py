"""Child processes whose CPU time and memory are measured."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Cost:
    """What a child and its own children used.

    Attributes
    ----------
    cpu : float
        User and system seconds.
    wall : float
        Seconds.
    memory : float
        Largest resident set of any one process, in MB.
    """

    cpu: float
    wall: float
    memory: float


def run_child(arguments: Sequence[str], *, check: bool = True) -> Cost:
    """Run Python with these arguments in the repository, on one core, and return what it used.

    Raises
    ------
    RuntimeError
        With the end of its output when it fails.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_make_environment(),
            preexec_fn=_use_one_core,
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if check and child.returncode:
            output.seek(0)
            text = output.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(arguments)} ended with {child.returncode}:\n{text}")
    scale = 1e-6 if sys.platform == "darwin" else 1e-3
    return Cost(used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss * scale)


def _use_one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _make_environment() -> dict[str, str]:
    """Return this process's environment: one thread, and byte code kept as Python does by default."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **ONE_THREAD, "PYTHONPATH": str(ROOT)}
