"""What this distribution adds to survey_ml. Imported at every start: keep it light."""

from __future__ import annotations

from survey_ml.hookspecs import hookimpl
from survey_ml.products import Column, array, table
from survey_ml.stage import Resources, Scope, StageSpec

COLUMNS = (
    Column("source_id", "int64", "", "meta.id", "Number of the source in its field"),
    Column("total_to_peak", "float64", "", "phot.flux.density;arith.ratio", "Total over peak flux"),
    Column(
        "concentration",
        "float64",
        "",
        "phys.size;arith.ratio",
        "Light in the inner over the outer circle",
    ),
)

COMPACTNESS = StageSpec(
    name="compactness",
    factory="survey_ml_template.compactness:Compactness",
    reads=(array("image"), array("background", optional=True), table("sources", "source")),
    writes=(table("compactness", "source", columns=COLUMNS),),
    scope=Scope.SOURCE,
    resources=Resources(cpus=1, memory=1 << 28),
    version="1",
    summary="How compact each source is",
)


@hookimpl
def survey_ml_stages() -> list[StageSpec]:
    """Return the stages of this distribution."""
    return [COMPACTNESS]
