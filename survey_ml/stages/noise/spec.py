"""What the noise stage reads, writes and needs."""

from __future__ import annotations

from survey_ml.products import array, summary
from survey_ml.stage import Resources, Scope, StageSpec

SPEC = StageSpec(
    name="noise",
    factory="survey_ml.stages.noise.stage:Noise",
    reads=(array("image"),),
    writes=(summary("noise_model"),),
    scope=Scope.FIELD,
    resources=Resources(cpus=1, memory=1 << 29),
    summary="Autocorrelation of the noise, from source-free patches all over the field",
)
