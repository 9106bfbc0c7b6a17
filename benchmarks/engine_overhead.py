"""What the engine costs a tile, in time and in memory of the driver, from images to the report.

Run: ``python -m benchmarks.engine_overhead [--tiles 10000] [--work 1 --workers 8] [--rows 100]``.

A field is cut into tiles of 32 x 32 px and goes through `survey-ml run`: taken in, then a stage that
reads its window, waits for ``--work`` seconds, and writes one array, one table and a summary; with
``--rows`` also that many sources, components and islands a tile, all of which are exported.

Without work the bar is 50 ms of wall time a tile, all in: start of Ray and of the Prefect API, planning,
catalogue, report. With work it is 5 % over the work: the wall time of the stage, times its workers, over
the work less one; more workers than cores may wait at once, since waiting needs no core. The driver may
grow by 50 MB from its 500th tile to its last. RSS counts pages of mapped files too, which the system drops
when it wants; anonymous memory is what the process holds for good.

    read, run, commit   measured in the workers, over their number
    Ray                 wall time with a batch in hand, less what the workers were busy
    Prefect             wall time of the stages with no batch in hand
    plan, ledger        the driver looks at markers and decides
    log                 the lines of the run's log
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from astropy.io import fits

from benchmarks.reporting import Report, make_parser
from survey_ml.builtin import STAGES
from survey_ml.columns import part_columns
from survey_ml.config import LoadedConfig, ReleaseConfig
from survey_ml.plugins import Origin, Registry
from survey_ml.products import Column, array, summary, table
from survey_ml.stage import Inputs, Options, Resources, Stage, StageSpec

BAR_MS, BAR_OVER, BAR_MB = 50.0, 0.05, 50.0
CORE = 32
SETTLED = 500
"""Tiles after which the driver has loaded what it needs."""
CATALOGUE = ("sources", "components", "islands")


class Forging(Options):
    """What the stage does."""

    work: float = 0.0
    """Seconds to wait."""
    rows: int = 0
    """Sources, components and islands to make up."""


class Trivial(Stage):
    """Hands back what it was given, and makes up sources."""

    options_type = Forging

    def run(self, inputs: Inputs) -> dict[str, Any]:
        """Return the core, one row and one number."""
        assert inputs.tile is not None and inputs.field is not None
        assert isinstance(self.options, Forging)
        core = inputs.arrays["image"][inputs.tile.core.inside(inputs.tile.window)]
        time.sleep(self.options.work)
        made = {
            "copy": np.array(core),
            "corner": {"value": np.array([core[0, 0]])},
            "seed": {"seed": inputs.seed},
        }
        if self.options.rows:
            made |= forge(inputs, self.options.rows)
        return made


def forge(inputs: Inputs, n_rows: int) -> dict[str, dict[str, Any]]:
    """Make up rows of the built-in tables: each pixel of the core bears one object at most."""
    assert inputs.tile is not None and inputs.field is not None
    rng, core = np.random.default_rng(inputs.seed), inputs.tile.core
    pixel = np.sort(rng.choice(core.shape[0] * core.shape[1], n_rows, replace=False))
    y, x = core.y0 + pixel // core.shape[1], core.x0 + pixel % core.shape[1]
    ra, dec = inputs.field.wcs.all_pix2world(x, y, 0, ra_dec_order=True)
    number = y * inputs.field.shape[1] + x
    tables = {}
    for name in CATALOGUE:
        rows: dict[str, Any] = {}
        for column in part_columns(name):
            if column.name.endswith("_id"):
                rows[column.name] = number
            elif column.dtype.startswith("int") or column.dtype == "bool":
                rows[column.name] = np.zeros(n_rows, column.dtype)
            else:
                rows[column.name] = rng.uniform(1e-3, 5.0, n_rows).astype(column.dtype)
        have = {column.name for column in part_columns(name)}
        given = {"ra": ra, "dec": dec, "x": x, "y": y, "major": rows.get("major", 0) + 5.0}
        tables[name] = rows | {key: np.asarray(given[key], float) for key in given if key in have}
    return tables


SPEC = StageSpec(
    "trivial",
    "benchmarks.engine_overhead:Trivial",
    reads=(array("image"),),
    writes=(array("copy"), table("corner", columns=(Column("value", "float32"),)), summary("seed")),
    resources=Resources(cpus=1, memory=100 << 20),
)


def make_registry(cpus: float, rows: int) -> Registry:
    """Return the built-in stages and the trivial one."""
    writes = (*SPEC.writes, *(table(name) for name in CATALOGUE if rows))
    spec = replace(SPEC, writes=writes, resources=Resources(cpus=cpus, memory=SPEC.resources.memory))
    origin = Origin("survey-ml", "0", "builtin", builtin=True)
    return Registry(offers=[(each, origin) for each in (*STAGES, spec)], origins=[origin])


class Stopwatch:
    """Notes when functions of the product are at work, and what its workers report."""

    def __init__(self) -> None:
        self.spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.busy: dict[str, Counter[str]] = defaultdict(Counter)
        self.size: dict[str, int] = {}
        self.cpu: Counter[str] = Counter()
        """Seconds of this process's cores, of names that are not at work twice at once."""
        self.units = 0
        self.heard: deque[tuple[float, Any]] = deque(maxlen=1000)
        self._patches = ExitStack()

    def time(self, name: str, owner: Any, function: str, before: Any = None) -> None:
        """Note each call of a function or method under a name, until `close`."""
        real = getattr(owner, function)

        @functools.wraps(real)
        def timed(*args: Any, **options: Any) -> Any:
            if before is not None:
                before(*args)
            start, cpu = time.perf_counter(), time.process_time()
            try:
                return real(*args, **options)
            finally:
                self.spans[name].append((start, time.perf_counter()))
                self.cpu[name] += time.process_time() - cpu

        self._patches.enter_context(mock.patch.object(owner, function, timed))

    def close(self) -> None:
        """Put the functions back."""
        self._patches.close()

    def hear(self, log: Any, result: Any) -> None:
        """Take what a worker says of a unit."""
        self.units += 1
        self.heard.append((time.perf_counter(), result))
        count = self.busy[result.unit.stage]
        count["busy"] += result.seconds
        count["written"] += result.written
        for part, seconds in result.timings.items():
            count[part] += seconds

    def total(self, *names: str) -> float:
        """Return the seconds in which any of the named was at work."""
        spans = sorted(span for name in names for span in self.spans[name])
        total, end = 0.0, float("-inf")
        for start, stop in spans:
            total += max(0.0, stop - max(start, end))
            end = max(end, stop)
        return total


class Memory(threading.Thread):
    """Looks at the memory of this process five times a second."""

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__(daemon=True)
        self._watch, self._ended = watch, threading.Event()
        self.samples: list[tuple[float, int, float, float]] = []
        """Time, units done, MB resident and MB of that anonymous."""

    def run(self) -> None:
        """Look until `close`."""
        while True:
            self.samples.append((time.perf_counter(), self._watch.units, *read_memory()))
            if self._ended.wait(0.2):
                return

    def close(self) -> None:
        """Look a last time."""
        self._ended.set()
        self.join()

    def grown(self, first: int, until: float) -> tuple[float, float]:
        """Return by how many MB resident and anonymous memory grew at most from a unit to a time."""
        held = [sample[2:] for sample in self.samples if first <= sample[1] and sample[0] <= until]
        start = np.array(held[0] if held else (0.0, 0.0))
        most = np.max(held, axis=0) - start if held else start
        return float(most[0]), float(most[1])

    def peak(self, spans: list[tuple[float, float]]) -> tuple[float, float]:
        """Return the most MB resident and anonymous in some spans of time."""
        held = [s[2:] for s in self.samples if any(a - 0.2 <= s[0] <= b + 0.2 for a, b in spans)]
        most = np.max(held, axis=0) if held else (0.0, 0.0)
        return float(most[0]), float(most[1])


def read_memory() -> tuple[float, float]:
    """Return MB resident and MB of that anonymous."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    held = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "RssAnon"))}
    return int(held["VmRSS"]) * 1024 / 1e6, int(held["RssAnon"]) * 1024 / 1e6


@contextmanager
def watching() -> Iterator[tuple[Stopwatch, Memory]]:
    """Time the parts of a run, and look at the memory of the driver."""
    from survey_ml.engine import provenance
    from survey_ml.engine.cluster import Cluster
    from survey_ml.engine.driver import Driver
    from survey_ml.engine.executor import RayExecutor
    from survey_ml.engine.ledger import Ledger
    from survey_ml.engine.local import LocalExecutor
    from survey_ml.engine.runlog import RunLog
    from survey_ml.engine.server import PrefectServer
    from survey_ml.export import bundle
    from survey_ml.report import page

    watch = Stopwatch()

    def note_size(executor: Any, work: Any, *_: Any) -> None:
        watch.size[work.spec.name] = max(1, getattr(executor, "size", 1))

    watch.time("log", RunLog, "take", watch.hear)
    watch.time("batch", RayExecutor, "run", note_size)
    watch.time("batch", LocalExecutor, "run", note_size)
    watch.time("stage", Driver, "_process_stage")
    watch.time("plan", Driver, "plan")
    watch.time("ledger", Ledger, "read")
    watch.time("ledger", Ledger, "reread")
    watch.time("open", Driver, "open")
    watch.time("start", Cluster, "start")
    watch.time("start", PrefectServer, "wait")
    watch.time("stop", Cluster, "stop")
    watch.time("stop", PrefectServer, "stop")
    watch.time("export", bundle, "export_release")
    watch.time("report", page, "write_report")
    watch.time("provenance", provenance, "describe_release")
    memory = Memory(watch)
    memory.start()
    try:
        yield watch, memory
    finally:
        memory.close()
        watch.close()


def make_release(folder: Path, tiles: int, engine: dict[str, Any], stage: dict[str, Any]) -> LoadedConfig:
    """Write one field of about so many tiles and return its configuration."""
    side = max(2, round(tiles**0.5)) * CORE
    header = fits.Header()
    for axis, kind in ((1, "RA---SIN"), (2, "DEC--SIN")):
        header[f"CTYPE{axis}"], header[f"CRVAL{axis}"], header[f"CRPIX{axis}"] = kind, 10.0, side / 2
        header[f"CDELT{axis}"], header[f"CUNIT{axis}"] = (-1) ** axis / 3600, "deg"
    header["BMAJ"] = header["BMIN"] = 5 / 3600
    header["BPA"], header["BUNIT"], header["RESTFRQ"] = 0.0, "Jy/beam", 1.4e9
    image = np.random.default_rng(1).standard_normal((side, side)).astype(np.float32)
    fits.writeto(folder / "field.fits", image, header)
    release = ReleaseConfig(
        name="overhead",
        fields=("field.fits",),
        tiling={"core_px": CORE, "halo_px": 4},
        stages={"trivial": stage},
        engine={"memory_gb": 4.0, **engine},
        out="out",
    )
    return LoadedConfig(release=release, base=folder, out=str(folder / "out"), source="")


def main() -> int:
    """Run the benchmark."""
    from survey_ml.engine.run import run_release

    parser = make_parser(__doc__)
    parser.add_argument("--tiles", type=int, default=1024)
    parser.add_argument("--work", type=float, default=0.0, help="seconds a tile waits")
    parser.add_argument("--rows", type=int, default=0, help="sources a tile")
    parser.add_argument("--workers", type=int, default=None, help="of the stage; by default one a core")
    parser.add_argument("--engine", choices=("ray", "local"), default="ray")
    parser.add_argument("--folder", default=None, help="where the release lies while it is measured")
    options = parser.parse_args()
    cpus = min(1.0, (os.cpu_count() or 1) / options.workers) if options.workers else 1.0
    with tempfile.TemporaryDirectory(prefix="overhead-", dir=options.folder) as name:
        # Prefect keeps its database there: this run must not add to, nor wait for, the user's own.
        os.environ["PREFECT_HOME"] = f"{name}/prefect"
        os.environ.pop("PREFECT_API_URL", None)
        engine = {"kind": options.engine, "workers": options.workers}
        config = make_release(Path(name), options.tiles, engine, {"work": options.work, "rows": options.rows})
        with watching() as (watch, memory):
            start = time.perf_counter()
            result = run_release(config, registry=make_registry(cpus, options.rows))
            total = time.perf_counter() - start
    assert result.exit_code == 0, (result.set_aside, result.stopped)
    tiles = watch.units // 2
    report = Report(
        "Engine overhead",
        {"tiles": tiles, "work": options.work, "rows": options.rows * tiles, "engine": options.engine}
        | {"workers of the stage": watch.size["trivial"], "core": CORE},
    )
    ms = 1e3 / tiles
    rows = {part: seconds * ms for part, seconds in split_time(watch, total).items()}
    report.add_table(
        "Wall milliseconds a tile (ingest and one stage)",
        [{"part": part, "ms": value} for part, value in [*rows.items(), ("all in", total * ms)]],
    )
    add_memory(report, watch, memory)
    if options.work:
        stage = next(row for row in result.stages if row.name == "trivial").seconds
        over = stage * watch.size["trivial"] / (options.work * tiles) - 1.0
        everything = total * watch.size["trivial"] / (options.work * tiles) - 1.0
        report.add_table(
            "Share over the work", [{"the stage": over, "all in, ingest and export too": everything}]
        )
        report.add_bar("over the work, the stage", over, f"<= {BAR_OVER:g}", over <= BAR_OVER)
    else:
        all_in = total * ms
        report.add_bar("ms of wall time a tile, all in", all_in, f"< {BAR_MS:g}", all_in < BAR_MS)
    grown = memory.grown(SETTLED, watch.spans["stage"][-1][1])[0]
    if options.engine == "ray":  # in one process the worker's memory is the driver's
        report.add_bar("MB that the driver grows", grown, f"< {BAR_MB:g}", grown < BAR_MB)
    return report.finish(options.json)


def split_time(watch: Stopwatch, total: float) -> dict[str, float]:
    """Say where the wall time went, in seconds."""
    parts: Counter[str] = Counter()
    for stage, count in watch.busy.items():
        size = watch.size.get(stage, 1)
        known = {part: count[part] / size for part in ("read", "run", "commit")}
        parts.update(known)
        parts["check and other work"] += count["busy"] / size - sum(known.values())
    busy, log = sum(parts.values()), watch.total("log")
    batch = watch.total("batch")
    plan, ledger = watch.total("plan"), watch.total("ledger")
    in_stage = watch.total("stage")
    found = {
        **parts,
        "Ray, and workers that wait": max(0.0, batch - busy - log),
        "log": log,
        # The ledger is read again at the end of each stage.
        "Prefect": max(0.0, in_stage - batch - sum(b - a for a, b in watch.spans["ledger"][1:])),
        "plan, ledger": plan + ledger,
        "start and end of Ray and Prefect": watch.total("start", "stop"),
        "export": watch.total("export"),
        "report, provenance": watch.total("report", "provenance"),
    }
    return {**found, "other": max(0.0, total - sum(found.values()))}


def add_memory(report: Report, watch: Stopwatch, memory: Memory) -> None:
    """Add what the driver held, and by how much it grew."""
    start, stop = watch.spans["stage"][0][0], watch.spans["stage"][-1][1]
    resident, anonymous = memory.grown(SETTLED, stop)
    rows = [{"when": f"growth from tile {SETTLED} on", "RSS MB": resident, "anonymous MB": anonymous}]
    for what, spans in (
        ("most while tiles are done", [(start, stop)]),
        ("most while exporting", watch.spans["export"]),
        ("most while making the report", watch.spans["report"]),
    ):
        most = memory.peak(spans)
        rows.append({"when": what, "RSS MB": most[0], "anonymous MB": most[1]})
    report.add_table("Memory of the driver", rows)


if __name__ == "__main__":
    sys.exit(main())
