"""Why workers die, and what to tell of a unit that took several with it."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from survey_ml.engine.memory import count_memory_kills

DeathKind = Literal["exit", "time", "memory"]

_MEMORY = re.compile(r"NODE_OUT_OF_MEMORY|running low on memory|memory usage threshold", re.IGNORECASE)
_GUESSES = re.compile(r"\s*Some common causes include.*", re.DOTALL)
"""What Ray adds to the end of any process, the out-of-memory killer among it: it says nothing of this one."""
_RECENT = 15.0
"""Seconds within which a kill by the kernel is taken for that of a worker just lost."""
_AT_ONCE = 5.0
"""Seconds within which workers that were killed for memory count as killed together."""
_HINTS = {
    "exit": "the stage's code may end its process or crash it; if it does not, this is often memory: "
    "try a smaller tiling.core_px or fewer engine.workers; "
    "then run again with --retry-quarantined",
    "time": "raise engine.unit_seconds if such a unit may take longer, or report it to who wrote the stage; "
    "then run again with --retry-quarantined",
    "memory": "set a smaller tiling.core_px or fewer engine.workers, or take a machine with more memory; "
    "then run again with --retry-quarantined",
}


@dataclass(frozen=True)
class Death:
    """The end of one worker.

    Attributes
    ----------
    kind : str
        ``exit`` (the process ended, who knows why), ``time`` (stopped here since a unit took too
        long) or ``memory`` (killed by Ray or the kernel for want of memory).
    detail : str
        In words.
    peak : int
        Most memory that the worker was seen to hold, in bytes; 0 when unknown.
    """

    kind: DeathKind
    detail: str
    peak: int = 0


def explain_deaths(deaths: Sequence[Death]) -> tuple[str, str]:
    """Return cause and hint of a unit that took workers along."""
    kinds = {death.kind for death in deaths}
    count = f"{len(deaths)} times" if len(deaths) != 1 else "once"
    peak = max((death.peak for death in deaths), default=0)
    seen = f", which held up to {peak / 1e6:.0f} MB" if peak else ""
    if kinds == {"time"}:
        return f"it {deaths[-1].detail}, {count}", _HINTS["time"]
    if kinds == {"memory"}:
        return f"its worker was killed for memory {count}{seen}", _HINTS["memory"]
    if kinds == {"exit"}:
        return f"its worker died {count}{seen}", _HINTS["exit"]
    named = "; ".join(dict.fromkeys(death.detail for death in deaths))
    worst: DeathKind = "memory" if "memory" in kinds else "time"
    return f"its worker died {count}{seen}: {named}", _HINTS[worst]


class Coroner:
    """Tells why workers died, from what Ray says and what the kernel of this machine counts.

    Parameters
    ----------
    local : bool
        All workers run on this machine.
    """

    def __init__(self, *, local: bool) -> None:
        self._local = local
        self._kills: deque[tuple[float, int]] = deque()
        self._held: deque[tuple[float, int]] = deque()
        self.look()

    def look(self) -> None:
        """Remember how many processes the kernel has killed for memory; call it every few seconds."""
        if not self._local:
            return
        now = time.monotonic()
        self._kills.append((now, count_memory_kills()))
        while len(self._kills) > 1 and self._kills[1][0] < now - _RECENT:
            self._kills.popleft()

    def examine(self, error: BaseException | str, peak: int) -> Death:
        """Return the death that an error of Ray stands for."""
        text = _GUESSES.sub("", str(error)).strip()
        if type(error).__name__ == "OutOfMemoryError" or _MEMORY.search(text):
            return Death("memory", "it was killed by Ray, as memory ran low", peak)
        if self._local:
            before = self._kills[0][1] if self._kills else 0
            now = count_memory_kills()
            if now > before:
                self._kills.clear()
                self._kills.append((time.monotonic(), now))
                return Death("memory", "it was killed by the kernel for want of memory", peak)
        last = [line.strip() for line in text.splitlines() if line.strip()]
        return Death("exit", last[-1] if last else type(error).__name__, peak)

    def spares(self, death: Death, others: Sequence[int]) -> bool:
        """Tell whether a worker was killed for memory that another one took.

        When memory runs low, Ray ends several workers at once, or the one that began last.

        Parameters
        ----------
        death : Death
            Of the worker.
        others : sequence of int
            Most bytes that each of the workers held that are at work on this machine.
        """
        if death.kind != "memory" or not self._local:
            return False
        now = time.monotonic()
        while self._held and self._held[0][0] < now - _AT_ONCE:
            self._held.popleft()
        most = max((*others, *(peak for _, peak in self._held)), default=0)
        self._held.append((now, death.peak))
        return 0 < death.peak < most
