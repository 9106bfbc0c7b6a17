"""The Prefect flow of a run: tasks that are batches of units, and going on when Prefect is lost."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Any

from survey_ml.engine.executor import RayExecutor
from survey_ml.engine.link import RunLink
from survey_ml.engine.server import PrefectServer, prefect_environment
from survey_ml.engine.stop import ending_on_signal
from survey_ml.engine.work import Job, Report, Result, StageWork

logger = logging.getLogger(__name__)

MAX_TASKS = 200
"""Prefect tasks a flow: thousands in one flow leave a backlog of events that breaks the next one."""
AT_ONCE = 3
"""Tasks in hand: one that ends, one that is worked on, one whose jobs are queued behind it."""


@dataclass
class _Batch:
    """Jobs of one Prefect task."""

    number: int
    jobs: Sequence[Job]
    started: bool = False
    done: bool = False
    error: BaseException | None = None


class PrefectExecutor:
    """Does stages on Ray, each batch of units a task of the running Prefect flow.

    What a batch did is committed and reported here before Prefect hears of it; Prefect's own
    record decides nothing.

    Parameters
    ----------
    inner : RayExecutor
        Does the work.
    server : PrefectServer
        Answers.
    stages : int
        Stages of the flow, which share its `MAX_TASKS`.
    batch_seconds : float
        Work that one task should hold.
    """

    name = "ray"

    def __init__(
        self, inner: RayExecutor, server: PrefectServer, *, stages: int, batch_seconds: float
    ) -> None:
        self._inner, self._server = inner, server
        self._limit = max(2, MAX_TASKS // max(1, stages))
        self._batch_seconds = batch_seconds
        self.lost = False
        """The API has gone, and the run goes on without it."""

    def prepare(self, work: StageWork, count: int) -> None:
        """See `RayExecutor.prepare`."""
        self._inner.prepare(work, count)

    def run(self, work: StageWork, jobs: Sequence[Job], report: Report) -> None:
        """Do the jobs of a stage; a first small batch measures how large the others should be."""
        workers = max(1, self._inner.size)
        probe = min(len(jobs), 2 * workers)
        seconds: list[float] = []

        def measure(result: Result) -> None:
            seconds.append(result.seconds)
            report(result)

        self._run_batches(work, [_Batch(0, jobs[:probe])], measure)
        rest = jobs[probe:]
        if not rest:
            return
        # The time of units, not of the batch: workers may have started in it, and the first unit
        # may have compiled code.
        rate = workers / max(median(seconds), 1e-3)
        size = max(1, ceil(rate * self._batch_seconds), ceil(len(rest) / (self._limit - 1)))
        batches = [
            _Batch(number, rest[at : at + size])
            for number, at in enumerate(range(0, len(rest), size), start=1)
        ]
        self._run_batches(work, batches, report)

    def _run_batches(self, work: StageWork, batches: list[_Batch], report: Report) -> None:
        if not self.lost and self._server.lost():
            self.lose("it does not answer")
        if not self.lost:
            self._submit(work, batches, report)
        for batch in batches:
            if batch.error is not None:
                raise batch.error
            if not batch.started:
                self.lose("it did not start a task")
                self._inner.run(work, batch.jobs, report)

    def _submit(self, work: StageWork, batches: list[_Batch], report: Report) -> None:
        """Run batches as tasks; a batch that Prefect does not start stays for the caller."""
        from prefect import task
        from prefect.cache_policies import NO_CACHE
        from prefect.states import Cancelled, Completed, Failed

        by_number = {batch.number: batch for batch in batches}

        def run_batch(stage: str, batch: int, units: int) -> Any:
            mine = by_number[batch]
            mine.started = True
            counts: dict[str, int] = {}

            def count(result: Any) -> None:
                counts[result.outcome] = counts.get(result.outcome, 0) + 1
                report(result)

            try:
                self._inner.run(work, mine.jobs, count)
            except BaseException as error:
                mine.error = error
                return Failed(message=f"{type(error).__name__}: {error}")
            mine.done = True
            if counts.get("stopped"):
                # Dozens of tasks end so; each would be an error in the log of a run that obeyed.
                logging.getLogger("prefect.task_runs").setLevel(logging.CRITICAL)
                return Cancelled(message="the run was ended early")
            return Completed(message=", ".join(f"{n} {what}" for what, n in sorted(counts.items())))

        run_task = task(
            run_batch,
            name=work.spec.name,
            task_run_name="{stage} {batch}",
            retries=0,
            persist_result=False,
            cache_policy=NO_CACHE,
            log_prints=False,
        )
        try:
            futures = [run_task.submit(work.spec.name, b.number, len(b.jobs)) for b in batches]
        except Exception as error:
            self.lose(f"{type(error).__name__}: {error}")
            futures = []
        for future in futures:
            with contextlib.suppress(Exception):
                future.wait()
        # A task that began is finished here, whatever Prefect made of it.
        for batch in batches:
            while batch.started and not batch.done and batch.error is None:
                time.sleep(0.05)

    def lose(self, why: str) -> None:
        """Go on without Prefect: say so once, and drop what was to be told to it."""
        if not self.lost:
            self.lost = True
            logger.warning("the Prefect API is lost (%s); the run goes on without it", why)
            # What it has to say of it, it says with tracebacks.
            logging.getLogger("prefect").setLevel(logging.CRITICAL + 1)
            drop_events()

    def close(self) -> None:
        """Free the actors."""
        self._inner.close()


def run_flow(
    name: str,
    out: str,
    body: Callable[[], None],
    executor: PrefectExecutor,
    server: PrefectServer,
    link: RunLink | None = None,
) -> None:
    """Run ``body`` as the Prefect flow ``process-release``; without Prefect if it cannot start.

    Parameters
    ----------
    name : str
        Of the release: the name of the flow run.
    out : str
        Where it goes, shown as a parameter.
    body : callable
        Does all the work with ``executor``. Its errors are raised here; Prefect's are not.
    link : RunLink, optional
        Hears that the flow run is cancelled, and shows progress in it; one that is joined to a flow
        run already makes the work a part of that.
    """
    link = link or RunLink()
    if link.joined:
        with prefect_environment(server.url, server.secret), server.watched(lambda: executor.lost):
            body()
        return
    begun = threading.Event()
    ended = threading.Event()
    errors: list[BaseException] = []

    def process_release(release: str, out: str) -> Any:
        from prefect.context import FlowRunContext
        from prefect.states import Cancelled, Completed, Failed

        begun.set()
        context = FlowRunContext.get()
        run = context.flow_run if context else None
        try:
            # Nobody else knows of an API that ends with this run.
            with contextlib.ExitStack() as stack:
                # Prefect has put its own in place of the run's.
                stack.enter_context(ending_on_signal(link.stop))
                if run is not None and not server.owned:
                    stack.enter_context(link.working(server.url, str(run.id), name))
                body()
        except BaseException as error:
            errors.append(error)
            if not isinstance(error, Exception):
                raise
            return Failed(message=f"{type(error).__name__}: {error}")
        finally:
            ended.set()
        if link.stop.requested:
            return Cancelled(message=link.stop.reason)
        return Completed(message="done")

    try:
        with prefect_environment(server.url, server.secret), server.watched(lambda: executor.lost):
            _call_flow(process_release, name, out, server)
    except Exception as error:
        if not errors:
            executor.lose(f"{type(error).__name__}: {error}")
    if errors:
        raise errors[0]
    if not begun.is_set():
        body()
    elif not ended.is_set():
        raise RuntimeError("the flow was left before its work was done")
    if not executor.lost:
        flush_events()


def _call_flow(function: Callable[[str, str], Any], name: str, out: str, server: PrefectServer) -> None:
    from prefect import flow
    from prefect.events.worker import EventsWorker
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_LOGGING_TO_API_ENABLED,
        temporary_settings,
    )
    from prefect.task_runners import ThreadPoolTaskRunner

    EventsWorker.set_client_override(None)
    logging.getLogger("prefect").setLevel(logging.WARNING)
    # The environment rules only where Prefect was not imported before; this rules always.
    settings: dict[Any, Any] = {PREFECT_API_URL: server.url, PREFECT_LOGGING_TO_API_ENABLED: False}
    if server.secret:
        settings[PREFECT_API_AUTH_STRING] = server.secret
    with temporary_settings(settings):
        process = flow(
            function,
            name="process-release",
            flow_run_name=name,
            task_runner=ThreadPoolTaskRunner(max_workers=AT_ONCE),
            retries=0,
            persist_result=False,
            validate_parameters=False,
            log_prints=False,
        )
        process(name, out, return_state=True)


def flush_events(seconds: float = 10.0) -> None:
    """Send what Prefect has yet to hear, while its API is still there."""
    from prefect.events.worker import EventsWorker

    with contextlib.suppress(Exception):
        EventsWorker.drain_all(timeout=seconds, at_exit=False)


def drop_events() -> None:
    """Forget what was to be told to a Prefect that is gone: each event would wait seconds at exit."""
    try:
        from prefect.events.clients import NullEventsClient
        from prefect.events.worker import EventsWorker

        EventsWorker.set_client_override(NullEventsClient)
        for worker in list(EventsWorker._instances.values()):
            with worker._queue.mutex:
                worker._queue.queue.clear()
    except Exception as error:
        logger.debug("events of Prefect could not be dropped: %s", error)
