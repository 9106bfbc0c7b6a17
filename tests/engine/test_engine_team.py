"""Work that several processes do together, by Ray Train."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from survey_ml.engine.team import run_team
from survey_ml.errors import ConfigError, SurveyMLError


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Workers find this module."""
    path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", path)


def add_ranks(payload, say):
    import torch

    total = torch.tensor(float(torch.distributed.get_rank() + 1))
    torch.distributed.all_reduce(total)
    if torch.distributed.get_rank() == 0:
        for number in range(payload):
            say((number, float(total)))


def refuse(payload, say):
    raise SurveyMLError("the loss is nan", "try less")


def vanish(payload, say):
    os._exit(1)


@pytest.mark.slow
def test_workers_reach_each_other_and_are_heard_in_order():
    heard = []
    run_team(add_ranks, 3, heard.append, workers=2, gpus=False)
    assert heard == [(0, 3.0), (1, 3.0), (2, 3.0)]


@pytest.mark.slow
def test_what_fails_is_said():
    with pytest.raises(SurveyMLError, match="the loss is nan"):
        run_team(refuse, None, print, workers=2, gpus=False)
    with pytest.raises(SurveyMLError, match="a worker of the training was lost"):
        run_team(vanish, None, print, workers=2, gpus=False)
    with pytest.raises(ConfigError, match="workers need a GPU each"):
        run_team(add_ranks, 1, print, workers=2, gpus=True)

    def deaf(said):
        raise ValueError(said)

    with pytest.raises(ValueError, match="0"):
        run_team(add_ranks, 1, deaf, workers=1, gpus=False)
