"""What the driver keeps of each tile is small: 50 MB for 10,000 tiles."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from releases import CORE, make_config, write_fields

from survey_ml.engine.progress import QuietProgress
from survey_ml.engine.run import run_release

BYTES_A_TILE = 5_000


class Scales(QuietProgress):
    """Weighs what Python holds when a stage begins."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}

    def begin(self, stage, total):
        gc.collect()
        self.held[stage] = tracemalloc.get_traced_memory()[0]


def weigh(folder, registry, side):
    """Return by how much the driver grew over two stages of ``side`` x ``side`` tiles."""
    write_fields(folder, ("north",), (side * CORE, side * CORE))
    scales = Scales()
    config = make_config(folder, stages={"total": {}})
    result = run_release(config, registry=registry, assemble=False, progress=scales)
    assert result.exit_code == 0 and result.done == 2 * side**2 + 1
    return scales.held["total"] - scales.held["ingest"]


@pytest.mark.slow
def test_the_driver_keeps_little_of_each_tile(tmp_path, registry):
    tracemalloc.start(1)
    try:
        # What is imported and loaded on the way falls into the first one.
        weigh(tmp_path / "first", registry, 2)
        few, many = weigh(tmp_path / "few", registry, 4), weigh(tmp_path / "many", registry, 10)
    finally:
        tracemalloc.stop()
    assert (many - few) / (10**2 - 4**2) < BYTES_A_TILE
