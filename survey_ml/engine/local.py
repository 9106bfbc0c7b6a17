"""Do the work in this one process: no Prefect, no Ray, the same results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from survey_ml.engine.failures import describe
from survey_ml.engine.records import install
from survey_ml.engine.stop import AGAIN, Stop
from survey_ml.engine.work import Job, Report, Result, StageWork
from survey_ml.engine.worker import Worker


class LocalExecutor:
    """One worker, in this process."""

    name = "local"

    def __init__(self, stop: Stop | None = None) -> None:
        self._worker: Worker | None = None
        self._listening = ExitStack()
        self._stop = stop or Stop()

    def prepare(self, work: StageWork, count: int) -> None:
        """Open the release."""
        if self._worker is None:
            self._worker = Worker(work.out)
            self._listening = install()

    def run(self, work: StageWork, jobs: Sequence[Job], report: Report) -> None:
        """Do the jobs one after the other; an interrupt leaves what is committed."""
        assert self._worker is not None
        for job in jobs:
            if self._stop.requested:
                report(Result(job.unit, "stopped", cause=self._stop.reason, hint=AGAIN))
                return
            try:
                (result,) = self._worker.run_units(work, [job])
            except (SystemExit, GeneratorExit) as error:
                # A stage that ends its process: on Ray it takes a worker along, here it would take the run.
                cause, hint = describe(error, work.spec)
                logs = self._worker.last_records
                result = Result(
                    job.unit, "failed", cause=cause, hint=hint, logs=logs, worker=self._worker.place
                )
            report(result)
            if result.outcome == "stopped":
                return

    def close(self) -> None:
        """Let go of the worker and what its stages loaded."""
        self._worker = None
        self._listening.close()
