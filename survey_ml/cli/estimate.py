"""What a run will take: pixels, tiles, disk, memory and time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from survey_ml.products import Kind
from survey_ml.stage import Scope

if TYPE_CHECKING:
    from survey_ml.config import LoadedConfig
    from survey_ml.field import Field
    from survey_ml.graph import Graph

PIXELS_A_SECOND = 2.0e6
"""Of one core, all stages of the default graph together; a run's own timings replace it."""
START_SECONDS = {"local": 2.0, "ray": 20.0}
"""Starting the engine: measured 7 to 16 s for the local Prefect API and 4 s for Ray."""
UNIT_SECONDS = 0.03
"""Of one unit of work beside the science: reading, commit, scheduling."""
ITEM_BYTES = {"uint8": 1, "int8": 1, "bool": 1, "float64": 8, "int64": 8, "uint16": 2, "int16": 2}
BASE_BYTES = 400_000_000
"""Of the engine itself with no work in flight."""


class Cost(TypedDict):
    """An estimate; sizes in bytes, times in seconds of wall clock."""

    megapixels: float
    tiles: int
    units: int
    disk: float
    memory: float
    workers: int
    seconds: float
    basis: str


def estimate_cost(config: LoadedConfig, graph: Graph, fields: Sequence[Field]) -> Cost:
    """Estimate what a whole run takes, from the headers alone.

    Memory is what the stages declare for each worker; time is from measured rates of one core, and
    is right within a factor of a few.
    """
    core = config.release.tiling.core_px
    pixels = float(sum(field.shape[0] * field.shape[1] for field in fields))
    tiles = sum(-(-field.shape[0] // core) * -(-field.shape[1] // core) for field in fields)
    units = sum(_count_units(spec.scope, tiles, len(fields)) for spec in graph.order)
    kind = config.release.engine.kind
    workers = 1 if kind == "local" else config.release.engine.workers or os.cpu_count() or 1
    workers = max(1, min(workers, tiles))
    per_pixel = sum(
        ITEM_BYTES.get(product.dtype, 4)
        for spec in graph.order
        for product in spec.writes
        if product.kind is Kind.ARRAY
    )
    memory = BASE_BYTES + workers * max(spec.resources.memory for spec in graph.order)
    work = pixels / PIXELS_A_SECOND + units * UNIT_SECONDS
    return Cost(
        megapixels=pixels / 1e6,
        tiles=tiles,
        units=units,
        disk=pixels * per_pixel,
        memory=float(memory),
        workers=workers,
        seconds=START_SECONDS[kind] + work / workers,
        basis=f"estimated with {PIXELS_A_SECOND / 1e6:g} Mpx a second and core",
    )


def _count_units(scope: Scope, tiles: int, fields: int) -> int:
    if scope in (Scope.TILE, Scope.SOURCE):
        return tiles
    return fields if scope is Scope.FIELD else 1
