"""Run a release: plan, do what is to be done, put the catalogue together."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from survey_ml.allowed import allowing
from survey_ml.config import LoadedConfig
from survey_ml.engine.cluster import limit_threads
from survey_ml.engine.limit import worker_limit
from survey_ml.errors import ConfigError, DamagedError, SetAside, SurveyMLError
from survey_ml.graph import Graph, build_graph
from survey_ml.plugins import Registry, get_manager

if TYPE_CHECKING:
    from survey_ml.engine.driver import Driver
    from survey_ml.engine.link import RunLink
    from survey_ml.engine.plan import Plan
    from survey_ml.engine.progress import Progress
    from survey_ml.engine.work import Executor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageRow:
    """One line of the table at the end of a run."""

    name: str
    tiles: int
    done: int
    seconds: float


@dataclass
class RunResult:
    """What a run did.

    Attributes
    ----------
    done, redone, skipped : int
        Units done now, those of them that had been done before (stale or damaged), and units found
        done.
    set_aside : list of SetAside
        Fields and tiles that were left out, with the reason.
    exit_code : int
        0 all well, 1 some set aside, 2 nothing done.
    stages : list of StageRow
        Units in the release, units done now and wall seconds spent now, by stage.
    stopped : SurveyMLError or None
        Why the run ended early; the same command goes on from there.
    cancelled : bool
        It ended early because it was asked to.
    """

    out: str
    done: int = 0
    redone: int = 0
    skipped: int = 0
    set_aside: list[SetAside] = field(default_factory=list)
    seconds: float = 0.0
    exit_code: int = 0
    stages: list[StageRow] = field(default_factory=list)
    stopped: SurveyMLError | None = None
    cancelled: bool = False

    @property
    def state(self) -> str:
        """How it ended in a word or two: ``completed``, ``set aside``, ``failed`` or ``cancelled``."""
        if self.cancelled:
            return "cancelled"
        if self.stopped is not None or self.exit_code == 2:
            return "failed"
        return "set aside" if self.exit_code else "completed"


def run_release(
    config: LoadedConfig,
    *,
    only: str | None = None,
    progress: Progress | None = None,
    retry_quarantined: bool = False,
    registry: Registry | None = None,
    assemble: bool = True,
    link: RunLink | None = None,
) -> RunResult:
    """Bring a release up to date: do what is new or stale, nothing twice.

    Parameters
    ----------
    config : LoadedConfig
        The release.
    only : str, optional
        Do only this stage and what it needs.
    progress : Progress, optional
        Is told about every unit; bars at a terminal unless given.
    retry_quarantined : bool
        Try units again that killed their workers.
    registry : Registry, optional
        Where stages come from; all that is installed unless given.
    assemble : bool
        Put catalogue, report and provenance together at the end.
    link : RunLink, optional
        The flow run that this run is part of; with a Prefect API and the ray engine one is made
        unless given.

    Returns
    -------
    RunResult
        Counts, times and what was set aside.

    Raises
    ------
    ConfigError, GraphError, PluginError
        Before any work, when the configuration cannot be run.
    StoreError
        When the output cannot be written at all, or another run is at work on it.
    EngineError
        When Ray cannot be started or is lost for good.
    """
    with allowing(config.release.plugins.allow):
        return _run(config, only, progress, retry_quarantined, registry, assemble, link)


def _run(
    config: LoadedConfig,
    only: str | None,
    progress: Progress | None,
    retry_quarantined: bool,
    registry: Registry | None,
    assemble: bool,
    link: RunLink | None,
) -> RunResult:
    limit_threads()
    from survey_ml.engine.driver import Driver
    from survey_ml.engine.link import RunLink
    from survey_ml.engine.observe import watch_run
    from survey_ml.engine.progress import choose_progress
    from survey_ml.engine.stop import ending_on_signal
    from survey_ml.export.bundle import check_export

    start = time.monotonic()
    registry = registry or get_manager()
    graph = build_graph(config, registry)
    stages = _pick_stages(graph, only)
    if assemble:
        check_export(config, graph)
    driver = Driver(config, graph, registry, stages=stages, progress=progress or choose_progress())
    link = link or RunLink()
    driver.stop = link.stop
    link.watch_progress(driver.standing)
    with contextlib.ExitStack() as stack:
        stack.enter_context(driver.claim())
        stack.enter_context(ending_on_signal(driver.stop))
        if driver.finds_nothing():
            result = driver.refuse()
            result.seconds = time.monotonic() - start
            link.conclude(result)
            return result
        driver.watch = stack.enter_context(watch_run(config, driver.stop))
        driver.open(retry_quarantined=retry_quarantined)
        result = _bring_up_to_date(config, driver, link)
        if assemble and result.stopped is None:
            try:
                _assemble(config, driver, result)
            except DamagedError as error:
                if not driver.find_damage():
                    raise
                logger.warning("%s; looking through all that is stored", error)
                result = _bring_up_to_date(config, driver, link)
                if result.stopped is None:
                    _assemble(config, driver, result)
        result.seconds = time.monotonic() - start
        driver.watch.conclude(result)
    link.conclude(result)
    return result


def _bring_up_to_date(config: LoadedConfig, driver: Driver, link: RunLink) -> RunResult:
    """Do what there is to do and sum up."""
    if driver.has_work(driver.plan()):
        with _showing(driver.progress):
            _work(config, driver, link)
    return driver.conclude()


def plan_release(config: LoadedConfig, *, only: str | None = None, registry: Registry | None = None) -> Plan:
    """Say what a run would do, without doing or writing anything."""
    from survey_ml.engine.driver import Driver
    from survey_ml.engine.progress import QuietProgress

    with allowing(config.release.plugins.allow):
        registry = registry or get_manager()
    graph = build_graph(config, registry)
    driver = Driver(config, graph, registry, stages=_pick_stages(graph, only), progress=QuietProgress())
    driver.look()
    return driver.plan()


def _pick_stages(graph: Graph, only: str | None) -> set[str] | None:
    if only is None:
        return None
    names = [spec.name for spec in graph.order]
    if only not in names:
        raise ConfigError(f"--only {only}: this release has no such stage", f"its stages: {', '.join(names)}")
    return {only} | graph.needs(only)


@contextlib.contextmanager
def _showing(progress: Progress) -> Iterator[None]:
    """Keep bars on the screen while the work lasts, if the progress has any."""
    if isinstance(progress, contextlib.AbstractContextManager):
        with progress:
            yield
    else:
        yield


def _work(config: LoadedConfig, driver: Driver, link: RunLink) -> None:
    """Do what is to be done with the engine that the configuration names."""
    if config.release.engine.kind == "local":
        from survey_ml.engine.local import LocalExecutor

        executor: Executor = LocalExecutor(driver.stop)
        try:
            driver.process(executor)
        finally:
            executor.close()
    else:
        _work_on_ray(config, driver, link)


def _work_on_ray(config: LoadedConfig, driver: Driver, link: RunLink) -> None:
    """Work as a Prefect flow on Ray."""
    from survey_ml.engine.cluster import Cluster, EngineError
    from survey_ml.engine.server import PrefectServer

    engine = config.release.engine
    cluster = Cluster(spill=_place(config, engine.spill_dir))
    server = PrefectServer()
    # The API takes as long to start as Ray does: both at once.
    server.launch()
    try:
        from survey_ml.engine.executor import RayExecutor
        from survey_ml.engine.flow import PrefectExecutor, run_flow

        cluster.start()
        inner = RayExecutor(
            cluster,
            workers=engine.workers,
            memory=_memory_budget(engine.memory_gb, cluster.resources()),
            per_call=engine.tiles_per_call,
            retries=engine.retries,
            remaining=driver.remaining,
            limit=worker_limit(engine.unit_seconds),
            recycle=None if engine.recycle_mb is None else engine.recycle_mb * 1_000_000,
            watch=driver.watch,
            stop=driver.stop,
        )
        # Said before hours of other stages, not after them.
        for spec in driver.unfinished():
            inner.require(spec)
        executor = PrefectExecutor(
            inner, server, stages=len(driver.specs), batch_seconds=engine.batch_seconds
        )
        try:
            try:
                server.wait()
            except EngineError as error:
                if not server.owned:
                    raise
                executor.lose(error.message)
                driver.process(inner)
            else:
                run_flow(
                    config.release.name,
                    config.out,
                    lambda: driver.process(executor),
                    executor,
                    server,
                    link,
                )
        finally:
            executor.close()
    finally:
        cluster.stop()
        server.stop()


def _place(config: LoadedConfig, path: str | None) -> str:
    """Return a path of the configuration as an absolute one; empty where none is given."""
    return str(config.base / Path(path).expanduser()) if path else ""


def _memory_budget(asked_gb: float | None, available: dict[str, float]) -> int:
    """Return the bytes that tiles in flight may use together: half of what there is, unless given."""
    if asked_gb is not None:
        return int(asked_gb * 1e9)
    physical = 0
    with contextlib.suppress(ValueError, OSError, AttributeError):
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(max(available.get("memory", 0.0), physical) / 2) or 1 << 30


def _assemble(config: LoadedConfig, driver: Driver, result: RunResult) -> None:
    """Write catalogue, report and provenance from what is committed."""
    from survey_ml.data.release import Release
    from survey_ml.engine.provenance import FILE, describe_release, is_described
    from survey_ml.export.bundle import export_release
    from survey_ml.export.shift import publish_shift
    from survey_ml.report.page import NAME as REPORT
    from survey_ml.report.page import write_report

    if result.exit_code == 2:
        return
    driver.check_lease()
    export_release(config.out, config)
    publish_shift(Release.open(config.out))
    crate = describe_release(
        config, driver.graph, driver.sources, driver.plan(), driver.ledger, result.set_aside
    )
    medium = driver.store.medium
    # The crate tells all that the report and itself depend on: configuration, keys, what was left out.
    if is_described(medium.read(FILE), crate) and all(medium.measure([REPORT]).values()):
        return
    driver.check_lease()
    write_report(config.out, config, result.set_aside)
    medium.replace(FILE, (json.dumps(crate, indent=1) + "\n").encode())
