"""What the trial plugin announces; only the commands of a self-test find it."""

from __future__ import annotations

from survey_ml.hookspecs import hookimpl
from survey_ml.products import Column, array, summary, table
from survey_ml.stage import Resources, Scope, StageSpec

NAME = "trial"
SPEC = StageSpec(
    name=NAME,
    factory="survey_ml.selftest.stage:Trial",
    reads=(array("image"), array("residual"), array("rms"), table("components", "component")),
    writes=(
        array("trial_signal", unit=""),
        table(
            "trial_shares",
            columns=(
                Column("peak_flux", "float64", "Jy/beam", "phot.flux.density", "Of the component"),
                Column(
                    "share", "float64", "", "arith.ratio", "Its part of the sum of all pixels of the tile"
                ),
            ),
        ),
        summary("trial_numbers"),
    ),
    scope=Scope.TILE,
    resources=Resources(cpus=1, memory=1 << 28),
    summary="Work for the self-test, and odd behaviour where that asks for it",
)


@hookimpl
def survey_ml_stages() -> list[StageSpec]:
    """Return the trial stage."""
    return [SPEC]
