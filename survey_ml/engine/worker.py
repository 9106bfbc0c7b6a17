"""Do units of work: read, run, check, commit. The same for every engine."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from survey_ml.allowed import find_refusal, operator_list
from survey_ml.data.commit import Unit, check_commit, read_commit, write_commit
from survey_ml.data.lease import Guard
from survey_ml.data.stamps import Unchanged
from survey_ml.data.store import ReleaseStore
from survey_ml.engine.failures import classify, describe
from survey_ml.engine.inputs import gather, read_tile
from survey_ml.engine.limit import time_limit
from survey_ml.engine.memory import peak_memory, resident_memory
from survey_ml.engine.outputs import check_outputs
from survey_ml.engine.records import Keeper, Record, capture
from survey_ml.engine.work import RELEASE, Job, Outcome, Result, StageWork
from survey_ml.errors import ChangedError, DamagedError, InputError, PluginError, WindowTooSmallError
from survey_ml.field import Field, Tile, split_tiles
from survey_ml.graph import INGEST
from survey_ml.plugins import load_factory
from survey_ml.products import Kind, Product
from survey_ml.stage import Inputs, Scope, Stage, Table

_BACKOFF = 0.2
"""Seconds before the second attempt at a failed read or write; doubled each time."""


class Worker:
    """Holds one release open, and stages set up once; does units one after the other.

    Parameters
    ----------
    out : str
        Folder or URL of the release.
    """

    def __init__(self, out: str) -> None:
        self.store = ReleaseStore.open(out)
        self._stages: dict[str, Stage] = {}
        self._fields: dict[str, Field] = {}
        self._tiles: dict[tuple[str, int, int], dict[str, Tile]] = {}
        self._declared: set[tuple[str, str]] = set()
        self._guards: dict[str, Guard] = {}
        self._unchanged = Unchanged(self.store)
        self.place = f"{platform.node()}:{os.getpid()}"
        self.last_records: tuple[Record, ...] = ()
        """Of the unit done last, also where it ended with a signal to end the process."""

    def run_units(self, work: StageWork, jobs: Sequence[Job]) -> list[Result]:
        """Do jobs of one stage; one result each, in order. No exception but a signal leaves it."""
        results = []
        for job in jobs:
            try:
                with capture() as keeper:
                    result = self._attempt(work, job, keeper)
            finally:
                self.last_records = keeper.take()
            results.append(self._complete(result))
            if result.outcome == "stopped":
                results += [Result(j.unit, "stopped", cause=result.cause) for j in jobs[len(results) :]]
                break
        return results

    def _complete(self, result: Result) -> Result:
        """Add what is to be known of the worker."""
        return replace(
            result,
            logs=self.last_records,
            worker=self.place,
            memory=resident_memory(),
            peak=peak_memory(),
        )

    def _attempt(self, work: StageWork, job: Job, keeper: Keeper) -> Result:
        """Do one job, again after a failed read or write, with back-off."""
        start = time.perf_counter()
        for attempt in range(work.retries + 1):
            try:
                return self._do(work, job, start)
            except Exception as error:
                kind = classify(error)
                if kind == "passing" and attempt < work.retries:
                    said = f"attempt {attempt + 1} of {work.retries + 1} failed, another follows: {error}"
                    keeper.keep("WARNING", __name__, said)
                    time.sleep(_BACKOFF * 2**attempt)
                    continue
                seconds = time.perf_counter() - start
                if isinstance(error, DamagedError) and error.field and error.stage:
                    culprit = Unit(error.field, error.stage, error.tile)
                    return Result(job.unit, "damaged", seconds, error.message, error.hint, culprit)
                cause, hint = describe(error, work.spec)
                outcome: Outcome = "stopped" if kind == "final" else "failed"
                whole = isinstance(error, ChangedError)
                return Result(job.unit, outcome, seconds, cause, hint, whole=whole)
        raise AssertionError("unreachable")

    def _do(self, work: StageWork, job: Job, start: float) -> Result:
        # Another worker may have done it: one thought dead that was only slow, or an earlier try.
        found = read_commit(self.store, job.unit)
        if found is not None and found.key == job.key and not check_commit(self.store, found):
            return Result(job.unit, "skipped", time.perf_counter() - start)
        timings: dict[str, float] = {}
        cpu = time.process_time()
        tile = self._tile(work, job)
        if work.spec.name == INGEST:
            assert tile is not None
            products: tuple[Product, ...] = (*work.spec.writes, Product(INGEST, Kind.SUMMARY))
            outputs = self._ingest(job, tile, timings)
            arrays, tables, summaries = check_outputs(work.spec.name, products, outputs, tile)
        else:
            products = work.spec.writes
            arrays, tables, summaries = self.compute(work, job, timings)
        mark = time.perf_counter()
        self._guard(work).check()
        for product in products:
            if product.kind is Kind.ARRAY and (job.unit.field, product.name) not in self._declared:
                self.store.declare(job.unit.field, product)
                self._declared.add((job.unit.field, product.name))
        distribution, version = work.distribution
        info = {
            "distribution": distribution,
            "distribution_version": version,
            "seconds": round(mark - start, 6),
            "cpu_seconds": round(time.process_time() - cpu, 6),
            "peak_memory_bytes": peak_memory(),
            "worker": self.place,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        commit = write_commit(
            self.store,
            job.unit,
            job.key,
            made_by=dict(job.made_by),
            tile=tile,
            arrays=arrays,
            tables=tables,
            summaries=summaries,
            info=info,
        )
        timings["commit"] = time.perf_counter() - mark
        written = sum(file["size"] for file in commit.files.values())
        return Result(job.unit, "done", time.perf_counter() - start, timings=timings, written=written)

    def compute(
        self, work: StageWork, job: Job, timings: dict[str, float]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, tuple[Table, Product]], dict[str, Any]]:
        """Run a stage on one unit and check what it returns, without committing it.

        Returns
        -------
        arrays, tables, summaries
            As `check_outputs` gives them.

        Raises
        ------
        Exception
            Whatever the stage raises, and `PluginError` where it breaks its declaration.
        """
        tile = self._tile(work, job)
        outputs = self._run(work, job, tile, timings)
        return check_outputs(work.spec.name, work.spec.writes, outputs, tile)

    def _tile(self, work: StageWork, job: Job) -> Tile | None:
        if work.spec.scope in (Scope.TILE, Scope.SOURCE):
            return self.tiles(work, job.unit.field)[job.unit.tile]
        return None

    def _ingest(self, job: Job, tile: Tile, timings: dict[str, float]) -> dict[str, Any]:
        from survey_ml.data.ingest import close_readers, ingest_tile

        mark = time.perf_counter()
        source = self.store.source(job.unit.field)
        try:
            sha256 = job.made_by["input"]["sha256"]
            image, counts = ingest_tile(source, tile, sha256)
            # After the pixels: what is committed is of the file that its key names.
            self._unchanged.check(source, sha256)
        except ChangedError:
            close_readers()
            raise
        except OSError as error:
            # A file that ends too soon or cannot be opened is bad data, not a passing fault, unless
            # the system says otherwise.
            if error.errno is None:
                raise InputError(
                    str(error), f"check the file {source.path}", field=source.field.name
                ) from error
            raise
        timings["read"] = time.perf_counter() - mark
        return {"image": image, INGEST: counts}

    def _run(self, work: StageWork, job: Job, tile: Tile | None, timings: dict[str, float]) -> dict[str, Any]:
        """Gather the inputs of a stage and run it, in a larger window as often as it asks."""
        mark = time.perf_counter()
        stage = self._stage(work)
        unit = job.unit
        field = None if unit.field == RELEASE else self.field(unit.field)
        seed = make_seed(work.seed, work.spec.name, unit.field, unit.tile)
        tiles = {} if field is None else self.tiles(work, unit.field)
        inputs = gather(self.store, work, job, field, tile, tiles, seed, self)
        if work.spec.scope is Scope.TILE:
            assert field is not None and tile is not None
            halo = max(work.halo, stage.halo(field))
            timings.update(read=time.perf_counter() - mark, run=0.0)
            while True:
                mark = time.perf_counter()
                seen = read_tile(self.store, work, inputs, field, tile, halo)
                timings["read"] += time.perf_counter() - mark
                mark = time.perf_counter()
                try:
                    return dict(self.call(stage, seen, work))
                except WindowTooSmallError as error:
                    assert seen.tile is not None
                    whole = seen.tile.window.shape == field.shape
                    if whole:
                        raise PluginError(
                            f"stage {work.spec.name} wants more than the whole field",
                            "a stage must work in a window that is the field",
                        ) from error
                    halo = max(error.halo, halo + max(halo, 1))
                finally:
                    timings["run"] += time.perf_counter() - mark
        timings["read"] = time.perf_counter() - mark
        mark = time.perf_counter()
        outputs = dict(self.call(stage, inputs, work))
        timings["run"] = time.perf_counter() - mark
        return outputs

    def call(self, stage: Stage, inputs: Inputs, work: StageWork) -> Mapping[str, Any]:
        """Run a stage; anything but a mapping breaks the contract."""
        with time_limit(work.limit, work.spec.name):
            outputs = stage.run(inputs)
        if not hasattr(outputs, "keys"):
            raise PluginError(
                f"stage {work.spec.name} returned {type(outputs).__name__}",
                "run returns a mapping of product name to value",
            )
        return outputs

    def _guard(self, work: StageWork) -> Guard:
        """Return what looks whether our run still holds the lease: each time where a look costs nothing."""
        if work.lease not in self._guards:
            seconds = work.lease_seconds / 10 if "://" in work.out else 0.0
            self._guards[work.lease] = Guard(self.store.medium, work.lease, seconds)
        return self._guards[work.lease]

    def _stage(self, work: StageWork) -> Stage:
        """Return the stage, set up on first use."""
        held = f"{work.spec.factory} {work.options!r}"
        if held not in self._stages:
            # The operator of this machine may allow less than the one where the run was started.
            if refusal := work.provider and find_refusal(*work.provider, operator_list(), work.allow):
                raise PluginError(
                    f"stage {work.spec.name} of {work.provider[0]} is {refusal} on {platform.node()}",
                    "ask whoever runs this machine, or take the stage out of the release",
                )
            kind: type[Stage] = load_factory(work.spec.factory, f"stage {work.spec.name}")
            stage = kind(kind.options_type.model_validate(work.options))
            stage.setup()
            self._stages[held] = stage
        return self._stages[held]

    def field(self, name: str) -> Field:
        """Return a field's description, read once."""
        if name not in self._fields:
            self._fields[name] = self.store.field(name)
        return self._fields[name]

    def tiles(self, work: StageWork, field: str) -> dict[str, Tile]:
        """Return the tiles of a field by name."""
        held = (field, work.core, work.halo)
        if held not in self._tiles:
            cut = split_tiles(self.field(field).shape, work.core, work.halo)
            self._tiles[held] = {tile.name: tile for tile in cut}
        return self._tiles[held]


def make_seed(seed: int, stage: str, field: str, tile: str) -> int:
    """Return the seed of a unit: the same in every run, on every worker, in any order."""
    text = f"{seed}/{stage}/{field}/{tile}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
