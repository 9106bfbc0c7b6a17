"""What a run and its Prefect flow run tell each other: cancel comes in, artifacts go out.

Nothing here is an error of the run: Prefect only shows.
"""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from survey_ml.engine.api import PrefectAPI
from survey_ml.engine.stop import Stop

if TYPE_CHECKING:
    from survey_ml.engine.run import RunResult

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
"""Between looks at the state of the flow run: a cancelled run begins no unit 5 s later."""
PROGRESS_SECONDS = 5.0
"""Between updates of the progress of a stage."""
_ANSWER_SECONDS = 3.0

Standing = Callable[[], Mapping[str, tuple[int, int]]]
"""Returns units accounted for and units asked for, by stage."""


class RunLink:
    """The tie between a run and the flow run that shows it; without a flow run it does nothing.

    Attributes
    ----------
    stop : Stop
        Is requested when the flow run is cancelled.
    joined : bool
        The run is inside of a flow run already, so it must not start another.
    cancelled : bool
        The flow run has been seen to be cancelled.
    """

    def __init__(self, *, joined: bool = False) -> None:
        self.stop = Stop()
        self.joined = joined
        self.cancelled = False
        self._api: PrefectAPI | None = None
        self._flow_run = ""
        self._name = ""
        self._standing: Standing | None = None
        self._shown: dict[str, tuple[str, float]] = {}

    def watch_progress(self, standing: Standing) -> None:
        """Show how far the stages are from now on."""
        self._standing = standing

    @contextlib.contextmanager
    def working(self, url: str, flow_run: str, name: str) -> Iterator[None]:
        """Listen to a flow run, and show the progress in it, while the work lasts.

        Parameters
        ----------
        url : str
            The API.
        flow_run : str
            Identifier of the flow run.
        name : str
            Of the release; artifacts are named after it.
        """
        self._api = PrefectAPI(url, seconds=_ANSWER_SECONDS)
        self._flow_run, self._name = flow_run, name
        ended = threading.Event()
        thread = threading.Thread(target=self._serve, args=(ended,), name="survey-ml-link", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=4 * _ANSWER_SECONDS)

    def _serve(self, ended: threading.Event) -> None:
        shown = time.monotonic()
        while not ended.wait(POLL_SECONDS):
            self._attempt(self._listen)
            if time.monotonic() - shown >= PROGRESS_SECONDS:
                shown = time.monotonic()
                self._attempt(self._show_progress)
        self._attempt(self._show_progress)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            logger.debug("Prefect was not told or heard: %s", error)

    def _listen(self) -> None:
        assert self._api is not None
        state = (self._api.get(f"/flow_runs/{self._flow_run}").get("state") or {}).get("type")
        if state in ("CANCELLING", "CANCELLED"):
            self.cancelled = True
            if not self.stop.requested:
                self.stop.request("cancelled through Prefect")
                logger.warning("the run is cancelled; nothing new is begun")

    def listen(self) -> None:
        """Look at the state of the flow run now."""
        if self._api is not None:
            self._attempt(self._listen)

    def _show_progress(self) -> None:
        assert self._api is not None
        for stage, (done, total) in (self._standing() if self._standing else {}).items():
            percent = round(100.0 * done / total, 1) if total else 100.0
            identifier, last = self._shown.get(stage, ("", -1.0))
            if percent == last:
                continue
            if identifier:
                self._api.patch(f"/artifacts/{identifier}", {"data": percent})
            else:
                identifier = self._create(
                    f"progress-{stage}", "progress", percent, f"Stage {stage}, percent done"
                )
            self._shown[stage] = (identifier, percent)

    def _create(self, what: str, kind: str, data: object, description: str) -> str:
        assert self._api is not None
        body = {
            "key": _slug(f"{self._name}-{what}"),
            "type": kind,
            "data": data,
            "description": description,
            "flow_run_id": self._flow_run,
        }
        return str(self._api.post("/artifacts/", body)["id"])

    def conclude(self, result: RunResult) -> None:
        """Leave a table of the stages and a link to the report with the flow run."""
        if self._api is not None:
            self._attempt(lambda: self._show_table(result))
            self._attempt(lambda: self._show_report(result))

    def _show_table(self, result: RunResult) -> None:
        aside: dict[str, int] = {}
        for entry in result.set_aside:
            aside[entry.stage] = aside.get(entry.stage, 0) + 1
        rows = [
            {
                "stage": row.name,
                "units": row.tiles,
                "done": row.done,
                "set aside": aside.get(row.name, 0),
                "seconds": round(row.seconds, 1),
            }
            for row in result.stages
        ]
        if other := sum(
            count for stage, count in aside.items() if stage not in {r.name for r in result.stages}
        ):
            rows.append({"stage": "inputs", "units": other, "done": 0, "set aside": other, "seconds": 0.0})
        self._create("stages", "table", json.dumps(rows), f"{result.out}: units of work, done in this run")

    def _show_report(self, result: RunResult) -> None:
        if result.exit_code == 2 or result.stopped is not None:
            return
        place = f"{result.out}/report.html"
        if "://" not in place and not Path(place).is_file():
            return
        if place.startswith(("http://", "https://")):
            said = f"[Report of {self._name}]({place})"
        else:
            # No browser follows a link from Prefect's page to a file or a bucket: it must be read and copied.
            where = "" if "://" in place else f", on {platform.node()}"
            said = f"Report of {self._name}{where}:\n\n    {place}"
        self._create("report", "markdown", said, "The report of the release")


def _slug(text: str) -> str:
    """Return a key as Prefect wants them: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
