"""The prediction of `benchmarks.scale`: what is the bottleneck follows from the rates."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def scale(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import scale

    yield scale
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)


def test_the_slowest_part_counts_and_export_comes_after(scale):
    rates = scale.Rates(
        pixels=1e6, written=20.0, store=1e8, driver=1e-3, row=1e-5, fixed=9.0, look=1e-9, first=5.0
    )
    load = scale.Load(pixels=1e9, tiles=1000, sources=1e6)
    one, many = scale.predict(load, rates, 1), scale.predict(load, rates, 1000)
    assert one == pytest.approx({"workers": 1005, "store": 200, "driver": 1, "export": 20, "all": 1025})
    assert many["workers"] == pytest.approx(6) and many["all"] == pytest.approx(220)
    fast = scale.predict(load, replace(rates, store=1e12, driver=0.5), 1000)
    assert fast["all"] == pytest.approx(500 + 20)


def test_tiles_that_do_not_come_out_even_are_waited_for(scale):
    rates = scale.Rates(
        pixels=1e6, written=0.0, store=1.0, driver=0.0, row=0.0, fixed=0.0, look=0.0, first=0.0
    )
    load = scale.Load(pixels=5e6, tiles=5, sources=0.0)
    assert [scale.predict(load, rates, n)["all"] for n in (1, 2, 4, 5, 8)] == pytest.approx([5, 3, 2, 1, 1])
