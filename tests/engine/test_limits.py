"""The time that a unit may take, from inside the worker and from outside."""

from __future__ import annotations

import time

import pytest

from survey_ml.engine.limit import time_limit, worker_limit
from survey_ml.errors import PluginError


def test_a_worker_is_ended_only_after_its_unit_could_have_been():
    assert worker_limit(None) is None
    assert worker_limit(10.0) > 2 * 10.0


def test_what_takes_too_long_is_interrupted_and_named():
    start = time.monotonic()
    with (
        pytest.raises(PluginError, match=r"stage slow was stopped after 0.2 s \(at test_limits.py:"),
        time_limit(0.2, "slow"),
    ):
        time.sleep(20)
    assert time.monotonic() - start < 10


def test_what_is_in_time_is_left_alone():
    with time_limit(5.0, "quick"):
        pass
    with time_limit(None, "any"):
        pass
