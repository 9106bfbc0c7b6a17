"""How long a release takes on 1 to 64 nodes, from rates measured here; and two workers against one.

Run: ``python -m benchmarks.scale [--pixels 1e11 --sources 7e7 --cores 16] [--repeat 3]``.

A simulated field of 4096 x 4096 px in 64 tiles is extracted on Ray with one worker and with two, in turn.
The throughput counts tiles after each worker's first, in which code is compiled and loaded, until the last.
Bar: two workers do 1.7 times as much as one. A smaller field, extracted before with one worker, gives the
rates of the prediction, which is set beside what was measured for one and two workers. The cores are those
of this machine, the driver's included, so what the driver takes is not there for the second worker.

    workers   pixels / (pixels a core second * cores), with tiles that do not come out even
    store     bytes / what the store takes a second; ``--store-mb`` for that of a shared one
    driver    tiles * what the driver does a tile
    export    rows and pixels * what one takes, plus start and end: on one node, after the tiles

Tiles, store and driver go on at the same time, so the largest counts. Waiting for a shared store longer
than here, and fields that come one after the other, are not in it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine_overhead import Stopwatch, make_registry, make_release, watching
from benchmarks.reporting import Report, make_parser
from survey_ml.config import LoadedConfig, ReleaseConfig

BAR = 1.7
CORE = 512
NODES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Rates:
    """What was measured.

    Attributes
    ----------
    pixels : float
        A second of one core, from the image to the committed products.
    written : float
        Bytes a pixel.
    store : float
        Bytes a second.
    driver : float
        Seconds of a core that the driver spends a tile.
    row : float
        Seconds of export and report a row of the sources, its components and islands included.
    fixed : float
        Seconds of start, end, and an empty export.
    look : float
        Seconds of export and report a pixel: footprint and noise maps look at each.
    first : float
        Seconds that a worker spends before its first tile is done, beyond a tile.
    """

    pixels: float
    written: float
    store: float
    driver: float
    row: float
    fixed: float
    look: float
    first: float


@dataclass(frozen=True)
class Load:
    """What is to be done."""

    pixels: float
    tiles: int
    sources: float


@dataclass
class Run:
    """What one run took."""

    workers: int
    wall: float
    stages: float
    busy: float
    rate: float
    written: float
    driver: float
    units: int
    first: float
    export: float


def predict(load: Load, rates: Rates, workers: int, *, shared: bool = False) -> dict[str, float]:
    """Return seconds by what they go to, and the sum.

    Parameters
    ----------
    workers : int
        Cores that work.
    shared : bool
        The driver works on the same cores, as on a machine that has no more of them.
    """
    tile = load.pixels / load.tiles / rates.pixels
    cores = float(os.cpu_count() or 1)
    work = ceil(load.tiles / workers) * tile
    if shared:
        work = max(work, load.tiles * (tile + rates.driver) / cores)
    found = {
        "workers": work + rates.first,
        "store": load.pixels * rates.written / rates.store,
        "driver": load.tiles * rates.driver,
    }
    export = rates.fixed + load.sources * rates.row + load.pixels * rates.look
    return {**found, "export": export, "all": max(found.values()) + export}


def run(config: LoadedConfig, workers: int) -> Run:
    """Extract a release from nothing."""
    from survey_ml.engine.run import run_release

    with watching() as (watch, _):
        start = time.perf_counter()
        result = run_release(config)
        wall = time.perf_counter() - start
    assert result.exit_code == 0, (result.set_aside, result.stopped)
    stages = watch.total("stage")
    rate, first = find_rate(watch, "extraction")
    counts = watch.busy.values()
    return Run(
        workers,
        wall,
        stages,
        busy=sum(count["busy"] for count in counts),
        rate=rate,
        written=sum(count["written"] for count in counts),
        driver=watch.cpu["stage"],
        units=watch.units,
        first=first,
        export=watch.cpu["export"] + watch.cpu["report"],
    )


def find_rate(watch: Stopwatch, stage: str) -> tuple[float, float]:
    """Return tiles a second after each worker's first, and what the longest first one took beyond others."""
    heard = [(when, result) for when, result in watch.heard if result.unit.stage == stage]
    firsts: dict[str, float] = {}
    longest = 0.0
    for when, result in heard:
        if result.worker not in firsts:
            firsts[result.worker] = when
            longest = max(longest, result.seconds)
    begin, end = max(firsts.values()), heard[-1][0]
    counted = [result.seconds for when, result in heard if when > begin]
    typical = float(np.median(counted)) if counted else 0.0
    return len(counted) / (end - begin), max(0.0, longest - typical)


def make_field(folder: Path, size: int, seed: int) -> None:
    """Simulate the image."""
    from survey_ml.data.sky import write_sky
    from survey_ml.simulation.sky import Recipe, simulate_sky

    write_sky(simulate_sky(Recipe(size, seed), f"field{size}"), folder / f"field{size}.fits")


def make_config(folder: Path, size: int, workers: int, number: int) -> LoadedConfig:
    """Return the configuration of one run."""
    release = ReleaseConfig(
        name="scale",
        fields=(f"field{size}.fits",),
        tiling={"core_px": CORE, "halo_px": 64},
        engine={"workers": workers, "memory_gb": 8.0},
        out="out",
    )
    out = str(folder / f"out-{size}-{workers}-{number}")
    return LoadedConfig(release=release, base=folder, out=out, source="")


def measure_export(folder: Path) -> float:
    """Return seconds of export and report a source, from two releases of made-up sources."""
    from survey_ml.engine.run import run_release

    taken = []
    for rows in (20, 800):
        place = folder / f"rows{rows}"
        place.mkdir()
        config = make_release(place, 64, {"kind": "local"}, {"rows": rows})
        with watching() as (watch, _):
            run_release(config, registry=make_registry(1.0, rows))
        # One core does it; its own time does not depend on what others do on the machine.
        taken.append(watch.cpu["export"] + watch.cpu["report"])
    return max(0.0, taken[1] - taken[0]) / (64 * (800 - 20))


def measure_store(folder: Path, size: int = 1 << 26, files: int = 4) -> float:
    """Return bytes a second that the folder's disk takes, made durable."""
    data = np.random.default_rng(1).bytes(size)
    start = time.perf_counter()
    for number in range(files):
        with (folder / f"store{number}").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    return size * files / (time.perf_counter() - start)


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--pixels", type=float, default=1e11)
    parser.add_argument("--sources", type=float, default=7e7)
    parser.add_argument("--core", type=int, default=1024, help="side of a tile in pixels")
    parser.add_argument("--cores", type=int, default=16, help="cores that work on a node")
    parser.add_argument("--store-mb", type=float, default=None, help="MB a second of the shared store")
    parser.add_argument("--size", type=int, default=4096, help="of the field that is measured")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", default=None, help="where the releases lie")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.folder) as name:
        os.environ["PREFECT_HOME"] = f"{name}/prefect"
        os.environ.pop("PREFECT_API_URL", None)
        folder = Path(name)
        small = options.size // 2
        make_field(folder, small, 2)
        make_field(folder, options.size, 1)
        # The first run compiles what is not compiled yet.
        calm = [run(make_config(folder, small, 1, number), 1) for number in range(4)][1:]
        row, store = measure_export(folder), measure_store(folder)
        runs = [
            run(make_config(folder, options.size, workers, number), workers)
            for number in range(options.repeat)
            for workers in (1, 2)
        ]
    # What others do on the machine only adds: the least of several runs is nearest to the cost.
    known = min(calm, key=lambda each: each.busy)
    export = min(each.export for each in runs) - min(each.export for each in calm)
    look = max(0.0, export) / (options.size**2 - small**2)
    rates = Rates(
        pixels=small**2 / (known.busy - known.first),
        written=known.written / small**2,
        store=options.store_mb * 1e6 if options.store_mb else store,
        driver=min(each.driver for each in runs) / runs[0].units,
        row=row,
        fixed=min(each.wall - each.stages for each in calm) - small**2 * look,
        look=look,
        first=known.first,
    )
    report = Report(
        "Scale",
        {"field": options.size, "tiles": (options.size // CORE) ** 2, "cores here": os.cpu_count()}
        | {"repeat": options.repeat},
    )
    add_runs(report, runs, rates, options.size)
    add_prediction(report, rates, options)
    return report.finish(options.json)


def add_runs(report: Report, runs: Sequence[Run], rates: Rates, size: int) -> None:
    """Set what was measured with one and two workers beside the prediction."""
    load = Load(float(size**2), (size // CORE) ** 2, 0.0)
    rows: list[dict[str, Any]] = []
    for one in runs:
        said = predict(load, rates, one.workers, shared=True)
        rows.append(
            {
                "workers": one.workers,
                "tiles/s after the first": one.rate,
                "stages s": one.stages,
                "predicted": said["workers"],
                "wall s": one.wall,
                "predicted all": said["all"],
                "busy s of workers": one.busy,
                "CPU s of driver": one.driver,
            }
        )
    report.add_table("Runs, and what the rates of the smaller field predict", rows)
    ratios = [two.rate / one.rate for one, two in zip(runs[::2], runs[1::2], strict=True)]
    walls = [one.stages / two.stages for one, two in zip(runs[::2], runs[1::2], strict=True)]
    report.add_table(
        "Two workers over one",
        [{"throughput": a, "wall of the stages": b} for a, b in zip(ratios, walls, strict=True)],
    )
    ratio = float(np.median(ratios))
    report.add_bar("throughput of two workers over one (median)", ratio, f">= {BAR:g}", ratio >= BAR)


def add_prediction(report: Report, rates: Rates, options: Any) -> None:
    """Say how long the release would take."""
    report.add_table(
        "Rates",
        [
            {"what": "pixels a second of a core", "rate": rates.pixels},
            {"what": "bytes written a pixel", "rate": rates.written},
            {"what": "MB a second of the store", "rate": rates.store / 1e6},
            {"what": "ms of the driver a tile", "rate": rates.driver * 1e3},
            {"what": "microseconds of export and report a source", "rate": rates.row * 1e6},
            {"what": "nanoseconds of export and report a pixel", "rate": rates.look * 1e9},
            {"what": "s of start, end and an empty export", "rate": rates.fixed},
            {"what": "s of a worker's start beyond its first tile", "rate": rates.first},
        ],
    )
    tiles = ceil(options.pixels / options.core**2)
    # Ingest and extraction: two units a tile.
    load = Load(options.pixels, 2 * tiles, options.sources)
    rows = []
    for nodes in NODES:
        hours = {k: s / 3600 for k, s in predict(load, rates, nodes * options.cores).items()}
        parts = {name: hours[name] for name in ("workers", "store", "driver", "export")}
        rows.append({"nodes": nodes, **hours, "bottleneck": max(parts, key=lambda name: parts[name])})
    report.add_table(
        f"Hours for {options.pixels:g} px and {options.sources:g} sources, {options.cores} cores a node",
        rows,
    )


if __name__ == "__main__":
    sys.exit(main())
