"""The driver of a run: opens the release, goes through the stages, keeps account."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from survey_ml.config import LoadedConfig
from survey_ml.data.beginning import Beginning
from survey_ml.data.commit import (
    Unit,
    check_commit,
    clean,
    list_quarantine,
    release_quarantine,
    remove_commit,
    walk_commits,
)
from survey_ml.data.inputs import Source, find_sources
from survey_ml.data.lease import Lease, hold_lease
from survey_ml.data.release import write_scope
from survey_ml.data.stamps import hash_input
from survey_ml.data.store import ReleaseStore
from survey_ml.engine.hearing import Watch
from survey_ml.engine.ledger import Ledger
from survey_ml.engine.plan import Plan, UnitState, make_plan
from survey_ml.engine.progress import Progress
from survey_ml.engine.stop import AGAIN, Stop
from survey_ml.engine.work import RELEASE, Executor, Job, Result, StageWork
from survey_ml.errors import InputError, SetAside, StoppedError, StoreError, SurveyMLError
from survey_ml.graph import INGEST, Graph
from survey_ml.products import Kind
from survey_ml.stage import Resources, StageSpec

if TYPE_CHECKING:
    from survey_ml.engine.run import RunResult
    from survey_ml.plugins import Registry

logger = logging.getLogger(__name__)

_PASSES = 3
"""Rounds through the stages: damage found while reading is repaired in the next one."""
_NAMED = 3
"""Tiles named in the log for one reason; the result names them all."""


class Driver:
    """One run of one release.

    Parameters
    ----------
    config : LoadedConfig
        The release.
    graph : Graph
        Its stages.
    registry : Registry
        For the readers of input formats.
    stages : set of str or None
        Do only these.
    progress : Progress
        Is told about every unit.
    """

    store: ReleaseStore

    def __init__(
        self,
        config: LoadedConfig,
        graph: Graph,
        registry: Registry,
        *,
        stages: set[str] | None,
        progress: Progress,
    ) -> None:
        self.config, self.graph, self.progress = config, graph, progress
        self.watch = Watch()
        self.specs: list[StageSpec] = [s for s in graph.order if stages is None or s.name in stages]
        self._registry = registry
        self._readers = registry.readers()
        self.sources: list[Source] = []
        self.ledger = Ledger()
        self._aside: list[SetAside] = []
        self._found = self._is_new = False
        self._failed: dict[Unit, tuple[str, str]] = {}
        self._culprits: dict[Unit, str] = {}
        self._changed: dict[str, SetAside] = {}
        """Fields whose input was changed while it was read."""
        self._deferred: dict[Unit, tuple[str, str]] = {}
        """Units that met damage in this round: what needs them waits for the next one."""
        self._counts: Counter[str] = Counter()
        self._before: dict[Unit, str] = {}
        self._spent: dict[str, float] = {}
        self._made: Counter[str] = Counter()
        self._warned: Counter[tuple[str, str]] = Counter()
        self._stopped: SurveyMLError | None = None
        self._asked: Counter[str] = Counter()
        self._heard: Counter[str] = Counter()
        self.stop = Stop()
        """Asks the run to end early."""
        self._hashes: dict[str, str] = {}
        self._lock = threading.Lock()
        self._rank = 0
        self.lease: Lease | None = None

    # ---- opening

    def look(self) -> None:
        """Read headers and commits without writing anything, for a plan."""
        self.sources, self._aside = find_sources(self.config, self._readers)
        self.store = ReleaseStore.open(self.config.out)
        try:
            self.store.describe()
        except StoreError:
            self.ledger = Ledger()
        else:
            self.ledger = Ledger.read(self.store)
            # Files that were never ingested need no checksum to be known as new.
            held = {unit.field for unit in self.ledger.commits}
            new = [source for source in self.sources if source.field.name not in held]
            self.sources = [source for source in self.sources if source.field.name in held]
            self._hash_all()
            self.sources = sorted([*self.sources, *new], key=lambda source: source.field.name)

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Keep other runs off the release, from before anything is written until the end.

        A run that comes to no work leaves nothing behind that was not there before.

        Raises
        ------
        LeaseError
            When another run is at work on it.
        StoreError
            When it cannot be written.
        """
        medium = ReleaseStore.open(self.config.out).medium
        try:
            medium.prepare()
            beginning = Beginning(medium)
            with hold_lease(medium, self.config.release.engine.lease_seconds) as self.lease:
                self._is_new = beginning.is_new
                try:
                    yield
                except StoreError:
                    # It does not answer, is full, or is another's by now: nothing more is touched.
                    raise
                except SurveyMLError:
                    beginning.withdraw()
                    raise
            self.lease = None
        finally:
            medium.retract()

    def finds_nothing(self) -> bool:
        """Look for the images of a release that is new; without any it need not be begun."""
        if self._is_new:
            self._find()
        return self._is_new and not self.sources

    def refuse(self) -> RunResult:
        """Say why a release without images was not begun."""
        from survey_ml.engine.run import RunResult, StageRow

        stages = [StageRow(spec.name, 0, 0, 0.0) for spec in self.specs]
        return RunResult(self.config.out, set_aside=list(self._aside), exit_code=2, stages=stages)

    def _find(self) -> None:
        self.sources, self._aside = find_sources(self.config, self._readers)
        self._found = True

    def check_lease(self) -> None:
        """Raise `LeaseError` when another run has taken over: this one writes no more."""
        if self.lease is not None:
            self.lease.check()

    def open(self, *, retry_quarantined: bool = False) -> None:
        """Create the release or go on with it, and read its commits.

        Raises
        ------
        StoreError
            When it cannot be written.
        """
        if not self._found:
            self._find()
        self.store = ReleaseStore.create(self.config.out, self.config)
        clean(self.store)
        if retry_quarantined:
            release_quarantine(self.store, list(list_quarantine(self.store)))
        good = []
        for source in self.sources:
            try:
                self.store.register(source.field, source, self.config.release.tiling.core_px)
                good.append(source)
            except SurveyMLError as error:
                if isinstance(error, StoreError):
                    raise
                self._aside.append(SetAside.from_error(error, field=source.field.name))
        self.sources = good
        self.ledger = Ledger.read(self.store)
        self._hash_all()

    def _hash_all(self) -> None:
        """Take the checksums of the inputs; a file that cannot be read is one field set aside."""
        good = []
        for source in self.sources:
            try:
                self._hashes[source.field.name] = hash_input(source, self.store)
                good.append(source)
            except InputError as error:
                self._aside.append(SetAside.from_error(error, field=source.field.name))
        self.sources = good

    # ---- planning

    def plan(self) -> Plan:
        """Return how every unit stands now."""
        tiling, seed = self.config.release.tiling, self.config.release.seed
        return make_plan(
            self.graph,
            self.sources,
            self.ledger,
            tiling,
            seed=seed,
            hash_of=lambda source: self._hashes.get(source.field.name, ""),
            set_aside=self._aside,
            failed={**self._failed, **self._deferred},
            stages={spec.name for spec in self.specs},
        )

    @staticmethod
    def has_work(plan: Plan) -> bool:
        """Tell whether there is anything to do."""
        return bool(plan.counts["todo"] or plan.counts["stale"])

    def unfinished(self) -> list[StageSpec]:
        """Return the stages that have units to do or waiting to be done."""
        open_states = ("todo", "stale", "waiting")
        names = {
            name for name, units in self.plan().by_stage().items() for u in units if u.state in open_states
        }
        return [spec for spec in self.specs if spec.name in names]

    def remaining(self) -> list[Resources]:
        """Return what the stages still to come need."""
        return [spec.resources for spec in self.specs[self._rank :]]

    # ---- working

    def process(self, executor: Executor) -> None:
        """Go through the stages, again while damage was found, until all is done that can be."""
        for _ in range(_PASSES):
            self._culprits.clear()
            self._deferred.clear()
            for rank, spec in enumerate(self.specs):
                self._rank = rank
                if self.stop.requested:
                    self._stopped = StoppedError(self.stop.reason, AGAIN)
                    return
                plan = self.plan()
                self._note(plan)
                jobs = plan.jobs(spec.name)
                if jobs:
                    self._process_stage(executor, spec, jobs)
                    self._leave_changed()
                if self._stopped is not None:
                    return
            if not self._culprits:
                return
            self._repair()

    def _note(self, plan: Plan) -> None:
        """Remember how units stood when they were first seen, for the account at the end."""
        for unit in plan:
            if unit.unit in self._before:
                continue
            self._before[unit.unit] = "redo" if unit.reason and unit.state == "todo" else unit.state
            if unit.state == "todo" and unit.reason:
                logger.warning(
                    "%s is %s; it is made again",
                    _place(unit.unit),
                    unit.reason,
                    extra={"unit": unit.unit},
                )

    def _leave_changed(self) -> None:
        """Go on without the fields whose input was changed while it was read.

        What was committed of the file as it was stays: should it come back, it is right.
        """
        self.sources = [source for source in self.sources if source.field.name not in self._changed]
        self._aside.extend(self._changed.values())
        self._changed.clear()

    def work(self, spec: StageSpec) -> StageWork:
        """Return all that a worker must know of a stage of this run."""
        release = self.config.release
        return StageWork(
            out=self.config.out,
            spec=spec,
            options=self.graph.options[spec.name].model_dump() if spec.name in self.graph.options else {},
            reads={p: (w, self.graph.spec(w).scope) for p, w in self.graph.reads(spec.name).items()},
            core=release.tiling.core_px,
            halo=release.tiling.halo_px,
            seed=release.seed,
            retries=release.engine.retries,
            provider=self._provider(spec),
            allow=release.plugins.allow,
            limit=release.engine.unit_seconds,
            lease="" if self.lease is None else self.lease.run,
            lease_seconds=release.engine.lease_seconds,
        )

    def _process_stage(self, executor: Executor, spec: StageSpec, jobs: list[Job]) -> None:
        self.check_lease()
        start = time.monotonic()
        self._redeclare(spec, {job.unit.field for job in jobs})
        work = self.work(spec)
        self.progress.begin(spec.name, len(jobs))
        self.watch.begin(spec.name, len(jobs))
        self._asked[spec.name] += len(jobs)
        try:
            executor.prepare(work, len(jobs))
            executor.run(work, jobs, self._take)
        finally:
            self.progress.end(spec.name)
            self.watch.end(spec.name)
            self._spent[spec.name] = self._spent.get(spec.name, 0.0) + time.monotonic() - start
            self.ledger = self.ledger.reread(spec.name)

    def _provider(self, spec: StageSpec) -> tuple[str, str, str] | tuple[()]:
        """Name the plugin of a stage, for workers that must not run it."""
        try:
            origin = self._registry.origin_of(spec)
        except KeyError:  # a registry made by hand
            return ()
        return () if origin.builtin else (origin.distribution, origin.version, origin.plugin)

    def _redeclare(self, spec: StageSpec, fields: Iterable[str]) -> None:
        """Give arrays that exist their present layout before several workers write to them."""
        arrays = [product for product in spec.writes if product.kind is Kind.ARRAY]
        for name in sorted(fields) if arrays else ():
            present = set(self.store.products(name))
            for product in arrays:
                if product.name in present:
                    self.store.declare(name, product)

    def _take(self, result: Result) -> None:
        """Account for one unit; called from the threads of the executor."""
        with self._lock:
            unit = result.unit
            self.progress.advance(unit.stage, result.outcome)
            self.watch.take(result)
            self._heard[unit.stage] += result.outcome != "stopped"
            if result.outcome in ("done", "skipped"):
                self._made[unit.stage] += 1
                again = self._before.get(unit) in ("stale", "redo")
                self._counts["done"] += 1
                self._counts["redone"] += again
            elif result.outcome == "failed":
                self._failed[unit] = (result.cause, result.hint)
                self._warn(unit, result.cause)
                if result.whole:
                    self._changed[unit.field] = SetAside(
                        unit.field, result.cause, result.hint, stage=unit.stage
                    )
            elif result.outcome == "damaged":
                assert result.culprit is not None
                self._culprits[result.culprit] = result.cause
                self._deferred[unit] = (result.cause, result.hint)
            elif result.outcome == "stopped" and self.stop.requested:
                self._stopped = self._stopped or StoppedError(self.stop.reason, AGAIN)
            elif result.outcome == "stopped" and self._stopped is None:
                self._stopped = StoreError(
                    result.cause, result.hint, field=unit.field, tile=unit.tile, stage=unit.stage
                )

    def standing(self) -> dict[str, tuple[int, int]]:
        """Return units accounted for and units asked for in this run, by stage; from any thread."""
        with self._lock:
            return {stage: (self._heard[stage], total) for stage, total in self._asked.items()}

    def _warn(self, unit: Unit, cause: str) -> None:
        """Name a unit that is set aside; of many with one cause only the first few."""
        self._warned[unit.stage, cause] += 1
        count = self._warned[unit.stage, cause]
        if count <= _NAMED:
            logger.warning("%s: set aside: %s", _place(unit), cause, extra={"noted": True})
        elif count == _NAMED + 1:
            said = "stage %s: more tiles are set aside for this reason"
            logger.warning(said, unit.stage, extra={"noted": True})

    def find_damage(self) -> int:
        """Compare all that is stored with its checksums; what differs is made again by `process`.

        Returns
        -------
        int
            Units found damaged.
        """
        self._culprits.clear()
        for commit in walk_commits(self.store):
            if wrong := check_commit(self.store, commit, deep=True):
                self._culprits[commit.unit] = wrong
        found = len(self._culprits)
        self._repair()
        self._culprits.clear()
        return found

    def _repair(self) -> None:
        """Take away the commits of damaged units, so that the next round makes them again."""
        known = {spec.name for spec in self.specs}
        for unit, cause in sorted(self._culprits.items()):
            if unit.stage in known:
                said = "%s is damaged (%s); it is made again"
                logger.warning(said, _place(unit), cause, extra={"unit": unit})
            self._before[unit] = "redo"
            remove_commit(self.store, unit)
        self.ledger = Ledger.read(self.store)

    # ---- concluding

    def conclude(self) -> RunResult:
        """Take stale commits away and sum up.

        After a run the release holds what the configuration says and nothing older: a part made
        with other options must not get into the catalogue beside new ones.
        """
        from survey_ml.engine.run import RunResult, StageRow

        self.check_lease()
        plan = self.plan()
        self._note(plan)
        if self._stopped is None:
            stale: Counter[str] = Counter()
            for state in plan:
                commit = self.ledger.commits.get(state.unit)
                if commit is not None and commit.key != state.key:
                    remove_commit(self.store, state.unit)
                    del self.ledger.commits[state.unit]
                    stale[state.unit.stage] += 1
            for stage, count in stale.items():
                said = "%d results of stage %s are taken away: they were made with other settings or inputs"
                logger.warning(said, count, stage)
            bad = {entry.field for entry in plan.set_aside}
            names = [source.field.name for source in self.sources if source.field.name not in bad]
            write_scope(self.store, names, [spec.name for spec in self.graph.order])
        result = RunResult(self.config.out, done=self._counts["done"], redone=self._counts["redone"])
        good = [state for state in plan if state.state == "done"]
        if self._stopped is not None:
            # Some of what was in hand was committed, and nobody heard of it.
            made = sum(self._before.get(state.unit) != "done" for state in good)
            result.done = max(result.done, made)
        result.skipped = max(0, len(good) - result.done)
        result.set_aside = self._list_aside(plan)
        result.stopped = self._stopped
        by_stage = plan.by_stage()
        result.stages = [
            StageRow(s.name, len(by_stage.get(s.name, [])), self._made[s.name], self._spent.get(s.name, 0.0))
            for s in self.specs
        ]
        wanted = [s for s in good if s.unit.stage != INGEST or len(self.specs) == 1]
        result.exit_code = 0 if not result.set_aside and self._stopped is None else 1
        result.cancelled = isinstance(self._stopped, StoppedError)
        if not wanted and not result.cancelled:
            result.exit_code = 2
        return result

    def _list_aside(self, plan: Plan) -> list[SetAside]:
        """Name what was left out: one entry a field where all its tiles share the reason."""
        aside = list(plan.set_aside)
        bad_fields = {entry.field for entry in aside}
        groups: dict[tuple[str, str, str, str], list[UnitState]] = {}
        totals: Counter[tuple[str, str]] = Counter()
        for state in plan:
            totals[state.unit.field, state.unit.stage] += 1
            if state.state in ("aside", "quarantined", "waiting") and state.unit.field not in bad_fields:
                reason = "waiting" if state.state == "waiting" else state.reason
                key = (state.unit.field, state.unit.stage, reason, state.hint)
                groups.setdefault(key, []).append(state)
        for (name, stage, _, hint), states in groups.items():
            where = "" if name == RELEASE else name
            if len(states) > 1 and len(states) == totals[name, stage]:
                aside.append(SetAside(where, states[0].reason, hint, "", stage))
            else:
                aside += [SetAside(where, s.reason, hint, s.unit.tile, stage) for s in states]
        if self._stopped is not None and not isinstance(self._stopped, StoppedError):
            error = self._stopped
            aside.append(SetAside(error.field, error.message, error.hint, error.tile, error.stage))
        return aside


def _place(unit: Unit) -> str:
    return f"field {unit.field}, tile {unit.tile}, stage {unit.stage}"
