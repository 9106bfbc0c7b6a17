"""How far a run is: a bar a stage at a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import IO, Any, Protocol


class Progress(Protocol):
    """What a run tells about itself while it works; called from one thread at a time."""

    def begin(self, stage: str, total: int) -> None:
        """Announce a stage with so many tiles to do."""

    def advance(self, stage: str, outcome: str) -> None:
        """Count one tile: ``done``, ``failed`` and so on."""

    def end(self, stage: str) -> None:
        """Close a stage."""


class QuietProgress:
    """Says nothing."""

    def begin(self, stage: str, total: int) -> None:
        """Say nothing."""

    def advance(self, stage: str, outcome: str) -> None:
        """Say nothing."""

    def end(self, stage: str) -> None:
        """Say nothing."""


class PlainProgress:
    """One line a stage, rewritten twice a second, for terminals that rich cannot drive.

    Parameters
    ----------
    stream : text stream
        Where to write; standard error unless given.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._total = self._done = self._bad = 0
        self._start = self._last = 0.0

    def begin(self, stage: str, total: int) -> None:
        """Start a line."""
        self._total, self._done, self._bad = total, 0, 0
        self._start, self._last = time.monotonic(), 0.0
        self._write(stage)

    def advance(self, stage: str, outcome: str) -> None:
        """Rewrite the line, if the last time is long enough ago."""
        self._done += 1
        self._bad += outcome not in ("done", "skipped")
        if time.monotonic() - self._last >= 0.5:
            self._write(stage)

    def end(self, stage: str) -> None:
        """End the line."""
        self._write(stage)
        self._stream.write("\n")
        self._stream.flush()

    def _write(self, stage: str) -> None:
        self._last = time.monotonic()
        spent = self._last - self._start
        rate = self._done / spent if spent > 0 else 0.0
        left = f"{(self._total - self._done) / rate:.0f} s left" if rate else "..."
        bad = f", {self._bad} set aside" if self._bad else ""
        line = f"\r{stage:<14} {self._done}/{self._total} tiles  {rate:.1f}/s  {left}{bad}"
        self._stream.write(f"{line:<78}")
        self._stream.flush()


class RichProgress(AbstractContextManager["RichProgress"]):
    """Bars with tiles done, rate and time left, one below the other."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("tiles  {task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[bad]}"),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}
        self._counts: dict[str, list[float]] = {}

    def __enter__(self) -> RichProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, stage: str, total: int) -> None:
        """Show a bar."""
        self._tasks[stage] = self._bars.add_task(stage, total=total, rate="", bad="")
        self._counts[stage] = [time.monotonic(), 0, 0]

    def advance(self, stage: str, outcome: str) -> None:
        """Move a bar on."""
        counts = self._counts[stage]
        counts[1] += 1
        counts[2] += outcome not in ("done", "skipped")
        rate = counts[1] / max(time.monotonic() - counts[0], 1e-3)
        bad = f"[red]{counts[2]:.0f} set aside[/]" if counts[2] else ""
        self._bars.update(self._tasks[stage], advance=1, rate=f"{rate:.1f}/s", bad=bad)

    def end(self, stage: str) -> None:
        """Leave the bar where it is."""
        self._bars.refresh()


def choose_progress(stream: IO[str] | None = None) -> Progress:
    """Return bars at a terminal and silence elsewhere."""
    stream = stream or sys.stderr
    if not stream.isatty():
        return QuietProgress()
    try:
        return RichProgress()
    except ImportError:
        return PlainProgress(stream)
