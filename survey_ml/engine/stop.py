"""The request to end a run before its work is done; from any thread, read by whoever hands out work."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

AGAIN = "the same command goes on from what is committed"
SIGNALLED = "ended by a signal"


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


@contextlib.contextmanager
def ending_on_signal(stop: Stop) -> Iterator[None]:
    """Ask for the end on SIGTERM: by a worker that cancels, a pod that is evicted, a time limit.

    Units in hand are finished. The default would leave no word in the log of the run; Prefect's own
    handler raises wherever the run happens to be, and tells of tasks that failed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.request(SIGNALLED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
