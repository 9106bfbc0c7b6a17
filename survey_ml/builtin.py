"""What survey_ml itself provides, through the same hooks as any plugin."""

from __future__ import annotations

from survey_ml.cli.spec import COMMANDS
from survey_ml.export.spec import EXPORTERS
from survey_ml.hookspecs import CommandSpec, ExporterSpec, ModelSpec, PanelSpec, ReaderSpec, hookimpl
from survey_ml.models.spec import MODELS
from survey_ml.products import array
from survey_ml.report.spec import PANELS
from survey_ml.stage import Resources, StageSpec
from survey_ml.stages.baseline.spec import SPEC as BASELINE
from survey_ml.stages.extraction.spec import SPEC as EXTRACTION
from survey_ml.stages.forced.spec import SPEC as FORCED
from survey_ml.stages.morphology.spec import SPEC as MORPHOLOGY
from survey_ml.stages.noise.spec import SPEC as NOISE
from survey_ml.stages.shift.spec import RELEASE as SHIFT_RELEASE
from survey_ml.stages.shift.spec import SPEC as SHIFT
from survey_ml.stages.uncertainty.spec import SPEC as UNCERTAINTY

INGEST = StageSpec(
    name="ingest",
    factory="survey_ml.data.ingest:ingest_tile",
    writes=(array("image"),),
    resources=Resources(cpus=1, memory=1 << 29),
    version="2",
    summary="Reads the input images into the store",
)
"""The one unit of work that is not a `Stage`: the engine calls its function with the source."""

STAGES = (INGEST, BASELINE, EXTRACTION, FORCED, MORPHOLOGY, NOISE, SHIFT, SHIFT_RELEASE, UNCERTAINTY)


@hookimpl
def survey_ml_stages() -> list[StageSpec]:
    """Return the built-in stages."""
    return list(STAGES)


@hookimpl
def survey_ml_readers() -> list[ReaderSpec]:
    """Return the FITS reader."""
    suffixes = (".fits", ".fits.fz", ".fits.gz", ".fit", ".fts", ".fz")
    return [
        ReaderSpec("fits", "survey_ml.data.fits:FitsReader", suffixes, summary="FITS images, 2 to 4 axes")
    ]


@hookimpl
def survey_ml_exporters() -> list[ExporterSpec]:
    """Return the built-in catalogue and map formats."""
    return list(EXPORTERS)


@hookimpl
def survey_ml_report_panels() -> list[PanelSpec]:
    """Return the built-in sections of the report."""
    return list(PANELS)


@hookimpl
def survey_ml_models() -> list[ModelSpec]:
    """Return the built-in models."""
    return list(MODELS)


@hookimpl
def survey_ml_commands() -> list[CommandSpec]:
    """Return the built-in commands."""
    return [CommandSpec(name, factory, summary=summary) for name, factory, summary in COMMANDS]
