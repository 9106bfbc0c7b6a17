"""What the engine costs a tile when the work itself costs nothing.

Run: ``python -m benchmarks.engine_overhead [--tiles 1024] [--json]``.

A field of 1,024 tiles of 32 x 32 px goes through the full engine: ingested, then a stage that reads
its window, writes one array, one table of a row and a summary, and computes nothing. Three runs: in
one process (reads and commits only), on Ray, and as a Prefect flow on Ray. Bar: under 50 ms of wall
time a tile in all, start-up of Ray and of the Prefect API included.

    read, commit   measured in the workers, over the number of workers
    Ray            wall time of the stages on Ray less what the workers were busy
    Prefect        wall time of the stages in the flow less that on Ray
    start          starting and ending Ray and Prefect
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from benchmarks.reporting import Report, make_parser
from survey_ml.builtin import STAGES
from survey_ml.config import LoadedConfig, ReleaseConfig
from survey_ml.engine.work import Executor, Job, Result, StageWork
from survey_ml.plugins import Origin, Registry
from survey_ml.products import Column, array, summary, table
from survey_ml.stage import Inputs, Resources, Stage, StageSpec

BAR_MS = 50.0
CORE = 32


class Trivial(Stage):
    """Hands back what it was given."""

    def run(self, inputs: Inputs) -> dict[str, Any]:
        """Return the core, one row and one number."""
        assert inputs.tile is not None
        core = inputs.arrays["image"][inputs.tile.core.inside(inputs.tile.window)]
        return {
            "copy": np.array(core),
            "corner": {"value": np.array([core[0, 0]])},
            "seed": {"seed": inputs.seed},
        }


SPEC = StageSpec(
    "trivial",
    "benchmarks.engine_overhead:Trivial",
    reads=(array("image"),),
    writes=(array("copy"), table("corner", columns=(Column("value", "float32"),)), summary("seed")),
    resources=Resources(cpus=1, memory=100 << 20),
)


class Clock:
    """An executor that hands everything on and adds up what the workers were busy with."""

    name = "clock"

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.seconds: Counter[str] = Counter()

    def prepare(self, work: StageWork, count: int) -> None:
        """Hand on."""
        start = time.perf_counter()
        self._inner.prepare(work, count)
        self.seconds["prepare"] += time.perf_counter() - start

    def run(self, work: StageWork, jobs: Sequence[Job], report: Any) -> None:
        """Hand on, with an ear on the results."""

        def listen(result: Result) -> None:
            self.seconds["busy"] += result.seconds
            self.seconds["commit"] += result.timings.get("commit", 0.0)
            self.seconds["read"] += result.timings.get("read", 0.0)
            report(result)

        start = time.perf_counter()
        self._inner.run(work, jobs, listen)
        self.seconds["wall"] += time.perf_counter() - start

    def close(self) -> None:
        """Hand on."""
        self._inner.close()


def make_release(folder: Path, tiles: int) -> LoadedConfig:
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
        stages={"trivial": {}},
        engine={"memory_gb": 4.0},
        out="out",
    )
    return LoadedConfig(release=release, base=folder, out=str(folder / "out"), source="")


def run_once(config: LoadedConfig, registry: Registry, kind: str) -> dict[str, float]:
    """Process the release from nothing; return seconds by what they went to."""
    from survey_ml.engine.cluster import Cluster, limit_threads
    from survey_ml.engine.driver import Driver
    from survey_ml.engine.executor import RayExecutor
    from survey_ml.engine.flow import PrefectExecutor, run_flow
    from survey_ml.engine.local import LocalExecutor
    from survey_ml.engine.progress import QuietProgress
    from survey_ml.engine.server import PrefectServer
    from survey_ml.graph import build_graph

    limit_threads()
    shutil.rmtree(config.out, ignore_errors=True)
    start = time.perf_counter()
    graph = build_graph(config, registry)
    driver = Driver(config, graph, registry, stages=None, progress=QuietProgress())
    driver.open()
    workers = 1
    if kind == "local":
        clock = Clock(LocalExecutor())
        driver.process(clock)
        clock.close()
    else:
        server, cluster = PrefectServer(), Cluster()
        if kind == "prefect":
            server.launch()
        cluster.start()
        ray = RayExecutor(cluster, workers=None, memory=4 << 30, per_call=8, retries=3)
        try:
            if kind == "prefect":
                flow = PrefectExecutor(ray, server, stages=2, batch_seconds=5.0)
                clock = Clock(flow)
                server.wait()
                run_flow("overhead", config.out, lambda: driver.process(clock), flow, server)
            else:
                clock = Clock(ray)
                driver.process(clock)
            workers = ray.size
        finally:
            ray.close()
            server.stop()
    result = driver.conclude()
    total = time.perf_counter() - start
    assert result.exit_code == 0, result.set_aside
    return {**clock.seconds, "total": total, "workers": workers, "units": float(result.done)}


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--tiles", type=int, default=1024)
    options = parser.parse_args()
    origin = Origin("survey-ml", "0", "builtin", builtin=True)
    registry = Registry(offers=[(spec, origin) for spec in (*STAGES, SPEC)], origins=[origin])
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        # Prefect keeps its database there: this run must not add to, nor wait for, the user's own.
        os.environ["PREFECT_HOME"] = f"{name}/prefect"
        os.environ.pop("PREFECT_API_URL", None)
        config = make_release(Path(name), options.tiles)
        found = {kind: run_once(config, registry, kind) for kind in ("local", "ray", "prefect")}
    tiles = round(found["local"]["units"] / 2)
    full, on_ray = found["prefect"], found["ray"]
    ms = 1e3 / tiles
    read, commit = (full[name] / full["workers"] * ms for name in ("read", "commit"))
    other = full["busy"] / full["workers"] * ms - read - commit
    dispatch = max(0.0, on_ray["wall"] - on_ray["busy"] / on_ray["workers"]) * ms
    stages = full["wall"] * ms
    prefect = max(0.0, stages - full["busy"] / full["workers"] * ms - dispatch)
    rows = {
        "read": read,
        "commit": commit,
        "check and other work": other,
        "Ray": dispatch,
        "Prefect": prefect,
        "start, plan, end": full["total"] * ms - stages,
    }
    all_in = full["total"] * ms
    report = Report(
        "Engine overhead",
        {"tiles": tiles, "units": int(full["units"]), "workers": int(full["workers"]), "core": CORE},
    )
    report.add_table(
        "Wall milliseconds a tile (ingest and one stage)",
        [{"part": part, "ms": value} for part, value in [*rows.items(), ("all in", all_in)]],
    )
    report.add_table(
        "The same release, all in",
        [{"engine": kind, "ms a tile": run["total"] * ms, "s": run["total"]} for kind, run in found.items()],
    )
    report.add_bar("ms of wall time a tile, all in", all_in, f"< {BAR_MS:g}", all_in < BAR_MS)
    return report.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
