"""Broken plugins in a run: named and set aside, with nothing of the others lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kits import call, install, write_broken, write_kit

from survey_ml.conformance.release import write_fields

NEEDS_GPU = 'spec("good", resources=Resources(gpus=0.5, memory=1 << 28))'


def write_release(folder: Path, *stages: str, more: str = "") -> Path:
    write_fields(folder)
    path = folder / "release.yaml"
    named = "".join(f"  {stage}: {{}}\n" for stage in stages)
    path.write_text(
        f"name: r\nfields: ['*.fits']\ntiling: {{core_px: 128}}\nstages:\n{named}{more}out: out\n"
    )
    return path


def check_result(result: dict, *broken: str) -> None:
    """All units of the good stage are done; those of the others are set aside under their names."""
    done = {row["name"]: row["done"] for row in result["stages"]}
    assert done["good"] == 6
    assert {item["stage"] for item in result["set_aside"]} == set(broken)
    assert all(done[name] == 0 for name in broken)


@pytest.mark.slow
def test_the_local_engine_sets_broken_stages_aside_and_goes_on(tmp_path):
    roots = write_broken(tmp_path)
    path = install(list(roots.values()), tmp_path / "site")
    release = write_release(tmp_path, "good", "extra", "hangs", "leaves", more="engine: {unit_seconds: 1}\n")
    done = call(path, "run", release, "--engine", "local", "--json")
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    check_result(result, "extra", "hangs", "leaves")
    causes = {item["stage"]: item["cause"] for item in result["set_aside"]}
    assert "returned surprise, which it does not declare" in causes["extra"]
    assert "stage hangs was stopped after 1 s (at stages.py:" in causes["hangs"]
    assert "SystemExit: 3" in causes["leaves"]


@pytest.mark.slow
def test_what_cannot_be_registered_is_named_before_any_work(tmp_path):
    roots = write_broken(tmp_path)
    path = install([roots[name] for name in ("good", "import", "api", "misspelt")], tmp_path / "site")
    broken = {
        b["distribution"]: b["cause"] for b in json.loads(call(path, "plugins", "--json").stdout)["broken"]
    }
    assert set(broken) == {"kit-import", "kit-api", "kit-misspelt"}
    done = call(path, "run", write_release(tmp_path, "good", "newer"), "--engine", "local")
    assert done.returncode == 2
    assert "there is no stage newer; plugin kit-api is broken" in done.stderr
    done = call(path, "run", write_release(tmp_path, "good"), "--engine", "local", "--json")
    assert done.returncode == 0, done.stderr
    check_result(json.loads(done.stdout))


@pytest.mark.slow
def test_ray_sets_broken_stages_aside_and_goes_on(tmp_path):
    roots = write_broken(tmp_path)
    path = install(list(roots.values()), tmp_path / "site")
    release = write_release(
        tmp_path, "good", "extra", "hangs", "exits", more="engine: {unit_seconds: 1, workers: 1}\n"
    )
    done = call(path, "run", release, "--json")
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    check_result(result, "extra", "hangs", "exits")
    causes = {item["stage"]: item["cause"] for item in result["set_aside"]}
    assert "stage hangs was stopped after 1 s" in causes["hangs"]
    assert "its worker died 3 times" in causes["exits"]


@pytest.mark.slow
def test_a_stage_that_asks_for_a_gpu_runs_on_ray_only_where_there_is_one(tmp_path):
    from ray_process import ray_cluster

    path = install([write_kit(tmp_path, "kit-gpu", NEEDS_GPU)], tmp_path / "site")
    release = write_release(tmp_path, "good")
    with ray_cluster(gpus=0, PYTHONPATH=path) as attached:
        done = call(path, "run", release, **attached)
    assert done.returncode == 2
    assert "stage good: it needs 0.5 GPU a worker, the cluster has 0" in done.stderr
    assert "hint: run on a cluster with a GPU (RAY_ADDRESS names one), or with --engine local" in done.stderr
    assert not list((tmp_path / "out" / "units").glob("*/*/*/*/_COMMIT.json"))
    with ray_cluster(gpus=1, PYTHONPATH=path) as attached:
        done = call(path, "run", release, "--json", **attached)
    assert done.returncode == 0, done.stderr
    check_result(json.loads(done.stdout))
