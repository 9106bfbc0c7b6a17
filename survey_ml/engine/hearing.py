"""What a run tells those who watch it: its log and its metrics hear the same calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from survey_ml.data.commit import Unit
from survey_ml.engine.work import Result

if TYPE_CHECKING:
    from survey_ml.engine.run import RunResult


class Watch:
    """Hears what happens in a run, and does nothing about it. Calls may come from any thread."""

    def begin(self, stage: str, total: int) -> None:
        """Hear that a stage begins, with so many units to do."""

    def take(self, result: Result) -> None:
        """Hear what became of a unit."""

    def end(self, stage: str) -> None:
        """Hear that a stage has been gone through."""

    def note(self, message: str, *, level: str = "INFO", unit: Unit | None = None, **more: Any) -> None:
        """Hear anything else worth a line in the log."""

    def lose(self, worker: str, cause: str, units: Sequence[Unit]) -> None:
        """Hear that a worker is gone, and which units it held."""

    def count(self, workers: int, in_flight: int) -> None:
        """Hear how many workers there are, and how many units they hold."""

    def conclude(self, result: RunResult) -> None:
        """Hear how the run ended."""

    def fail(self, error: BaseException) -> None:
        """Hear that the run ended with an error."""

    def close(self) -> None:
        """End; nothing is heard after it."""


class Watchers(Watch):
    """Several that watch, told in turn."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        self._watches = tuple(watches)

    def begin(self, stage: str, total: int) -> None:
        """Tell all."""
        for watch in self._watches:
            watch.begin(stage, total)

    def take(self, result: Result) -> None:
        """Tell all."""
        for watch in self._watches:
            watch.take(result)

    def end(self, stage: str) -> None:
        """Tell all."""
        for watch in self._watches:
            watch.end(stage)

    def note(self, message: str, *, level: str = "INFO", unit: Unit | None = None, **more: Any) -> None:
        """Tell all."""
        for watch in self._watches:
            watch.note(message, level=level, unit=unit, **more)

    def lose(self, worker: str, cause: str, units: Sequence[Unit]) -> None:
        """Tell all."""
        for watch in self._watches:
            watch.lose(worker, cause, units)

    def count(self, workers: int, in_flight: int) -> None:
        """Tell all."""
        for watch in self._watches:
            watch.count(workers, in_flight)

    def conclude(self, result: RunResult) -> None:
        """Tell all."""
        for watch in self._watches:
            watch.conclude(result)

    def fail(self, error: BaseException) -> None:
        """Tell all."""
        for watch in self._watches:
            watch.fail(error)

    def close(self) -> None:
        """Tell all."""
        for watch in self._watches:
            watch.close()
