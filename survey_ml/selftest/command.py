"""The command under test: ``survey-ml run`` into one place, started as often as it takes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from survey_ml.errors import SurveyMLError
from survey_ml.selftest.content import count_markers, read_markers
from survey_ml.selftest.processes import Herd
from survey_ml.selftest.release import TrialRelease

LIMIT = 420.0
"""Seconds that one command may take: several times what the slowest fault needs."""

_TELLING = re.compile(
    r"^(error:|set aside:|survey-ml: |WARNING|.*(is lost|was lost|damaged|taken over|lost worker)).*"
)


class HungError(SurveyMLError):
    """A command did not end."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes
    ----------
    code : int
        Exit code; negative for a signal.
    said : dict
        The object that it printed; empty when there is none.
    errors : str
        Standard error.
    warnings : tuple of str
        What the log of the run warns of.
    """

    code: int
    said: Mapping[str, Any]
    errors: str
    warnings: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The line that tells most of what went wrong; empty when it said nothing."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        for start in ("error:", "set aside:", ""):
            for line in lines:
                if line.startswith(start) and _TELLING.match(line):
                    return line
        return [*(lines[-1:] if self.code else []), *self.warnings, ""][0]


@dataclass
class Command:
    """One command and what became of it.

    Attributes
    ----------
    trial : TrialRelease
        What it processes.
    folder : Path
        For what it says.
    out : str
        Folder or URL it writes to.
    engine : str
        ``ray`` or ``local``.
    herd : Herd
        Its processes.
    settings : list of str
        ``key=value`` of the configuration.
    environment : dict
        More variables.
    direct : dict
        Those in which this process differs when it looks at the release: no fault is in its way.
    ends : list of Ended
        How it ended, each time.
    limit : float
        Seconds that one start may take.
    starts : int
        How often it was started.
    process : Popen or None
        At work; None when it has been waited for.
    logs : tuple of Path
        What it prints, and its standard error.
    """

    trial: TrialRelease
    folder: Path
    out: str
    engine: str
    herd: Herd
    settings: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    ends: list[Ended] = field(default_factory=list)
    direct: dict[str, str] = field(default_factory=dict)
    limit: float = LIMIT
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    logs: tuple[Path, Path] = (Path(), Path())

    def start(self, extra: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start the command."""
        self.starts += 1
        arguments = [
            "run",
            str(self.trial.yaml),
            "--engine",
            self.engine,
            "--out",
            self.out,
            "--json",
            *extra,
        ]
        for setting in self.settings:
            arguments += ["--set", setting]
        self.process, self.logs = self._launch(arguments, f"run-{self.starts}")
        return self.process

    def wait(self) -> Ended:
        """Wait for the command to end."""
        assert self.process is not None
        process, self.process = self.process, None
        ended = self.finish(process, self.logs)
        self.ends.append(ended)
        return ended

    def run(self, extra: Sequence[str] = ()) -> Ended:
        """Start the command and wait for it."""
        self.start(extra)
        return self.wait()

    def tidy(self) -> Mapping[str, Any]:
        """Verify and clean the release with the command that operators use; return what that found.

        Raises
        ------
        SurveyMLError
            When it does not say.
        """
        arguments = ["status", self.out, "--verify", "--repair", "--clean", "--json"]
        ended = self.finish(*self._launch(arguments, f"status-{self.starts}"))
        if "damaged" not in ended.said:
            raise SurveyMLError(f"survey-ml status ended with {ended.code}: {ended.line}")
        return ended.said

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process is not None and self.process.poll() is None

    def read_markers(self) -> dict[str, str]:
        """Return what is committed."""
        with self.seeing(), contextlib.suppress(SurveyMLError):
            return read_markers(self.out)
        return {}

    def count_markers(self) -> int:
        """Return the number of commits; 0 while there is no release."""
        with self.seeing(), contextlib.suppress(SurveyMLError):
            return count_markers(self.out)
        return 0

    def wait_for_commits(self, count: int) -> int:
        """Return the number of commits once there are so many, or the command has ended."""
        end = time.monotonic() + self.limit
        pause = 0.3 if "://" in self.out else 0.01
        while (there := self.count_markers()) < count and self.running and time.monotonic() < end:
            time.sleep(pause)
        return there

    @contextlib.contextmanager
    def seeing(self) -> Iterator[None]:
        """Let this process see what the command sees: the same object store."""
        names = [name for name in self.environment if name.startswith("AWS_")]
        before = {name: os.environ.get(name) for name in names}
        _set_variables({name: self.direct.get(name, self.environment[name]) for name in names})
        try:
            yield
        finally:
            _set_variables(before)

    def stop(self) -> None:
        """End whatever still runs."""
        if self.process is not None and self.running:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def _launch(self, arguments: list[str], name: str) -> tuple[subprocess.Popen[bytes], tuple[Path, Path]]:
        logs = self.folder / f"{name}.json", self.folder / f"{name}.err"
        with logs[0].open("wb") as out, logs[1].open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "survey_ml.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                cwd=self.trial.folder,
                env=self.trial.make_environment(**self.environment),
                # An interrupt at the terminal is for the self-test, which ends what it started.
                start_new_session=True,
            )
        self.herd.add(process.pid)
        return process, logs

    def finish(self, process: subprocess.Popen[bytes], logs: tuple[Path, Path]) -> Ended:
        """Wait for a process and read what it said.

        Raises
        ------
        HungError
            When it does not end; then it is killed.
        """
        try:
            code = process.wait(self.limit)
        except subprocess.TimeoutExpired:
            self.herd.look()
            process.kill()
            process.wait()
            text = logs[1].read_text(errors="replace")[-500:]
            raise HungError(
                f"a command has not ended after {self.limit:g} s: {text}", "look at its log"
            ) from None
        text = logs[0].read_text(errors="replace").strip()
        said: Any = {}
        with contextlib.suppress(ValueError):
            said = json.loads(text.splitlines()[-1]) if text else {}
        errors = logs[1].read_text(errors="replace")
        return Ended(code, said if isinstance(said, dict) else {}, errors, self._read_warnings(process.pid))

    def _read_warnings(self, pid: int) -> tuple[str, ...]:
        """Return what the log of a run warns of; of one in a bucket, nothing."""
        found = []
        for path in sorted(Path(self.out).glob("logs/*.jsonl")) if "://" not in self.out else ():
            records = []
            for line in path.read_text(errors="replace").splitlines():
                # The last line of a process that was killed may be cut off.
                with contextlib.suppress(ValueError):
                    records.append(json.loads(line))
            # What follows may be told by workers.
            if not records or records[0]["pid"] != pid:
                continue
            for record in records:
                if record["level"] in ("WARNING", "ERROR"):
                    place = ", ".join(str(record[k]) for k in ("field", "tile", "stage") if record.get(k))
                    found.append(f"{place}: {record['message']}" if place else str(record["message"]))
        return tuple(found)


def _set_variables(values: Mapping[str, str | None]) -> None:
    """Set variables of this process; those without a value are unset."""
    for name, value in values.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
