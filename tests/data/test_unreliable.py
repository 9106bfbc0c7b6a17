"""What the proxy fails depends on its seed and on how many requests there were, not on their order."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from survey_ml.data.unreliable import Faults, UnreliableProxy


def count(order, seed):
    proxy = UnreliableProxy("http://127.0.0.1:9", Faults(0.05, 0.03, 0.02), seed)
    try:
        return Counter(kind for kind, _ in map(proxy.choose, order))
    finally:
        proxy._server.server_close()


@pytest.mark.parametrize("seed", [7, 8])
def test_as_many_writes_fail_in_any_order(seed):
    calls = ["PUT"] * 120 + ["GET"] * 400
    first = count(calls, seed)
    for shuffle in range(5):
        Random(shuffle).shuffle(calls)
        again = count(calls, seed)
        assert (again["applied"], again["refused"]) == (first["applied"], first["refused"])
    assert first["applied"] and first["refused"] and first["slow"]
    assert 10 <= first["refused"] <= 45
    assert set(count(["GET"] * 2000, seed)) == {"passed", "refused", "slow"}
