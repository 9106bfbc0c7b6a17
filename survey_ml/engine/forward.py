"""Hand the log of a run on to Prefect: a flow run's page then shows what its log says."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from survey_ml.engine.hearing import Watch

logger = logging.getLogger(__name__)

_SECONDS = 2.0
"""Time between calls of the API."""
_MOST = 500
"""Records a call; Prefect takes one megabyte."""
_WAITING = 5000
"""Records that wait at most; more than that and the oldest are forgotten."""
_FAILURES = 3
"""Failed calls in a row after which nothing more is sent."""
_LAST = 5.0
"""Time the last call may take at the end of a run, in seconds."""


class PrefectLog(Watch):
    """Sends records of level INFO and above to the flow run that this run is, if it is one.

    A record is sent some seconds after it was written, several in one call, from a thread of its
    own: an API that is slow or gone costs the run nothing.
    """

    def __init__(self) -> None:
        self._waiting: deque[dict[str, Any]] = deque(maxlen=_WAITING)
        self._flow_run = ""
        self._wake = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None

    def begin(self, stage: str, total: int) -> None:
        """Look, in the thread of the flow, whether there is one."""
        # Who has not imported Prefect is not in a flow.
        if self._thread is not None or "prefect" not in sys.modules:
            return
        from prefect.context import FlowRunContext

        here = FlowRunContext.get()
        if here is None or here.flow_run is None:
            return
        self._flow_run = str(here.flow_run.id)
        # The settings that name the API belong to the context of this thread.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._send_often,), name="survey-ml-prefect-log", daemon=True
        )
        self._thread.start()

    def sink(self, record: Mapping[str, Any]) -> None:
        """Take a record of the log."""
        level = getattr(logging, str(record["level"]), logging.INFO)
        if level < logging.INFO:
            return
        place = ", ".join(f"{part} {record[part]}" for part in ("field", "tile", "stage") if part in record)
        self._waiting.append(
            {
                "name": record["logger"],
                "level": level,
                "message": f"{place}: {record['message']}" if place else record["message"],
                "timestamp": record["time"],
            }
        )

    def _send_often(self) -> None:
        failures = 0
        while failures < _FAILURES:
            self._wake.wait(_SECONDS)
            self._wake.clear()
            ended = self._ended
            try:
                while self._send():
                    pass
                failures = 0
            except Exception as error:
                failures += 1
                logger.debug("the log could not be sent to Prefect: %s", error)
            if ended:
                return

    def _send(self) -> bool:
        """Send what waits; tell whether there may be more."""
        from prefect.client.orchestration import get_client

        batch = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
        if not batch:
            return False
        with get_client(sync_client=True, httpx_settings={"timeout": 10.0}) as client:
            client.create_logs([{**record, "flow_run_id": self._flow_run} for record in batch])
        return bool(self._waiting)

    def end(self, stage: str) -> None:
        """Send at once: after the last stage an API that was started for the run ends with it."""
        self._wake.set()

    def close(self) -> None:
        """Send what is left."""
        self._ended = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=_LAST)
