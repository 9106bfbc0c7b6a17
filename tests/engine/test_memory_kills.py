"""Memory: what processes hold, and workers that are killed for it."""

from __future__ import annotations

import os

import numpy as np
import pytest
from releases import make_config, write_fields

from survey_ml.engine.deaths import Coroner, Death, explain_deaths
from survey_ml.engine.memory import count_memory_kills, peak_memory, resident_memory

RAY_SAYS = (
    "The actor died unexpectedly before finishing this task.\n"
    "\tclass_name: UnitActor\n"
    "The actor is dead because its worker process has died. Worker exit type: {} "
    "Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file. "
    "Some common causes include: (1) the process was killed by the OOM killer due to high memory usage, "
    "(2) ray stop --force was called."
)


def test_memory_of_a_process():
    before = resident_memory()
    held = np.ones(50 << 17)
    assert resident_memory() - before > 40 << 20
    assert resident_memory(os.getpid()) > held.nbytes
    assert peak_memory() >= resident_memory() * 0.9
    assert resident_memory(2**22 + 1) == 0
    assert count_memory_kills() >= 0


def test_causes_of_deaths_are_told_apart():
    coroner = Coroner(local=False)
    plain = coroner.examine(RAY_SAYS.format("SYSTEM_ERROR"), 10)
    assert (plain.kind, plain.peak) == ("exit", 10)
    assert "OOM" not in plain.detail
    assert "SYSTEM_ERROR" in plain.detail
    assert coroner.examine(RAY_SAYS.format("NODE_OUT_OF_MEMORY"), 0).kind == "memory"
    assert coroner.examine("Task was killed due to the node running low on memory.", 0).kind == "memory"


def test_a_kill_by_the_kernel_is_noticed_once(monkeypatch):
    kills = [7]
    monkeypatch.setattr("survey_ml.engine.deaths.count_memory_kills", lambda: kills[0])
    coroner = Coroner(local=True)
    assert coroner.examine("gone", 0).kind == "exit"
    kills[0] = 8
    coroner.look()
    assert coroner.examine("gone", 0).kind == "memory"
    assert coroner.examine("gone", 0).kind == "exit"


def test_deaths_in_words():
    slow, full, gone = (
        Death("time", "took longer than 5 s"),
        Death("memory", "m", 3_100_000_000),
        Death("exit", "e"),
    )
    assert explain_deaths([slow] * 3)[0] == "it took longer than 5 s, 3 times"
    assert explain_deaths([full] * 3)[0] == (
        "its worker was killed for memory 3 times, which held up to 3100 MB"
    )
    cause, hint = explain_deaths([gone])
    assert cause == "its worker died once"
    assert hint.startswith("the stage's code may end its process or crash it")
    assert hint.index("code") < hint.index("memory") < hint.index("--retry-quarantined")
    cause, hint = explain_deaths([slow, full, gone])
    assert cause == "its worker died 3 times, which held up to 3100 MB: took longer than 5 s; m; e"
    assert "memory" in hint


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_worker_killed_for_memory(tmp_path, monkeypatch):
    import psutil
    from test_watch_ray import of_event, process

    from survey_ml.data.commit import list_quarantine
    from survey_ml.data.store import ReleaseStore
    from survey_ml.engine.cluster import Cluster

    memory = psutil.virtual_memory()
    if memory.available < 9 << 30:
        pytest.skip("needs 9 GB of free memory")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    share = (memory.total - memory.available + (3 << 30)) / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{share:.4f}")
    cluster = Cluster(spill=str(tmp_path / "spill"))
    cluster.start()
    try:
        swell = {"how": "swell", "megabytes": 5000}
        config = make_config(write_fields(tmp_path, ("north",)), engine="ray", stages={"odd": swell})
        result, records = process(config, cluster)
    finally:
        cluster.stop()
    (entry,) = result.set_aside
    assert entry.tile == "1_1"
    assert entry.cause.startswith("its worker was killed for memory 3 times, which held up to ")
    assert int(entry.cause.split()[-2]) > 1000
    (held,) = list_quarantine(ReleaseStore.open(config.out)).values()
    assert held["cause"] == entry.cause
    assert {r["tile"] for r in of_event(records, "retry")} == {"1_1"}
    assert all("memory" in r["message"] for r in of_event(records, "lost_worker"))


def test_who_is_killed_for_the_memory_of_another_is_spared():
    coroner = Coroner(local=True)
    small, large = (Death("memory", "killed", megabytes << 20) for megabytes in (140, 3000))
    # Both die at once, in either order; or only the small one, while the large one goes on.
    assert not coroner.spares(large, [small.peak])
    assert coroner.spares(small, [])
    coroner = Coroner(local=True)
    assert coroner.spares(small, [large.peak])
    assert not coroner.spares(large, [])
    # It is the only one, dies of something else, or nobody knows what workers held.
    assert not Coroner(local=True).spares(small, [])
    assert not Coroner(local=True).spares(Death("exit", "killed", small.peak), [large.peak])
    assert not Coroner(local=True).spares(Death("memory", "killed"), [large.peak])
    assert not Coroner(local=False).spares(small, [large.peak])
