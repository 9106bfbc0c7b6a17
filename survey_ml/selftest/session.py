"""A self-test from its first folder to its last: the short check, and the runs under faults."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from survey_ml.errors import ConfigError, SurveyMLError
from survey_ml.selftest.command import Command
from survey_ml.selftest.content import Content, compare, read_content
from survey_ml.selftest.disturbed import Outcome, disturb, list_leftovers
from survey_ml.selftest.fault import Fault, Means
from survey_ml.selftest.matrix import choose
from survey_ml.selftest.processes import Herd, can_look
from survey_ml.selftest.release import TrialRelease

FIRST = 1800.0
"""Seconds that an undisturbed run may take: the first one of an installation compiles."""


class Session:
    """A folder, the trial release in it, and what is done with that.

    Parameters
    ----------
    means : Means
        What may be used.
    out : str or None
        Folder, which may not hold anything; a temporary one unless given.
    keep : bool
        Leave all releases there.
    say : callable
        Is told what is going on, in lines for people.
    """

    def __init__(self, means: Means, out: str | None, *, keep: bool, say: Callable[[str], object]) -> None:
        self.means, self._out, self._keep, self._say = means, out, keep, say
        self._start = time.monotonic()
        self.folder = Path()
        self._before: Any = None

    def __enter__(self) -> Session:
        if threading.current_thread() is threading.main_thread():
            # Asked to end, it ends what it started, as at an interrupt.
            self._before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        if self.folder == Path():
            return
        if kind is not None and not issubclass(kind, SurveyMLError):
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        kept = sorted(path.name for path in self.folder.glob("*-*") if path.is_dir())
        if self._keep or kept:
            self._say(f"left in {self.folder}: {', '.join(kept) or 'all of it'}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def seconds(self) -> float:
        """Time since it began."""
        return time.monotonic() - self._start

    # ---- what it does

    def list_faults(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the faults, and why some of them cannot be tried here."""
        return {"faults": [self._describe(kind) for kind in choose(names)]}

    def check(self) -> dict[str, Any]:
        """Process the trial release on each engine and compare.

        Returns
        -------
        dict
            ``engines`` (time, units and rows of each), ``wrong`` and ``passed``.
        """
        trial = self.prepare()
        engines = [self.means.engine] if self.means.engine else self._list_engines()
        rows, wrong = [], []
        first: Content | None = None
        for engine in engines:
            content, seconds = self.run_calmly(trial, engine)
            wrong += [] if first is None else [f"{engine}: {text}" for text in compare(first, content)]
            first = first or content
            tables = {name: len(table) - 1 for name, table in sorted(content.tables.items())}
            rows.append(
                {"engine": engine, "seconds": seconds, "units": len(content.markers), "tables": tables}
            )
        wrong += (
            []
            if first and sum(map(len, first.tables.values())) > len(first.tables)
            else ["no source was found"]
        )
        return {"engines": rows, "wrong": wrong, "passed": not wrong}

    def try_faults(self, names: Sequence[str], runs: int | None, seed: int) -> dict[str, Any]:
        """Process the trial release under faults.

        Parameters
        ----------
        names : sequence of str
            Of the faults; all that can be tried here when empty.
        runs : int or None
            Faults are taken in turn for as many runs; one run each unless given.
        seed : int
            Of the first run; each later one has the next number.

        Returns
        -------
        dict
            ``runs``, ``skipped`` and ``passed``.
        """
        kinds = choose(names)
        skipped = [
            {"fault": kind.name, "reason": reason} for kind in kinds if (reason := kind(self.means).miss())
        ]
        left = {entry["fault"] for entry in skipped}
        kinds = [kind for kind in kinds if kind.name not in left]
        for entry in skipped:
            self._say(f"not tried: {entry['fault']}: {entry['reason']}")
        if not kinds:
            raise ConfigError("none of these faults can be tried here", "survey-ml selftest --list says why")
        trial = self.prepare()
        reference, seconds = self.run_calmly(trial, self.means.engine or "local")
        count = runs or len(kinds)
        outcomes = []
        for number in range(count):
            kind = kinds[number % len(kinds)]
            place = self.folder / f"{number + 1}-{kind.name}"
            outcome = disturb(kind(self.means), seed + number, trial, place, reference)
            outcomes.append(outcome)
            self._tell(number + 1, count, outcome)
            if outcome.passed and not self._keep:
                shutil.rmtree(place, ignore_errors=True)
        return {
            "reference": {"seconds": seconds, "units": len(reference.markers)},
            "runs": [{**vars(outcome), "passed": outcome.passed} for outcome in outcomes],
            "skipped": skipped,
            "passed": all(outcome.passed for outcome in outcomes),
        }

    # ---- how

    def _describe(self, kind: type[Fault]) -> dict[str, str]:
        fault = kind(self.means)
        reason = fault.miss()
        return {
            "fault": kind.name,
            "engine": fault.choose_engine(),
            "summary": kind.summary,
            "not_here": reason,
        }

    def _list_engines(self) -> list[str]:
        if all(importlib.util.find_spec(name) for name in ("ray", "prefect")):
            return ["local", "ray"]
        self._say("ray and prefect are not installed: only --engine local is checked")
        return ["local"]

    def prepare(self) -> TrialRelease:
        """Make the folder and the trial release in it."""
        if not can_look():
            self._say("this system has no /proc: what commands leave behind is not looked for")
        if self._out is None:
            self.folder = Path(tempfile.mkdtemp(prefix="survey-ml-selftest-"))
        else:
            folder = Path(self._out).expanduser().absolute()
            if folder.exists() and any(folder.iterdir()):
                raise ConfigError(f"{folder} is not empty", "name a folder that is not there yet with --out")
            folder.mkdir(parents=True, exist_ok=True)
            self.folder = folder
        trial = TrialRelease(self.folder)
        trial.write()
        return trial

    def run_calmly(self, trial: TrialRelease, engine: str) -> tuple[Content, float]:
        """Process the trial release undisturbed; return what it holds then, and the seconds it took.

        Raises
        ------
        SurveyMLError
            When even that does not end well, or leaves something behind.
        """
        place = self.folder / f"calm_{engine}"
        place.mkdir()
        start = time.monotonic()
        with Herd() as herd:
            command = Command(trial, place, str(place / "out"), engine, herd, limit=FIRST)
            try:
                ended = command.run()
            finally:
                command.stop()
            if ended.code:
                raise SurveyMLError(
                    f"the undisturbed run on {engine} ended with exit code {ended.code}: {ended.line}",
                    f"see {place}; `survey-ml run {trial.yaml}` shows more",
                )
            seconds = time.monotonic() - start
            left = list_leftovers(herd)
        content = read_content(command.out)
        if left:
            raise SurveyMLError(f"the undisturbed run on {engine} left something: {'; '.join(left)}")
        self._say(f"undisturbed on {engine}: {len(content.markers)} units, {seconds:.0f} s")
        return content, seconds

    def _tell(self, number: int, count: int, outcome: Outcome) -> None:
        verdict = "passed" if outcome.passed else "FAILED"
        self._say(
            f"{number} of {count}  {outcome.fault} on {outcome.engine}, seed {outcome.seed}: {verdict}, "
            f"{outcome.starts} start{'s' * (outcome.starts != 1)}, {outcome.seconds:.0f} s\n"
            f"    at {outcome.moment}: {outcome.done}"
        )
        for line in [*outcome.seen, *(f"status: {text}" for text in outcome.found)]:
            self._say(f"    {line[:160]}")
        for line in outcome.wrong:
            self._say(f"    wrong: {line}")
