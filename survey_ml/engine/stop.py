"""The request to end a run before its work is done; from any thread, read by whoever hands out work."""

from __future__ import annotations

import threading

AGAIN = "the same command goes on from what is committed"


class Stop:
    """A request that is made once and stays.

    Attributes
    ----------
    reason : str
        Who asked; empty until then.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._event = threading.Event()

    @property
    def requested(self) -> bool:
        """Tell whether no further unit of work should be begun."""
        return self._event.is_set()

    def request(self, reason: str) -> None:
        """Ask for the end; the first reason stays."""
        if not self.requested:
            self.reason = reason
            self._event.set()
