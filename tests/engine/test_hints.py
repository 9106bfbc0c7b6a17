"""What errors of the engine tell to do, without a Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from survey_ml.engine.cluster import Cluster, EngineError
from survey_ml.engine.executor import RayExecutor
from survey_ml.stage import Resources, StageSpec


def test_a_stage_without_its_gpu_is_named_once_and_the_local_engine_too():
    nothing = SimpleNamespace(resources=lambda: {"CPU": 2.0})
    executor = RayExecutor(nothing, workers=None, memory=1 << 30, per_call=1, retries=1)
    executor.require(StageSpec("plain", "a:B"))
    with pytest.raises(EngineError) as caught:
        executor.require(StageSpec("seer", "a:B", resources=Resources(gpus=0.5)))
    first, _, hint = str(caught.value).partition("\n")
    assert first == "stage seer: it needs 0.5 GPU a worker, the cluster has 0"
    assert "--engine local" in hint


@pytest.mark.parametrize(
    ("address", "error", "said", "hint"),
    [
        (
            "",
            Exception("no answer"),
            "on this machine does not start: no answer",
            "run the same command again",
        ),
        ("local", OSError("full"), "on this machine does not start: OSError: full", "may be too busy"),
        ("far:1", ConnectionError("gone"), "at far:1 does not start: ConnectionError: gone", "RAY_ADDRESS"),
    ],
)
def test_a_ray_that_does_not_start_says_what_to_do(monkeypatch, tmp_path, address, error, said, hint):
    def fail(**options):
        raise error

    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("survey_ml.engine.cluster._sweep", lambda: None)
    monkeypatch.setattr("survey_ml.engine.cluster._short_folder", lambda: str(tmp_path))
    fake = SimpleNamespace(is_initialized=lambda: False, init=fail)
    monkeypatch.setattr("survey_ml.engine.cluster._import_ray", lambda: fake)
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.95")
    with pytest.raises(EngineError) as caught:
        Cluster().start()
    assert caught.value.message == f"Ray {said}"
    assert hint in caught.value.hint
    assert ("RAY_ADDRESS" in caught.value.hint) == (address == "far:1")
    assert not list(tmp_path.iterdir())
