"""The Ray engine within Prefect: the same release as the local engine, byte for byte."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from releases import make_config, make_registry, read_bytes_of, write_fields

from survey_ml.data.store import ReleaseStore
from survey_ml.engine.cluster import THREADS, Cluster, EngineError
from survey_ml.engine.driver import Driver
from survey_ml.engine.executor import RayExecutor
from survey_ml.engine.flow import PrefectExecutor, run_flow
from survey_ml.engine.pool import ActorPool
from survey_ml.engine.progress import QuietProgress
from survey_ml.engine.run import run_release
from survey_ml.engine.server import PrefectServer
from survey_ml.engine.work import Job, StageWork
from survey_ml.graph import build_graph
from survey_ml.stage import Resources, StageSpec

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def cluster():
    """Return one Ray for all tests of this module."""
    before = {name: os.environ.pop(name, None) for name in ("RAY_ADDRESS", "PREFECT_API_URL")}
    found = Cluster()
    found.start()
    yield found
    found.stop()
    os.environ.update({name: value for name, value in before.items() if value is not None})


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return one Prefect API for all tests of this module, with a database of its own.

    It asks for a password, as where the terminal has the settings of an operator's server.
    """
    home = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.setenv("PREFECT_SERVER_API_AUTH_STRING", "admin:of tests")
        found = PrefectServer()
        found.launch()
        found.wait()
        yield found, home
        found.stop()


def make_executor(cluster, **options) -> RayExecutor:
    class Shared(RayExecutor):
        def close(self) -> None:
            """End the actors but not the cluster, which other tests use."""
            if self._pool is not None:
                self._pool.close()

    return Shared(cluster, **{"workers": 2, "memory": 4 << 30, "per_call": 4, "retries": 3} | options)


def process(config, executor, around=lambda body: body()):
    """Run a release with a given executor, as `run_release` does."""
    driver = Driver(
        config, build_graph(config, make_registry()), make_registry(), stages=None, progress=QuietProgress()
    )
    driver.open()
    try:
        around(lambda: driver.process(executor))
    finally:
        executor.close()
    return driver.conclude()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    config = make_config(write_fields(tmp_path_factory.mktemp("local")))
    run_release(config, registry=make_registry(), assemble=False)
    return read_bytes_of(Path(config.out))


def test_same_bytes_as_local(release_folder, cluster, local):
    config = make_config(release_folder, engine="ray")
    result = process(config, make_executor(cluster))
    assert (result.done, result.exit_code) == (57, 0)
    assert read_bytes_of(Path(config.out)) == local


def test_flow_is_recorded_by_prefect(release_folder, cluster, server, local):
    api, home = server
    config = make_config(release_folder, engine="ray")
    executor = PrefectExecutor(make_executor(cluster), api, stages=5, batch_seconds=5.0)
    result = process(config, executor, lambda body: run_flow("trial", config.out, body, executor, api))
    assert (result.done, result.exit_code) == (57, 0)
    assert read_bytes_of(Path(config.out)) == local
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with sqlite3.connect(f"file:{home}/prefect.db?mode=ro", uri=True) as database:
            flows = database.execute("select name, state_type from flow_run").fetchall()
            tasks = database.execute("select name, state_type from task_run").fetchall()
        if len(tasks) >= 7 and all(state == "COMPLETED" for _, state in [*flows, *tasks]):
            break
        time.sleep(0.2)
    assert flows == [("trial", "COMPLETED")]
    assert {name.split()[0] for name, _ in tasks} == {"ingest", "smooth", "total", "ratio", "census"}
    assert {state for _, state in tasks} == {"COMPLETED"}
    assert len(tasks) < 20


@pytest.mark.slow
def test_prefect_lost_in_mid_run(release_folder, cluster, local, caplog, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    api = PrefectServer()
    api.launch()
    api.wait()
    config = make_config(release_folder, engine="ray", stages={"census": {}, "smooth": {"seconds": 0.1}})
    executor = PrefectExecutor(make_executor(cluster), api, stages=5, batch_seconds=0.3)

    def kill_soon():
        for _ in range(6000):
            if len(list((release_folder / "out").glob("units/*/smooth/*/[!.]*/_COMMIT.json"))) > 3:
                api._process.kill()
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_soon)
    killer.start()
    start = time.monotonic()
    with caplog.at_level(logging.WARNING):
        result = process(config, executor, lambda body: run_flow("trial", config.out, body, executor, api))
    killer.join()
    api.stop()
    assert time.monotonic() - start < 60
    assert (result.done, result.exit_code) == (57, 0)
    assert read_bytes_of(Path(config.out)) == local
    assert caplog.text.count("the Prefect API is lost") == 1


def test_flow_failure_is_ours_to_raise(cluster, server):
    api, _ = server
    executor = PrefectExecutor(make_executor(cluster), api, stages=1, batch_seconds=1.0)

    def body():
        raise EngineError("out of luck", "try again")

    with pytest.raises(EngineError, match="out of luck"):
        run_flow("failing", "nowhere", body, executor, api)


def test_one_bad_tile_and_one_retry(release_folder, cluster):
    config = make_config(release_folder, engine="ray", stages={"smooth": {"fail": "1_1"}})
    result = process(config, make_executor(cluster))
    assert result.exit_code == 1
    assert {(s.field, s.tile) for s in result.set_aside} == {("north", "1_1"), ("south", "1_1")}
    assert all(s.cause.startswith("ZeroDivisionError") for s in result.set_aside)


def test_setup_that_fails_names_the_stage(release_folder, cluster, monkeypatch):
    config = make_config(release_folder, engine="ray", stages={"smooth": {}})
    executor = make_executor(cluster)
    real = executor.run

    def lose_module(work, jobs, report):
        broken = work.spec.name == "smooth"
        spec = work.spec if not broken else _respec(work.spec, factory="not_there:Smooth")
        real(_rework(work, spec), jobs, report)

    monkeypatch.setattr(executor, "run", lose_module)
    result = process(config, executor)
    assert {s.field for s in result.set_aside} == {"north", "south"}
    assert all("not_there" in s.cause for s in result.set_aside)


def _respec(spec, **changes):
    import dataclasses

    return dataclasses.replace(spec, **changes)


def _rework(work, spec):
    import dataclasses

    return dataclasses.replace(work, spec=spec)


def test_sizes_of_pools(cluster):
    executor = make_executor(cluster, workers=None, memory=3 << 30)
    cpus = int(cluster.resources()["CPU"])
    assert executor.bound(Resources(cpus=1, memory=1 << 30)) == min(cpus, 3)
    assert executor.bound(Resources(cpus=1, memory=4 << 30)) == 1
    assert executor.bound(Resources(cpus=cpus, memory=1 << 20)) == 1
    executor.require(StageSpec("plain", "a:B"))
    with pytest.raises(EngineError, match=r"stage seer: it needs 0\.5 GPU a worker, the cluster has 0"):
        executor.require(StageSpec("seer", "a:B", resources=Resources(gpus=0.5)))


def test_pool_serves_several_callers_and_one_thread_each_worker(release_folder, cluster):
    config = make_config(release_folder, engine="ray")
    run_release(make_config(release_folder), registry=make_registry(), assemble=False, only="ingest")
    graph = build_graph(config, make_registry())
    spec = graph.spec("smooth")
    work = StageWork(config.out, spec, {"seconds": 0.02}, {"image": ("ingest", spec.scope)}, 32, 4, 0, 1)
    from survey_ml.data.commit import Unit

    jobs = [
        Job(Unit(name, "smooth", f"{y}_{x}"), "k" * 64, {})
        for name in ("north", "south") for y in range(3) for x in range(3)
    ]  # fmt: skip
    pool = ActorPool(cluster, Resources(1.0, 0.0, 100 << 20), 2, per_call=3, retries=3)
    try:
        found: list = []
        callers = [threading.Thread(target=pool.run, args=(work, jobs[i::3], found.append)) for i in range(3)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(timeout=60)
        assert sorted(r.unit for r in found) == sorted(job.unit for job in jobs)
        assert {r.outcome for r in found} == {"done"}
        again: list = []
        pool.run(work, jobs, again.append)
        assert {r.outcome for r in again} == {"skipped"}
        member = pool._members[0]
        environment = cluster.ray.get(member.handle.start.remote([]))
        text = Path(f"/proc/{environment}/environ").read_bytes().decode() if Path("/proc").is_dir() else None
        assert text is None or all(f"{name}=1" in text for name in THREADS)
    finally:
        pool.close()
    with pytest.raises(EngineError):
        pool.run(work, jobs, found.append)
    assert ReleaseStore.open(config.out)


def test_server_dies_with_its_parent(tmp_path):
    code = (
        "import os, signal\n"
        "from survey_ml.engine.server import PrefectServer\n"
        "server = PrefectServer(); server.launch(); print(server._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    environment.pop("PREFECT_API_URL", None)
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    pid = json.loads(said.stdout)
    end = time.monotonic() + 20
    while time.monotonic() < end and _runs(pid):
        time.sleep(0.1)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError) as caught:
        Cluster()
    assert "prefect and ray" in caught.value.message
    assert "survey-ml[ray]" in caught.value.hint
    assert "--engine local" in caught.value.hint


def test_address_that_does_not_answer(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    server = PrefectServer()
    assert not server.owned
    with pytest.raises(EngineError, match="does not answer"):
        server.wait(2)
