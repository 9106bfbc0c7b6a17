"""Long-lived Ray actors that do units of work: several a call, the least loaded actor first."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from math import ceil

from survey_ml.data.commit import quarantine, read_commit
from survey_ml.data.store import ReleaseStore
from survey_ml.engine.actor import UnitActor
from survey_ml.engine.cluster import THREADS, Cluster, EngineError
from survey_ml.engine.deaths import Coroner, Death, explain_deaths
from survey_ml.engine.hearing import Watch
from survey_ml.engine.members import Item, Member, Ticket
from survey_ml.engine.stop import AGAIN, Stop
from survey_ml.engine.work import Job, Report, Result, StageWork
from survey_ml.graph import INGEST
from survey_ml.stage import Resources

logger = logging.getLogger(__name__)

DEATHS = 3
"""Workers that one unit may take with it before it is quarantined."""
_DEPTH = 2
"""Calls an actor holds: one it works on, one that waits, so that it never idles."""
_CALL_SECONDS = 1.0
"""Work one call should hold at most: longer calls make long tails and coarse progress."""
_STARTS = 3
"""Failed starts in a row after which workers are taken not to start at all."""
_RESTARTS = 2
"""Times a lost local cluster is started again in one run."""


class ActorPool:
    """Actors of one kind of resources. `run` may be called from several threads at once.

    One thread of its own hands out the jobs, so that nobody waits for a batch to end: an actor
    that is free takes the next jobs, whosever they are.

    Parameters
    ----------
    cluster : Cluster
        Where the actors live; started.
    resources : Resources
        What one actor needs.
    size : int
        Number of actors.
    per_call : int
        Units a call at most.
    retries : int
        Of the configuration; bounds the deaths a unit may cause.
    limit : float, optional
        Seconds after which the worker of a unit is ended. Units then go out one a call, since only
        the driver can tell the time of a worker that hangs.
    recycle : int, optional
        Bytes of growth after which an actor is replaced, between calls.
    watch : Watch
        Hears of workers.
    stop : Stop, optional
        Ends the work early: units in hand are given up, and made again by the next run.
    """

    def __init__(
        self,
        cluster: Cluster,
        resources: Resources,
        size: int,
        *,
        per_call: int,
        retries: int,
        limit: float | None = None,
        recycle: int | None = None,
        watch: Watch | None = None,
        stop: Stop | None = None,
    ) -> None:
        self._watch = watch or Watch()
        self._limit, self._recycle = limit, recycle
        self._coroner = Coroner(local=cluster.owned)
        self._stop = stop or Stop()
        self.cluster, self.resources, self.size = cluster, resources, size
        self._per_call = per_call if limit is None else 1
        self._deaths = max(1, min(DEATHS, retries))
        self._members: list[Member] = []
        self._queue: deque[Item] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._failed_starts = 0
        self._restarts = 0
        self._unit_seconds = 0.0
        self._warm: set[str] = set()
        self._last_look = time.monotonic()
        self._thread = threading.Thread(target=self._serve, name="survey-ml-pool", daemon=True)
        self._fill()
        self._thread.start()

    def run(self, work: StageWork, jobs: Sequence[Job], report: Report) -> None:
        """Do the jobs and return when all are reported; see `Executor.run`."""
        if not jobs:
            return
        ticket = Ticket(len(jobs))
        with self._wake:
            if self._closed:
                raise EngineError("the workers have been let go", "run the same command again")
            self._queue.extend(Item(work, job, report, ticket) for job in jobs)
            self._wake.notify_all()
        # A bounded wait lets a keyboard interrupt through on every platform.
        while not ticket.done.wait(0.5):
            if not self._thread.is_alive():
                raise EngineError("the thread that hands out work has ended", "run the same command again")
        if ticket.error is not None:
            raise ticket.error

    def close(self) -> None:
        """End the actors; what they had not committed is done again by the next run."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join(timeout=10)
        for member in self._members:
            self._kill(member)
        self._members.clear()

    def _kill(self, member: Member) -> None:
        try:
            self.cluster.ray.kill(member.handle)
        except Exception as error:
            logger.debug("an actor could not be ended: %s", error)

    def _fill(self) -> None:
        """Start actors until there are as many as there should be."""
        actor = self.cluster.ray.remote(UnitActor).options(
            num_cpus=self.resources.cpus,
            num_gpus=self.resources.gpus,
            memory=self.resources.memory,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=1,
            runtime_env={"env_vars": THREADS},
        )
        paths = [path for path in sys.path if path] if self.cluster.owned else []
        while len(self._members) < self.size:
            member = Member(actor.remote())
            member.give(member.handle.announce.remote(paths), [])
            self._members.append(member)

    def _serve(self) -> None:
        """Hand out jobs and take in results until closed (the pool's own thread)."""
        while True:
            try:
                with self._wake:
                    if self._closed:
                        return
                    if not self._queue and not any(m.calls for m in self._members):
                        self._wake.wait()
                        continue
                    if not self._stop.requested:
                        self._hand_out()
                if self._stop.requested:
                    self._give_up()
                    continue
                self._take_in()
                self._watch_members()
                self._look_after()
                self._watch.count(sum(m.ready for m in self._members), sum(m.load for m in self._members))
            except BaseException as error:
                self._fail_all(error)
                if not isinstance(error, Exception | EngineError):
                    raise

    def _give_up(self) -> None:
        """End the workers and report what they have not committed as stopped."""
        with self._wake:
            queued, self._queue = list(self._queue), deque()
        held = [item for member in self._members for _, items in member.calls for item in items]
        for member in self._members:
            member.calls.clear()
            self._kill(member)
        self._members.clear()
        for item in [item for item in held if not self._finish_if_committed(item)] + queued:
            self._finish(item, Result(item.job.unit, "stopped", cause=self._stop.reason, hint=AGAIN))

    def _fail_all(self, error: BaseException) -> None:
        """Give up: every caller gets the error."""
        with self._wake:
            items = [*self._queue, *(i for m in self._members for _, items in m.calls for i in items)]
            self._queue.clear()
            for member in self._members:
                member.calls.clear()
                self._kill(member)
            self._members.clear()
            for item in items:
                item.ticket.error = error
                item.ticket.done.set()

    # ---- handing out

    def _hand_out(self) -> None:
        """Give the next jobs to the actor that holds the fewest, while any has room."""
        while self._queue:
            free = [m for m in self._members if m.ready and not m.retiring and len(m.calls) < _DEPTH]
            if not free:
                return
            items = self._next_items()
            if not items:
                return
            member = min(free, key=lambda m: m.load)
            call = member.handle.run_units.remote(items[0].work, [item.job for item in items])
            member.give(call, items)

    def _next_items(self) -> list[Item]:
        """Take jobs of one stage for one call off the queue; none when all must wait."""
        now = time.monotonic()
        for _ in range(len(self._queue)):
            if self._queue[0].not_before <= now:
                break
            self._queue.rotate(-1)
        first = self._queue[0]
        if first.not_before > now:
            return []
        stage = first.work.spec.name
        if stage not in self._warm and stage != INGEST:
            # The first unit of a stage goes out alone: what it compiles lands in the cache on
            # disk, and the other workers read it there instead of all compiling the same.
            if any(i.work.spec.name == stage for m in self._members for _, c in m.calls for i in c):
                return []
            return [self._queue.popleft()]
        if first.alone:
            return [self._queue.popleft()]
        share = ceil(len(self._queue) / (_DEPTH * max(1, len(self._members))))
        fit = int(_CALL_SECONDS / self._unit_seconds) if self._unit_seconds else self._per_call
        count = max(1, min(self._per_call, share, fit))
        items: list[Item] = []
        while self._queue and len(items) < count:
            item = self._queue[0]
            if item.alone or item.work is not first.work:
                break
            items.append(self._queue.popleft())
        return items

    # ---- taking in

    def _take_in(self) -> None:
        """Wait a moment for any call to end and report what it did."""
        ray = self.cluster.ray
        calls = [call for member in self._members for call, _ in member.calls]
        if not calls:
            time.sleep(0.05)
            return
        ready, _ = ray.wait(calls, num_returns=1, timeout=0.1)
        if ready:
            # More may be there by now; a look costs nothing.
            ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
        done = set(ready)
        for member in list(self._members):
            for call, items in list(member.calls):
                if call not in done or member not in self._members:
                    continue
                try:
                    answer = ray.get(call)
                except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
                    self._bury(member, self._coroner.examine(error, member.peak), error)
                    break
                except Exception as error:
                    member.settle(call, items)
                    for item in items:
                        cause = f"{type(error).__name__}: {_last_line(error)}"
                        self._finish(item, Result(item.job.unit, "failed", cause=cause))
                    continue
                member.settle(call, items)
                self._failed_starts = 0
                if not items:
                    member.ready = True
                    member.place = "{}:{}".format(*answer)
                    continue
                for item, result in zip(items, answer, strict=True):
                    self._learn(item, result)
                    member.weigh(result)
                    self._finish(item, result)
                self._retire(member, answer[-1].memory)

    def _learn(self, item: Item, result: Result) -> None:
        stage = item.work.spec.name
        if stage not in self._warm:
            self._warm.add(stage)
            self._unit_seconds = 0.0
        elif result.outcome == "done":
            last = self._unit_seconds or result.seconds
            self._unit_seconds = 0.8 * last + 0.2 * result.seconds

    def _finish(self, item: Item, result: Result) -> None:
        try:
            item.report(result)
        except BaseException as error:
            item.ticket.error = error
        item.ticket.left -= 1
        if item.ticket.left == 0:
            item.ticket.done.set()
        if result.outcome == "stopped":
            self._drop_queued(result)

    def _drop_queued(self, result: Result) -> None:
        """Begin nothing more, since the store takes no more."""
        with self._wake:
            items, self._queue = list(self._queue), deque()
        for item in items:
            self._finish(item, Result(item.job.unit, "stopped", cause=result.cause, hint=result.hint))

    # ---- deaths

    def _watch_members(self) -> None:
        """End workers whose unit takes too long, replace those that retire, note what they hold."""
        for member in list(self._members):
            if member.overran(self._limit):
                # Ending it first makes sure that its calls have an end.
                self._kill(member)
                detail = f"took longer than {self._limit:g} s"
                self._bury(member, Death("time", detail, member.peak))
            elif member.retiring and not member.calls:
                self._members.remove(member)
                self._kill(member)
                self._fill()
            elif self.cluster.owned:
                member.weigh()

    def _retire(self, member: Member, memory: int) -> None:
        """Give no more work to a worker that has grown too much."""
        grown = memory - member.settled
        if self._recycle is not None and grown > self._recycle and not member.retiring:
            member.retiring = True
            said = f"a worker has grown by {grown / 1e6:.0f} MB and is replaced"
            self._watch.note(said, event="recycle", worker=member.place)

    def _bury(self, member: Member, death: Death, error: BaseException | None = None) -> None:
        """Replace a dead actor and put what it had not committed back, one by one."""
        ray = self.cluster.ray
        self._members.remove(member)
        if not member.ready:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS and self.cluster.alive():
                raise EngineError(
                    f"workers do not start: {death.detail}",
                    "survey_ml and the stage's distribution must be installed on every node",
                ) from error
        held = [item.job.unit for _, items in member.calls for item in items]
        self._watch.lose(member.place, death.detail, held)
        spared = self._coroner.spares(death, [other.peak for other in self._members if other.load])
        blamed = False
        for call, items in member.calls:
            try:
                results = ray.get(call, timeout=5)
            except Exception:
                self._put_back(items, None if blamed else death, spared=spared)
                blamed = blamed or bool(items)
            else:
                for item, result in zip(items, results or (), strict=False):
                    self._finish(item, result)
        member.calls.clear()
        self._kill(member)
        if self.cluster.alive():
            self._fill()

    def _put_back(self, items: list[Item], death: Death | None, *, spared: bool = False) -> None:
        """Queue again what a dead worker left undone.

        The worker takes units in order and commits each before the next, so the first one without
        a commit is the one it died on; only that one counts a death. No death means a call that had
        not begun, or a cluster that was lost as a whole. One that died of another's memory counts
        no death either, for a while: a worker's memory is known a moment late.
        """
        left = []
        for item in items:
            if not self._finish_if_committed(item):
                left.append(item)
        if spared and death is not None and left and left[0].spared < self._deaths:
            left[0].spared += 1
            self._watch.note(
                "is tried again: another worker held more memory", unit=left[0].job.unit, event="spared"
            )
            death = None
        for position, item in enumerate(left):
            if death is not None:
                item.alone = True
                if position == 0:
                    item.deaths.append(death)
                    if len(item.deaths) >= self._deaths:
                        self._quarantine(item)
                        continue
                    said = f"is tried again, alone ({len(item.deaths)} of {self._deaths}): {death.detail}"
                    self._watch.note(said, level="WARNING", unit=item.job.unit, event="retry")
                item.not_before = time.monotonic() + 0.25 * 2 ** len(item.deaths)
            with self._wake:
                self._queue.append(item)

    def _finish_if_committed(self, item: Item) -> bool:
        """Report a unit whose worker is gone as done, if it had committed it."""
        found = read_commit(ReleaseStore.open(item.work.out), item.job.unit)
        if found is None or found.key != item.job.key:
            return False
        self._finish(item, Result(item.job.unit, "done", float(found.info.get("seconds", 0.0))))
        return True

    def _quarantine(self, item: Item) -> None:
        unit = item.job.unit
        cause, hint = explain_deaths(item.deaths)
        quarantine(ReleaseStore.open(item.work.out), unit, item.job.key, cause, hint, len(item.deaths))
        place = (unit.field, unit.tile, unit.stage)
        logger.warning("%s, tile %s, stage %s: %s", *place, cause, extra={"noted": True})
        self._finish(item, Result(unit, "quarantined", cause=cause, hint=hint))

    def _look_after(self) -> None:
        """Now and then see whether the cluster is still there, and start it again when not."""
        if time.monotonic() - self._last_look < 2.0:
            return
        self._last_look = time.monotonic()
        self._coroner.look()
        if self.cluster.alive():
            self._fill()
            return
        if self._restarts >= _RESTARTS:
            raise EngineError("Ray was lost again and again", "run with --engine local, or look at its logs")
        self._restarts += 1
        held = [items for member in self._members for _, items in member.calls]
        self._members.clear()
        self.cluster.restart()
        for items in held:
            self._put_back(items, None)
        self._fill()


def _last_line(error: BaseException) -> str:
    """Return what an error of Ray says at last: what precedes it is the inside of Ray."""
    return ([type(error).__name__, *str(error).strip().splitlines()])[-1].strip()
