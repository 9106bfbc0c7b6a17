"""What runs in a worker process of Ray."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from survey_ml.allowed import set_release_list
from survey_ml.engine.work import Job, Result, StageWork


class UnitActor:
    """Does units of work; stages are set up in it once and kept."""

    def __init__(self) -> None:
        from survey_ml.engine.records import install
        from survey_ml.engine.worker import Worker

        self._open = Worker
        self._workers: dict[str, Any] = {}
        # The process does nothing else, so nothing has to be undone.
        self._listening = install(owned=True)

    def start(self, paths: list[str]) -> int:
        """Answer with the process id, when the process is there.

        Parameters
        ----------
        paths : list of str
            Where the driver on this machine imports from, so that stages found there are found here.
        """
        sys.path += [path for path in paths if path not in sys.path]
        return os.getpid()

    def announce(self, paths: list[str]) -> tuple[str, int]:
        """Answer with host and process id; see `start`."""
        return platform.node(), self.start(paths)

    def run_units(self, work: StageWork, jobs: list[Job]) -> list[Result]:
        """Do some jobs; see `Worker.run_units`."""
        # What the release allows holds here too: a stage may look up others.
        set_release_list(work.allow)
        if work.out not in self._workers:
            self._workers[work.out] = self._open(work.out)
        return list(self._workers[work.out].run_units(work, jobs))
