"""What the shift monitor reads, writes and needs."""

from __future__ import annotations

from survey_ml.products import array, summary, table
from survey_ml.stage import Resources, Scope, StageSpec

SPEC = StageSpec(
    name="shift",
    factory="survey_ml.stages.shift.stage:ShiftMonitor",
    reads=(
        table("morphology", "source"),
        table("morphology_features"),
        summary("morphology_model"),
        # How images look is measured on what the model was shown, as the reference was.
        array("image"),
        table("sources", "source"),
        table("islands", "island"),
    ),
    writes=(
        table("shift"),
        summary("shift_verdict"),
        table("shift_objects"),
        table("shift_sources", "source"),
    ),
    scope=Scope.FIELD,
    version="3",
    resources=Resources(cpus=1, memory=3 << 29),
    summary="Whether the sources of a field are like what the model was made for, and how they differ",
)

RELEASE = StageSpec(
    name="shift_release",
    factory="survey_ml.stages.shift.release:ReleaseShift",
    reads=(table("shift_objects"), summary("shift_verdict")),
    writes=(summary("shift_release_verdict"),),
    scope=Scope.RELEASE,
    resources=Resources(cpus=1, memory=3 << 29),
    summary="Whether the sources of all fields together are like what the model was made for",
)
