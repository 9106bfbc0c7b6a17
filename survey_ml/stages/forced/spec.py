"""What forced photometry reads, writes and needs."""

from __future__ import annotations

from survey_ml.products import array, summary, table
from survey_ml.stage import Resources, Scope, StageSpec

SPEC = StageSpec(
    name="forced",
    factory="survey_ml.stages.forced.stage:Forced",
    reads=(array("image"), array("background"), array("rms"), summary("noise_model")),
    writes=(table("forced"),),
    scope=Scope.TILE,
    resources=Resources(cpus=1, memory=1 << 29),
    summary="Fluxes at the positions of a given catalogue",
)
