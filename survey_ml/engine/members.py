"""What the pool of actors keeps account of: jobs, who waits for them, and the actors that hold them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from survey_ml.engine.deaths import Death
from survey_ml.engine.memory import resident_memory
from survey_ml.engine.work import Job, Report, Result, StageWork


@dataclass
class Item:
    """A job in the pool, who waits for it, and the workers that it took with it.

    Attributes
    ----------
    spared : int
        Workers that were lost under it through no fault of its own.
    """

    work: StageWork
    job: Job
    report: Report
    ticket: Ticket
    deaths: list[Death] = field(default_factory=list)
    alone: bool = False
    spared: int = 0
    not_before: float = 0.0


@dataclass
class Ticket:
    """One caller of `ActorPool.run`, who waits until all its jobs are reported."""

    left: int
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


@dataclass(eq=False)
class Member:
    """An actor and the calls it holds, the oldest first.

    Attributes
    ----------
    place : str
        Host and process id, as ``host:pid``.
    since : float
        When it began with the oldest call.
    settled : int
        Bytes it held after its first unit, when what its stage needs was loaded.
    peak : int
        Most bytes it was seen to hold.
    retiring : bool
        It gets no more calls, and is replaced when it has none.
    """

    handle: Any
    ready: bool = False
    place: str = ""
    calls: list[tuple[Any, list[Item]]] = field(default_factory=list)
    since: float = 0.0
    settled: int = 0
    peak: int = 0
    retiring: bool = False

    @property
    def load(self) -> int:
        """Units it holds."""
        return sum(len(items) for _, items in self.calls)

    def give(self, call: Any, items: list[Item]) -> None:
        """Note a call that was sent to it."""
        if not self.calls:
            self.since = time.monotonic()
        self.calls.append((call, items))

    def settle(self, call: Any, items: list[Item]) -> None:
        """Note that a call has ended; the next one begins."""
        self.calls.remove((call, items))
        self.since = time.monotonic()

    def overran(self, limit: float | None) -> bool:
        """Tell whether it has been at its oldest call, one unit, for longer than ``limit`` seconds."""
        at_work = self.ready and bool(self.calls) and bool(self.calls[0][1])
        return at_work and limit is not None and time.monotonic() - self.since > limit

    def weigh(self, result: Result | None = None) -> None:
        """Note the memory of the process, as a result says or, on this machine, as it is now."""
        if result is not None:
            self.peak = max(self.peak, result.peak)
            self.settled = self.settled or result.memory
        else:
            pid = self.place.rpartition(":")[2]
            self.peak = max(self.peak, resident_memory(int(pid)) if pid.isdigit() else 0)
