"""What a unit of work logs, warns and prints: kept with its unit until the driver takes it.

One handler a process, `install`, sees all that is logged, warned and printed; `capture` says which
unit is being worked on. The records travel to the driver in `Result.logs`. Those of a unit that
takes its worker process along are lost with it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from survey_ml.engine.masking import mask

Record = dict[str, Any]
"""``time`` (seconds since 1970), ``level``, ``logger`` and ``message``."""

MOST_RECORDS = 200
"""Records kept of one unit."""
MOST_CHARACTERS = 64 << 10
"""Characters kept of the messages of one unit."""
LONGEST = 4000
"""Characters kept of one message."""


class Keeper:
    """The records of one unit, bounded in number and size."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._room = MOST_CHARACTERS
        self._dropped = 0

    def keep(self, level: str, logger: str, message: str, when: float | None = None) -> None:
        """Add a record, or count it when there is no more room."""
        text = mask(shorten(message))
        if len(self._records) >= MOST_RECORDS or len(text) > self._room:
            self._dropped += 1
            return
        self._room -= len(text)
        self._records.append(
            {"time": time.time() if when is None else when, "level": level, "logger": logger, "message": text}
        )

    def take(self) -> tuple[Record, ...]:
        """Return the records; the last one says how many more there were."""
        if self._dropped:
            said = f"{self._dropped} more records of this unit were dropped"
            self._records.append(
                {"time": time.time(), "level": "WARNING", "logger": __name__, "message": said}
            )
            self._dropped = 0
        return tuple(self._records)


_current: ContextVar[Keeper | None] = ContextVar("survey_ml_unit", default=None)
_alone: list[Keeper] = []
"""In a process that only works: the unit in hand, for the threads that a stage starts."""
_owned = False


def current() -> Keeper | None:
    """Return the keeper of the unit being worked on here; None outside of units."""
    return _current.get() or (_alone[-1] if _alone else None)


@contextlib.contextmanager
def capture() -> Iterator[Keeper]:
    """Keep what is logged, warned and printed inside, where `install` was called before."""
    keeper = Keeper()
    token = _current.set(keeper)
    if _owned:
        _alone.append(keeper)
    try:
        yield keeper
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, _Tee):
                stream.end_line()
        _current.reset(token)
        if _owned:
            _alone.remove(keeper)


def install(*, owned: bool = False) -> contextlib.ExitStack:
    """Listen to logging, warnings and prints of this process.

    What people saw before, they still see: text is handed on, and warnings of loggers without a
    handler go to standard error as ever.

    Parameters
    ----------
    owned : bool
        The process does nothing but units, one at a time.

    Returns
    -------
    ExitStack
        Closing it ends the listening.
    """
    global _owned
    _owned = _owned or owned
    stack = contextlib.ExitStack()
    root, tap = logging.getLogger(), _Tap()
    if owned or not root.handlers:
        # Where the user has set up logging, the user's level stays.
        stack.callback(root.setLevel, root.level)
        root.setLevel(min(root.level, logging.INFO))
    root.addHandler(tap)
    stack.callback(root.removeHandler, tap)
    for name in ("stdout", "stderr"):
        inner = getattr(sys, name)
        if inner is not None:
            tee = _Tee(inner, name)
            setattr(sys, name, tee)
            stack.callback(_restore, name, tee)
    show = warnings.showwarning

    def keep_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        keeper = current()
        if keeper is not None:
            keeper.keep("WARNING", "py.warnings", f"{filename}:{lineno}: {category.__name__}: {message}")
        show(message, category, filename, lineno, file or plain_stderr(), line)

    def put_back() -> None:
        if warnings.showwarning is keep_warning:
            warnings.showwarning = show

    warnings.showwarning = keep_warning
    stack.callback(put_back)
    return stack


def shorten(message: str) -> str:
    """Cut a message that is too long, saying so."""
    return message if len(message) <= LONGEST else f"{message[:LONGEST]}... ({len(message)} characters)"


def format_record(record: logging.LogRecord) -> str:
    """Return the message of a logging record, with its traceback if it has one."""
    try:
        text = record.getMessage()
    except Exception as error:
        text = f"{record.msg!r} with arguments that do not fit: {error}"
    if record.exc_info and record.exc_info[0] is not None:
        text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
    return text


def say(record: logging.LogRecord) -> None:
    """Print a warning that no handler of the user's takes, as logging itself would."""
    stream = plain_stderr()
    if record.levelno >= logging.WARNING and stream is not None:
        with contextlib.suppress(Exception):
            stream.write(record.getMessage() + "\n")


def plain_stderr() -> Any:
    """Return standard error without the ear of this module."""
    stream = sys.stderr
    return stream.inner if isinstance(stream, _Tee) else stream


class _Tap(logging.Handler):
    """Takes what any logger says while a unit is being worked on."""

    def emit(self, record: logging.LogRecord) -> None:
        keeper = current()
        if keeper is not None:
            keeper.keep(record.levelname, record.name, format_record(record), record.created)
        if logging.getLogger().handlers == [self]:
            say(record)


class _Tee:
    """Hands text on to a stream and keeps its lines for the unit being worked on."""

    def __init__(self, inner: Any, name: str) -> None:
        self.inner, self._name, self._part = inner, name, ""

    def write(self, text: str) -> int:
        self.inner.write(text)
        keeper = current()
        if keeper is not None:
            *lines, part = (self._part + text).split("\n")
            self._part = part[:LONGEST]
            for line in lines:
                if line.strip():
                    keeper.keep("INFO", self._name, line.rstrip("\r"))
        return len(text)

    def end_line(self) -> None:
        """Keep what was printed without an end of line."""
        part, self._part = self._part, ""
        keeper = current()
        if keeper is not None and part.strip():
            keeper.keep("INFO", self._name, part)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def _restore(name: str, tee: _Tee) -> None:
    """Put a stream back, unless somebody has put another in its place since."""
    if getattr(sys, name) is tee:
        setattr(sys, name, tee.inner)
