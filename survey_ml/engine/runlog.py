"""The log of a run: ``OUT/logs/RUN_ID.jsonl``, one JSON object a line.

Nothing that goes wrong here harms the run: a log that cannot be written ends, and the run goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from survey_ml.data.commit import Unit
from survey_ml.data.store import ReleaseStore
from survey_ml.engine.hearing import Watch
from survey_ml.engine.masking import mask
from survey_ml.engine.records import current, format_record, say, shorten
from survey_ml.engine.work import RELEASE, Result
from survey_ml.errors import SurveyMLError

if TYPE_CHECKING:
    from survey_ml.engine.run import RunResult

FOLDER = "logs"
KEPT = 20
"""Logs kept of a release, this run's included."""
_PUT_SECONDS = 30.0
"""Time between copies of the log to a release on an object store."""
_NAME = "survey_ml.run"
"""Logger of what the engine itself says of a run."""
_LEVELS = {"failed": "WARNING", "quarantined": "ERROR", "damaged": "WARNING", "stopped": "ERROR"}

Sink = Callable[[Mapping[str, Any]], None]


def make_run_id() -> str:
    """Return the name of a run: when it began (UTC) and six random hexadecimal digits."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"


class RunLog(Watch):
    """Writes what happens in a run, and what its workers have to say, as JSON lines.

    Parameters
    ----------
    out : str
        Folder or URL of the release, which can be written. For a URL the log is a temporary file
        here, and put there every 30 seconds and at the end.
    run : str
        Name of the run; see `make_run_id`.
    """

    def __init__(self, out: str, run: str) -> None:
        self.run, self.path = run, f"{FOLDER}/{run}.jsonl"
        self.sinks: list[Sink] = []
        """Are given every record as it is written."""
        self._medium = ReleaseStore.open(out).medium
        self._lock = threading.Lock()
        self._named: set[tuple[str, str, str]] = set()
        self._stopped = False
        """Said once that the run must end: all units that wait are reported so."""
        self._host, self._pid = platform.node(), os.getpid()
        self._remote = "://" in out
        self._file: IO[str] | None = None
        self._ending = threading.Event()
        try:
            self._file = self._open(out)
        except OSError as error:
            self._give_up(error)
        self._prune()
        self._handler = _Handler(self)
        logging.getLogger("survey_ml").addHandler(self._handler)
        self._putter = threading.Thread(target=self._put_often, name="survey-ml-log", daemon=True)
        if self._remote:
            self._putter.start()

    def _open(self, out: str) -> IO[str]:
        if self._remote:
            return tempfile.NamedTemporaryFile("w", suffix=".jsonl", prefix="survey-ml-", encoding="utf-8")
        path = Path(out) / self.path
        path.parent.mkdir(exist_ok=True)
        return path.open("w", encoding="utf-8")

    def _prune(self) -> None:
        """Remove the oldest logs; their names sort by time."""
        with contextlib.suppress(SurveyMLError):
            names = [name for name in self._medium.list_folder(FOLDER) if name.endswith(".jsonl")]
            older = [name for name in names if name != f"{self.run}.jsonl"]
            for name in older[: max(0, len(older) - KEPT + 1)]:
                self._medium.remove(f"{FOLDER}/{name}")

    # ---- writing

    def write(
        self,
        message: str,
        *,
        level: str = "INFO",
        logger: str = _NAME,
        when: float | None = None,
        unit: Unit | None = None,
        worker: str = "",
        **more: Any,
    ) -> None:
        """Write one record; what is None or empty in ``more`` is left out."""
        host, _, pid = worker.rpartition(":")
        record: dict[str, Any] = {
            "time": format_time(time.time() if when is None else when),
            "level": level,
            "logger": logger,
            "message": mask(shorten(message)),
            "run": self.run,
        }
        if unit is not None:
            record |= {
                name: value
                for name, value in (("field", unit.field), ("tile", unit.tile), ("stage", unit.stage))
                if value and value != RELEASE
            }
        record["host"], record["pid"] = host or self._host, int(pid) if pid.isdigit() else self._pid
        if worker:
            record["worker"] = worker
        for name, value in more.items():
            if value is not None and value != "":
                record[name] = mask(value) if isinstance(value, str) else value
        line = json.dumps(record, ensure_ascii=False, default=str) + "\n"
        with self._lock:
            if self._file is not None:
                try:
                    self._file.write(line)
                    self._file.flush()
                except (OSError, ValueError) as error:
                    self._give_up(error)
        for sink in self.sinks:
            sink(record)

    def _give_up(self, error: BaseException) -> None:
        """Write nothing more; the run matters more than its log."""
        file, self._file = self._file, None
        with contextlib.suppress(OSError, ValueError):
            if file is not None:
                file.close()
        logging.getLogger(__name__).debug("the log of the run ends here: %s", error)

    def _put_often(self) -> None:
        while not self._ending.wait(_PUT_SECONDS):
            self.put()

    def put(self) -> None:
        """Copy the log so far to a release on an object store; on disk it is there already."""
        if not self._remote:
            return
        with self._lock:
            file = self._file
            if file is None:
                return
            data = Path(file.name).read_bytes()
        with contextlib.suppress(SurveyMLError):
            self._medium.replace(self.path, data)

    # ---- hearing

    def begin(self, stage: str, total: int) -> None:
        """Write that a stage begins."""
        self.write(f"units to do: {total}", unit=Unit("", stage, ""), event="stage_begins", units=total)

    def end(self, stage: str) -> None:
        """Write that a stage has ended."""
        self.write("no more units to do", unit=Unit("", stage, ""), event="stage_ends")

    def take(self, result: Result) -> None:
        """Write what a unit had to say, and why it was not done."""
        for record in result.logs:
            self.write(
                record["message"],
                level=record["level"],
                logger=record["logger"],
                when=record["time"],
                unit=result.unit,
                worker=result.worker,
            )
        level = _LEVELS.get(result.outcome)
        if level is None or (result.outcome == "stopped" and self._stopped):
            return
        self._stopped = self._stopped or result.outcome == "stopped"
        words = {"failed": "set aside", "stopped": "the run must end"}
        if result.outcome != "damaged":
            unit = result.unit
            self._named.add((unit.field, unit.tile, unit.stage))
        self.write(
            f"{words.get(result.outcome, result.outcome)}: {result.cause}",
            level=level,
            unit=result.unit,
            worker=result.worker,
            event=result.outcome,
            hint=result.hint,
        )

    def note(self, message: str, *, level: str = "INFO", unit: Unit | None = None, **more: Any) -> None:
        """Write a line."""
        self.write(message, level=level, unit=unit, **more)

    def lose(self, worker: str, cause: str, units: Sequence[Unit]) -> None:
        """Write that a worker is lost."""
        self.write(
            f"a worker is lost: {cause}",
            level="WARNING",
            unit=units[0] if len(units) == 1 else None,
            worker=worker,
            event="lost_worker",
            held=[f"{unit.field}/{unit.stage}/{unit.tile}" for unit in units],
        )

    def conclude(self, result: RunResult) -> None:
        """Write what was left out for reasons other than a unit's own, and the result."""
        for entry in result.set_aside:
            if (entry.field or RELEASE, entry.tile, entry.stage) in self._named:
                continue
            self.write(
                f"set aside: {entry.cause}",
                level="WARNING",
                unit=Unit(entry.field, entry.stage, entry.tile),
                event="set_aside",
                hint=entry.hint,
            )
        self.write(
            f"{result.done} done, {result.skipped} done before, {len(result.set_aside)} set aside",
            event="run_ends",
            state=result.state,
            reason=None if result.stopped is None else result.stopped.message,
            exit_code=result.exit_code,
            done=result.done,
            redone=result.redone,
            skipped=result.skipped,
            set_aside=len(result.set_aside),
            seconds=round(result.seconds, 3),
        )

    def fail(self, error: BaseException) -> None:
        """Write why the run ended without a result."""
        message = error.message if isinstance(error, SurveyMLError) else f"{type(error).__name__}: {error}"
        hint = error.hint if isinstance(error, SurveyMLError) else ""
        code, state, said = 2, "failed", f"the run failed: {message}"
        if isinstance(error, KeyboardInterrupt):
            code, state, said, message = 130, "cancelled", "the run was interrupted", "interrupted by hand"
        self.write(
            said, level="ERROR", event="run_ends", state=state, reason=message, exit_code=code, hint=hint
        )

    def close(self) -> None:
        """Put the log in its place; records that come later are lost."""
        logging.getLogger("survey_ml").removeHandler(self._handler)
        self._ending.set()
        if self._remote:
            self._putter.join(timeout=_PUT_SECONDS)
            self.put()
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._file is not None:
                self._file.close()
            self._file = None


class _Handler(logging.Handler):
    """Takes what survey_ml logs in the driver; a unit's own records come with its result."""

    def __init__(self, log: RunLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            say(record)
        # A record marked so has been written already, with more to it.
        if current() is None and not getattr(record, "noted", False):
            self._log.write(
                format_record(record),
                level=record.levelname,
                logger=record.name,
                when=record.created,
                unit=getattr(record, "unit", None),
            )


def format_time(seconds: float) -> str:
    """Write a time as UTC with milliseconds."""
    whole, part = divmod(round(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{part:03d}Z"
