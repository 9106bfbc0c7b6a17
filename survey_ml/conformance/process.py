"""Run a plugin's code in a process of its own: what hangs or dies takes nothing along."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import survey_ml

_FRAME = re.compile(r'File "(?P<path>[^"]+)", line (?P<line>\d+) in (?P<name>\S+)')
_TAIL = 4000
"""Characters of standard error that are kept."""


@dataclass
class Ended:
    """How a process ended, and what it noted before.

    Attributes
    ----------
    records : list of dict
        What it noted with `Notes`, in order.
    finished : bool
        It came to the end of its task.
    timed_out : bool
        It was killed because its time was up.
    code : int
        Exit code; negative for a signal.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False
    timed_out: bool = False
    code: int = 0
    seconds: float = 0.0
    stderr: str = ""

    @property
    def doing(self) -> str:
        """What it was at last."""
        return next((r["doing"] for r in reversed(self.records) if "doing" in r), "starting")

    def data(self, name: str, default: Any = None) -> Any:
        """Return the last value noted under a name."""
        return next((r["value"] for r in reversed(self.records) if r.get("data") == name), default)

    def explain(self) -> str:
        """Say how a process ended that did not finish."""
        where = _find_frame(self.stderr)
        at = f", at {where}" if where else ""
        if self.timed_out:
            return f"killed after {self.seconds:.1f} s while {self.doing}{at}"
        if self.code < 0:
            try:
                name = signal.Signals(-self.code).name
            except ValueError:
                name = f"signal {-self.code}"
            return f"the process died of {name} while {self.doing}{at}"
        last = [line for line in self.stderr.strip().splitlines() if line and not line[0].isspace()]
        said = f": {last[-1]}" if last and self.code == 1 else ""
        return f"the process ended with exit code {self.code} while {self.doing}{said}"


def run_child(
    task: str, given: Mapping[str, Any], *, folder: Path, environment: Mapping[str, str], timeout: float
) -> Ended:
    """Do a task of `survey_ml.conformance.child` in a fresh process.

    Parameters
    ----------
    task : str
        Its name.
    given : mapping
        Its arguments, as JSON can hold them.
    folder : Path
        For its files; its working directory is an empty folder in it.
    environment : mapping
        All environment variables.
    timeout : float
        Seconds after which it is killed, with all that it started.
    """
    folder.mkdir(parents=True)
    work = folder / "work"
    work.mkdir()
    arguments, records, errors = folder / "given.json", folder / "records.jsonl", folder / "stderr.txt"
    arguments.write_text(json.dumps({**given, "timeout": timeout}))
    start = time.monotonic()
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "survey_ml.conformance.child", task, str(arguments), str(records)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=work,
            env=dict(environment),
            start_new_session=hasattr(os, "killpg"),
        )
        timed_out = False
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
            code = _kill(process)
        except BaseException:
            _kill(process)
            raise
    found = Ended(timed_out=timed_out, code=code, seconds=time.monotonic() - start)
    found.records = _read(records)
    found.finished = any(record.get("finished") for record in found.records)
    found.stderr = errors.read_text("utf-8", "replace")[-_TAIL:]
    return found


def make_environment(paths: list[Path], **more: str) -> dict[str, str]:
    """Return the variables of a process that finds ``paths`` first, and then what this one finds."""
    library = Path(sysconfig.get_path("stdlib")).resolve()
    known = [path for path in sys.path if path and Path(path).is_dir() and not _is_within(path, library)]
    own = str(Path(survey_ml.__file__).parents[1])
    path = dict.fromkeys([*map(str, paths), *known, own])
    kept = {name: value for name, value in os.environ.items() if name != "SURVEY_ML_STRICT"}
    return kept | {"PYTHONPATH": os.pathsep.join(path), "PYTHONFAULTHANDLER": "1"} | more


def _is_within(path: str, folder: Path) -> bool:
    """Tell the standard library from what is installed in a folder below it."""
    resolved = Path(path).resolve()
    return resolved in (folder, folder / "lib-dynload")


def _kill(process: subprocess.Popen[bytes]) -> int:
    """End a process and all that it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    return process.wait()


def _read(path: Path) -> list[dict[str, Any]]:
    """Read what was noted; the last line of a process that died may be cut off."""
    found = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _find_frame(text: str) -> str:
    """Return where a dump of the faulthandler was, in the plugin's own code if it was there."""
    frames = [(m["path"], m["line"], m["name"]) for m in _FRAME.finditer(text)]
    ours, theirs = str(Path(survey_ml.__file__).parent), sysconfig.get_path("stdlib")
    own = [f for f in frames if not f[0].startswith((ours, theirs, "<"))]
    for path, line, name in own or frames:
        return f"{Path(path).name}:{line} in {name}"
    return ""
