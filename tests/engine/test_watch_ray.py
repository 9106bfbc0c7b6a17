"""Stages that print, hang, leak and leave on Ray: what the run makes of them and what its log says."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from releases import make_config, make_registry, write_fields

from survey_ml.data.commit import list_commits, list_quarantine
from survey_ml.data.store import ReleaseStore
from survey_ml.engine.cluster import Cluster
from survey_ml.engine.driver import Driver
from survey_ml.engine.executor import RayExecutor
from survey_ml.engine.observe import watch_run
from survey_ml.engine.progress import QuietProgress
from survey_ml.graph import build_graph

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    """Return one Ray for all tests of this module."""
    before = {name: os.environ.pop(name, None) for name in ("RAY_ADDRESS", "PREFECT_API_URL")}
    found = Cluster()
    found.start()
    yield found
    found.stop()
    os.environ.update({name: value for name, value in before.items() if value is not None})


class Shared(RayExecutor):
    def close(self) -> None:
        """End the actors but not the cluster, which other tests use."""
        if self._pool is not None:
            self._pool.close()


def process(config, cluster, **options):
    """Run a release as `run_release` does, but on a cluster that is there; return result and records."""
    registry = make_registry()
    driver = Driver(config, build_graph(config, registry), registry, stages=None, progress=QuietProgress())
    with driver.claim(), watch_run(config, driver.stop) as driver.watch:
        driver.open()
        common = {"workers": 2, "memory": 4 << 30, "per_call": 4, "retries": 3, "watch": driver.watch}
        executor = Shared(cluster, **common | options)
        try:
            driver.process(executor)
        finally:
            executor.close()
        result = driver.conclude()
        driver.watch.conclude(result)
    (path,) = Path(config.out).glob("logs/*.jsonl")
    return result, [json.loads(line) for line in path.read_text().splitlines()]


def of_event(records, event):
    return [record for record in records if record.get("event") == event]


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("print", [("INFO", "stdout", "printed by the stage"), ("INFO", "stderr", "complained"),
                   ("INFO", "stdout", "no end of line")]),
        ("log", [("INFO", "trial.odd", "for your information"), ("WARNING", "trial.odd", "beware of nothing"),
                 ("ERROR", "trial.odd", "went wrong")]),
        ("warn", [("WARNING", "py.warnings", "UserWarning: deprecated, perhaps")]),
    ],
)  # fmt: skip
def test_what_a_stage_says_arrives_with_its_place(release_folder, cluster, how, wanted):
    config = make_config(release_folder, engine="ray", stages={"odd": {"how": how}})
    result, records = process(config, cluster)
    assert result.exit_code == 0
    said = [r for r in records if r.get("tile") == "1_1"]
    # Python shows a warning once a process: one worker may have met it in the other field.
    said = [r for r in said if r["field"] == said[0]["field"]]
    assert [(r["level"], r["logger"]) for r in said] == [(level, logger) for level, logger, _ in wanted]
    assert all(text in r["message"] for r, (_, _, text) in zip(said, wanted, strict=True))
    assert {(r["stage"], r["worker"].rpartition(":")[2]) for r in said} == {("odd", str(said[0]["pid"]))}
    assert said[0]["pid"] != os.getpid()


def test_a_tile_that_takes_too_long(tmp_path, cluster):
    config = make_config(
        write_fields(tmp_path, ("north",)), engine="ray", stages={"odd": {"how": "hang", "tile": "1_1"}}
    )
    start = time.monotonic()
    result, records = process(config, cluster, limit=4.0)
    assert time.monotonic() - start < 90
    assert result.exit_code == 1
    assert [(s.tile, s.cause) for s in result.set_aside] == [("1_1", "it took longer than 4 s, 3 times")]
    store = ReleaseStore.open(config.out)
    assert sum(unit.stage == "odd" for unit in list_commits(store)) == 8
    (held,) = list_quarantine(store).values()
    assert held["attempts"] == 3
    assert "engine.unit_seconds" in held["hint"]
    assert [r["tile"] for r in of_event(records, "retry")] == ["1_1", "1_1"]
    lost = of_event(records, "lost_worker")
    assert len(lost) == 3
    assert all("took longer than 4 s" in r["message"] and r["worker"] for r in lost)
    assert [r["level"] for r in of_event(records, "quarantined")] == ["ERROR"]


def test_a_tile_that_ends_its_worker(tmp_path, cluster):
    config = make_config(write_fields(tmp_path, ("north",)), engine="ray", stages={"odd": {"how": "exit"}})
    result, records = process(config, cluster)
    (entry,) = result.set_aside
    assert entry.tile == "1_1"
    assert entry.cause.startswith("its worker died 3 times")
    assert "memory" not in entry.cause
    assert len(of_event(records, "lost_worker")) == 3
    # Each death is a record that says so; what the unit printed before is lost with its worker.
    assert not [r for r in records if r["message"] == "last words"]
    assert {r["tile"] for r in of_event(records, "retry")} == {"1_1"}


def test_a_worker_that_grows_is_replaced(tmp_path, cluster):
    leak = {"how": "leak", "tile": "", "megabytes": 60}
    config = make_config(write_fields(tmp_path, ("north",)), engine="ray", stages={"odd": leak})
    result, records = process(config, cluster, recycle=100_000_000, per_call=1, workers=1)
    assert result.exit_code == 0
    assert not of_event(records, "lost_worker")
    replaced = of_event(records, "recycle")
    assert len(replaced) >= 2
    assert (
        len(
            {
                c.summaries["odd"]["pid"]
                for u, c in list_commits(ReleaseStore.open(config.out)).items()
                if u.stage == "odd"
            }
        )
        >= 3
    )
