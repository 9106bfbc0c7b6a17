"""Watch a folder or bucket: process images as they arrive, once each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from survey_ml.config import LoadedConfig
from survey_ml.data.arrivals import Arrival, Manifest, find_arrivals, is_complete
from survey_ml.data.store import ReleaseStore
from survey_ml.engine.run import RunResult, run_release
from survey_ml.errors import SetAside, StoreError
from survey_ml.plugins import Registry, get_manager

logger = logging.getLogger(__name__)

SETTLE = 2.0
"""Seconds between the two looks of ``--once``, at most."""
FOREVER = 1 << 62


class Watch:
    """Looks for images, and runs the release when some are new and whole.

    An image is whole when its size and time (on an object store: its ETag) are those of the look
    before, and its length is what its headers announce.

    Parameters
    ----------
    config : LoadedConfig
        The release; its `fields` say where images arrive.
    registry : Registry, optional
        Where stages come from; all that is installed unless given.
    """

    def __init__(self, config: LoadedConfig, registry: Registry | None = None, **options: Any) -> None:
        self._config, self._options = config, options
        self._registry = registry or get_manager()
        self._medium = ReleaseStore.open(config.out).medium
        self._medium.prepare()
        self._before: dict[str, Arrival] = {}
        self._told: set[str] = set()
        self.waiting: list[str] = []
        """What the last look found to be unfinished."""
        self.aside: list[SetAside] = []
        """What the last look found that can be no image."""

    def look(self) -> RunResult | None:
        """Look once, and run the release if there is something new; None when there is nothing.

        Raises
        ------
        SurveyMLError
            As `run_release` does.
        """
        manifest = Manifest(self._medium)
        found, self.aside = find_arrivals(self._config, self._registry.readers())
        for item in self.aside:
            self._tell(f"set aside: field {item.field}: {item.cause}; {item.hint}")
        known = {path for path, arrival in found.items() if manifest.knows(arrival)}
        # Taken before as a copy of one that has gone: now it is the one.
        known -= {path for path in known if (twin := manifest.same_as(path)) and twin not in found}
        whole = {path for path in found.keys() - known if self._is_whole(found[path])}
        self._before = found
        self.waiting = sorted(found.keys() - known - whole)
        # An image that is being replaced is part of the release: it must not fall out meanwhile.
        if not whole or any(path in manifest.entries for path in self.waiting):
            return None
        for path in sorted(whole):
            twin = manifest.note(found[path], list(found))
            if twin:
                self._tell(f"{path} has the same content as {twin}; it is not processed twice")
        gone = manifest.entries.keys() - found.keys()
        for path in gone:
            del manifest.entries[path]
        taken = [found[path].entry for path in sorted(known | whole) if not manifest.same_as(path)]
        release = self._config.release.model_copy(update={"fields": tuple(taken)})
        config = self._config.model_copy(update={"release": release})
        result = run_release(config, registry=self._registry, **self._options)
        if result.stopped is None:
            manifest.save()
        return result

    def _is_whole(self, arrival: Arrival) -> bool:
        path = arrival.candidate.path
        before = self._before.get(path)
        if before is None or before.stamp != arrival.stamp:
            return False
        if is_complete(path):
            return True
        self._tell(f"{path} is shorter than its header says, or not begun; waiting for the rest")
        return False

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            logger.warning("%s", text)


def watch_release(
    watch: Watch,
    tell: Callable[[RunResult], None],
    *,
    every: float,
    once: bool = False,
    rounds: int = FOREVER,
) -> None:
    """Look again and again.

    Parameters
    ----------
    watch : Watch
        What looks.
    tell : callable
        Is given what each run did.
    every : float
        Seconds between two looks.
    once : bool
        Two looks a moment apart, then end.
    rounds : int
        Looks at most.

    Raises
    ------
    SurveyMLError
        As `run_release` does; but while another run is at work, or the store does not answer, the
        next look tries again, unless this is the only one.
    """
    for number in range(2 if once else rounds):
        if number:
            time.sleep(min(every, SETTLE) if once else every)
        try:
            result = watch.look()
        except StoreError as error:
            if once:
                raise
            logger.warning("%s; the next look tries again", error.message)
            continue
        if result is not None:
            tell(result)
            if result.cancelled:
                # Whoever ended the run does not want it begun again by the next look.
                return
