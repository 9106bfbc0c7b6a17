"""What source extraction reads, writes and needs."""

from __future__ import annotations

from survey_ml.products import array, summary, table
from survey_ml.stage import Resources, Scope, StageSpec

SPEC = StageSpec(
    name="extraction",
    version="4",
    factory="survey_ml.stages.extraction.stage:Extraction",
    reads=(array("image"), summary("noise_model")),
    writes=(
        array("background"),
        array("rms"),
        array("residual"),
        array("model"),
        array("island_mask", "uint8", unit=""),
        table("components", "component"),
        table("sources", "source"),
        table("islands", "island"),
        table("inverted", "component"),
    ),
    scope=Scope.TILE,
    resources=Resources(cpus=1, memory=1 << 30),
    summary="Background, islands, Gaussian components and sources, with errors",
)
