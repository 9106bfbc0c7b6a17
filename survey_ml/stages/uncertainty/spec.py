"""What the estimator of uncertainties reads, writes and needs."""

from __future__ import annotations

from survey_ml.products import array, summary, table
from survey_ml.stage import Resources, Scope, StageSpec

SPEC = StageSpec(
    name="uncertainty",
    version="1",
    factory="survey_ml.stages.uncertainty.stage:Uncertainties",
    reads=(
        table("morphology", "source"),
        table("morphology_features"),
        summary("morphology_model"),
        # Looked at only for a model with a posterior over all its weights.
        array("image"),
        table("sources", "source"),
        table("islands", "island"),
    ),
    writes=(table("uncertainty", "source"), summary("uncertainty_model")),
    scope=Scope.SOURCE,
    resources=Resources(cpus=1, memory=3 << 29),
    summary="How far classes can be trusted: entropies, calibrated probabilities, prediction sets",
)
