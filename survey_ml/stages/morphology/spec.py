"""What the classifier of morphology reads, writes and needs."""

from __future__ import annotations

from survey_ml.products import array, summary, table
from survey_ml.stage import Resources, Scope, StageSpec

SPEC = StageSpec(
    name="morphology",
    version="3",
    factory="survey_ml.stages.morphology.stage:Morphology",
    reads=(array("image"), table("sources", "source"), table("islands", "island")),
    writes=(table("morphology", "source"), table("morphology_features"), summary("morphology_model")),
    scope=Scope.SOURCE,
    resources=Resources(cpus=1, memory=3 << 29),
    summary="Classes of sources by their shape, with probabilities, by a trained model",
)
