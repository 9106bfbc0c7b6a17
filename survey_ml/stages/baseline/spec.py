"""What the baseline finder reads, writes and needs."""

from __future__ import annotations

from survey_ml.products import array, table
from survey_ml.stage import Resources, Scope, StageSpec

SPEC = StageSpec(
    name="baseline",
    factory="survey_ml.stages.baseline.stage:Baseline",
    reads=(array("image"),),
    writes=(table("peaks"),),
    scope=Scope.TILE,
    resources=Resources(cpus=1, memory=1 << 29),
    summary="Local maxima above a threshold: the simplest finder, to compare with",
)
