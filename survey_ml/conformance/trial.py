"""Run one stage as a worker of the engine does, again and again (in a child process)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.columns import columns_written
from survey_ml.conformance.release import configure
from survey_ml.conformance.watch import Digests, Watch, WatchedWorker, hash_outputs
from survey_ml.engine.cluster import limit_threads
from survey_ml.engine.driver import Driver
from survey_ml.engine.failures import describe
from survey_ml.engine.outputs import check_outputs
from survey_ml.engine.progress import QuietProgress
from survey_ml.engine.run import run_release
from survey_ml.engine.work import Job, StageWork
from survey_ml.errors import SurveyMLError
from survey_ml.graph import build_graph
from survey_ml.plugins import get_manager
from survey_ml.products import Column, Kind
from survey_ml.stage import Inputs, Scope, Stage

if TYPE_CHECKING:
    from survey_ml.config import LoadedConfig
    from survey_ml.conformance.child import Notes

PURITY = {
    "inputs_unchanged": "copy an input before changing it",
    "no_files": "return everything; load models in `setup`, and write nothing",
    "no_network": "a worker may have no network: ship models with the distribution",
    "environment": "leave the process as it is; make a Generator from inputs.seed",
}
"""Checks of what a stage does beside returning, with their hints."""
_RELATIVE, _ABSOLUTE = 1e-5, 1e-6
"""How far pixels may differ between windows: of their value, and of the largest one."""


class _Trial:
    """One stage, what it is run on, and how it is called."""

    def __init__(self, given: dict[str, Any], notes: Notes) -> None:
        limit_threads()
        self.notes, self.name = notes, given["stage"]
        self.about = f"stage {self.name}"
        self.config: LoadedConfig = configure(
            Path(given["release"]), [self.name], given["settings"], given["distribution"]
        )
        registry = get_manager()
        graph = build_graph(self.config, registry)
        driver = Driver(self.config, graph, registry, stages=None, progress=QuietProgress())
        driver.look()
        plan = driver.plan()
        self.spec = graph.spec(self.name)
        self.work = driver.work(self.spec)
        self.jobs = [
            Job(u.unit, u.key, plan.made_by[u.unit.field, self.name])
            for u in plan
            if u.unit.stage == self.name
        ]
        self.watch = Watch()
        self.rows: Counter[str] = Counter()
        self.columns: dict[str, dict[tuple[Column, ...], str]] = {}
        """Table to the columns that it was returned with, and where first."""

    def worker(self) -> WatchedWorker:
        """Return a worker without a stage in it yet."""
        return WatchedWorker(self.config.out, self.watch)

    def digest(self, worker: WatchedWorker, jobs: Sequence[Job], what: str) -> dict[str, Digests]:
        """Run the stage on some units and hash what it returns."""
        found = {}
        for job in jobs:
            self.notes.doing(f"{what} {self.about} on {_place(job)}")
            arrays, tables, summaries = worker.compute(self.work, job, {})
            self.rows.update({name: len(next(iter(t.values()), ())) for name, (t, _) in tables.items()})
            for name, (rows, product) in tables.items():
                columns = tuple(sorted(columns_written(product, rows), key=lambda column: column.name))
                self.columns.setdefault(name, {}).setdefault(columns, _place(job))
            found[_place(job)] = hash_outputs(arrays, tables, summaries)
        return found


def try_stage(given: dict[str, Any], notes: Notes) -> None:
    """Try a stage: does it run, does it return what it declares, is it pure."""
    trial = _Trial(given, notes)
    worker = _Checked(trial)
    first = _run_first(trial, worker)
    if first is None:
        # Why it failed may be what it tried to do.
        _check_purity(trial, seen_only=True)
        return
    notes.data("digests", first)
    rows = dict(trial.rows)
    _check_commits(trial)
    made = [f"{p.name} ({rows[p.name]} rows)" if p.name in rows else p.name for p in trial.spec.writes]
    differing = _compare_columns(trial)
    notes.check(
        trial.about,
        "outputs",
        not differing,
        differing or ", ".join(made),
        "return the same columns of a family, and vectors of one length, for every unit",
    )
    backwards = trial.digest(worker, trial.jobs[::-1], "running backwards:")
    detail = compare(first, backwards)
    notes.check(
        trial.about,
        "order",
        not detail,
        detail or f"{len(first)} units in either order",
        "keep nothing from one call of run to the next",
    )
    fresh: dict[str, Digests] = {}
    for job in trial.jobs:
        fresh |= trial.digest(trial.worker(), [job], "running a fresh instance of")
    detail = compare(first, fresh)
    notes.check(
        trial.about,
        "fresh_instance",
        not detail,
        detail or "a fresh one gives what a used one gives",
        "set up in `setup`, and keep nothing from one call of run to the next",
    )
    if trial.spec.scope is Scope.TILE and any(p.kind is Kind.ARRAY for p in trial.spec.writes):
        _check_windows(trial)
    _check_purity(trial)


def repeat_stage(given: dict[str, Any], notes: Notes) -> None:
    """Run a stage once more, for a process with another hash seed to compare with."""
    trial = _Trial(given, notes)
    notes.data("digests", trial.digest(trial.worker(), trial.jobs, "running"))


class _Checked(WatchedWorker):
    """Tells a stage that raises from one that returns the wrong things."""

    def __init__(self, trial: _Trial) -> None:
        super().__init__(trial.config.out, trial.watch)
        self.fault: SurveyMLError | None = None

    def call(self, stage: Stage, inputs: Inputs, work: StageWork) -> Mapping[str, Any]:
        """Run a stage and check what it returns."""
        outputs = super().call(stage, inputs, work)
        try:
            check_outputs(work.spec.name, work.spec.writes, outputs, inputs.tile)
        except SurveyMLError as error:
            self.fault = error
            raise
        return outputs


def _run_first(trial: _Trial, worker: _Checked) -> dict[str, Digests] | None:
    """Run all units; None when that fails, with what is wrong noted."""
    found: dict[str, Digests] = {}
    for job in trial.jobs:
        try:
            found |= trial.digest(worker, [job], "running")
        except BaseException as error:
            if worker.fault is None:
                cause, hint = describe(error, trial.spec)
                trial.notes.check(trial.about, "runs", False, f"{_place(job)}: {cause}", hint)
            else:
                trial.notes.check(trial.about, "runs", True)
                detail = f"{_place(job)}: {worker.fault.message}"
                trial.notes.check(trial.about, "outputs", False, detail, worker.fault.hint)
            return None
    return found


def _check_purity(trial: _Trial, *, seen_only: bool = False) -> None:
    """Note what the stage did beside returning its outputs."""
    for name, hint in PURITY.items():
        seen = list(trial.watch.noted.get(name, ()))
        if seen or not seen_only:
            trial.notes.check(trial.about, name, not seen, "; ".join(seen[:5]), hint)


def _compare_columns(trial: _Trial) -> str:
    """Name a table that some units have with other columns of a family; empty when there is none."""
    for name, found in trial.columns.items():
        if len(found) > 1:
            (one, here), (two, there) = list(found.items())[:2]
            names = sorted({f"{column.name} {column.dtype}" for column in {*one} ^ {*two}})
            return f"{name} has other columns in {there} than in {here}: {', '.join(names[:6])}"
    return ""


def _check_commits(trial: _Trial) -> None:
    """Run the stage as a release does, to the commit of every unit."""
    trial.notes.doing(f"running {trial.about} in a release")
    result = run_release(trial.config, progress=QuietProgress(), assemble=False)
    aside = [item for item in result.set_aside if item.stage == trial.name]
    detail = f"{len(trial.jobs)} units in 2 fields"
    if aside:
        detail = f"field {aside[0].field}, tile {aside[0].tile}: {aside[0].cause}"
    trial.notes.check(trial.about, "runs", not aside, detail, aside[0].hint if aside else "")


def _check_windows(trial: _Trial) -> None:
    """Compare the core's pixels with just the halo that is asked for and with the whole field."""
    worker = trial.worker()
    worst: dict[str, float] = {}
    for job in trial.jobs:
        trial.notes.doing(f"running {trial.about} in windows of two sizes on {_place(job)}")
        narrow, wide = (
            worker.compute(dataclasses.replace(trial.work, halo=halo), job, {})[0]
            for halo in (0, max(worker.field(job.unit.field).shape))
        )
        for name, value in narrow.items():
            far = measure_difference(value, wide[name])
            if far > 0:
                worst[f"{name} in {_place(job)}"] = far
    said = [
        f"{name} differs by up to {far:.3g}" if np.isfinite(far) else f"{name} is blank in only one of them"
        for name, far in worst.items()
    ]
    trial.notes.check(
        trial.about,
        "tile_independent",
        not worst,
        "; ".join(said[:3]) or "the same pixels in a window of the halo and in the whole field",
        "halo(field) must return as many pixels as the stage looks beyond its core, or more",
    )


def measure_difference(one: NDArray[Any], two: NDArray[Any]) -> float:
    """Return the largest difference of two arrays; 0 where rounding explains it.

    It is infinite where only one of them is blank.
    """
    if one.dtype.kind != "f":
        return float(np.max(one != two, initial=False))
    if np.any(np.isnan(one) != np.isnan(two)):
        return float("inf")
    good = np.isfinite(one) & np.isfinite(two)
    if np.any(one[~good & ~np.isnan(one)] != two[~good & ~np.isnan(one)]):
        return float("inf")
    a, b = one[good].astype(np.float64), two[good].astype(np.float64)
    scale = float(np.max(np.abs(b), initial=0.0))
    off = np.abs(a - b)
    return float(np.max(off[off > _RELATIVE * np.abs(b) + _ABSOLUTE * scale], initial=0.0))


def compare(one: Mapping[str, Digests], two: Mapping[str, Digests]) -> str:
    """Name what differs between two runs; empty when nothing does."""
    differing: dict[str, list[str]] = {}
    for place, digests in one.items():
        for name in digests:
            if two.get(place, {}).get(name) != digests[name]:
                differing.setdefault(name, []).append(place)
    said = [f"{name} differs in {places[0]}" + _more(places) for name, places in differing.items()]
    return "; ".join(said[:4])


def _more(places: Sequence[str]) -> str:
    return f" and {len(places) - 1} more" if len(places) > 1 else ""


def _place(job: Job) -> str:
    return f"{job.unit.field}/{job.unit.tile}"
