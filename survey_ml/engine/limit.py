"""A time limit for one call of a stage, in the process that runs it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from survey_ml.errors import PluginError


@contextlib.contextmanager
def time_limit(seconds: float | None, stage: str) -> Iterator[None]:
    """Interrupt what runs too long, where the platform can.

    It works in the main thread of a process, which is where both engines run stages. Code that
    never returns to Python, such as an endless loop in C, is not interrupted.

    Parameters
    ----------
    seconds : float or None
        None sets no limit.
    stage : str
        Name of the stage, for the message.

    Raises
    ------
    PluginError
        Out of the code that runs, when its time is up.
    """
    main = threading.current_thread() is threading.main_thread()
    if seconds is None or not main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        where = f" (at {frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno})" if frame else ""
        raise PluginError(
            f"stage {stage} was stopped after {seconds:g} s{where}",
            "it hangs, or it needs more time: raise engine.unit_seconds",
            stage=stage,
        )

    before = signal.signal(signal.SIGALRM, stop)
    # Again and again: a stage that catches everything must not outlive its time.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
