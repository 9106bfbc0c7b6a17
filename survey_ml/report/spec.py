"""The sections of the report that come with survey_ml, as light specifications."""

from __future__ import annotations

from survey_ml.hookspecs import PanelSpec

_HOME = "survey_ml.report.panels"

PANELS: tuple[PanelSpec, ...] = (
    PanelSpec("summary", f"{_HOME}.summary:show_summary", 100, summary="What was made, in figures"),
    PanelSpec("set_aside", f"{_HOME}.set_aside:show_set_aside", 150, summary="What was left out, and why"),
    PanelSpec("fields", f"{_HOME}.fields:show_fields", 200, summary="Fields with their sources"),
    PanelSpec("noise", f"{_HOME}.noise:show_noise", 300, summary="Maps of the rms noise and area by depth"),
    PanelSpec("distributions", f"{_HOME}.distributions:show_distributions", 400, summary="Flux and S/N"),
    PanelSpec("counts", f"{_HOME}.counts:show_counts", 500, summary="Euclidean-normalised source counts"),
    PanelSpec("truth", f"{_HOME}.truth:show_truth", 600, summary="Completeness and reliability"),
    PanelSpec("reference", f"{_HOME}.reference:show_reference", 700, summary="Astrometry and flux scale"),
    PanelSpec("gallery", f"{_HOME}.gallery:show_gallery", 800, summary="The brightest extended sources"),
    PanelSpec("morphology", f"{_HOME}.morphology:show_morphology", 820, summary="Classes of sources"),
    PanelSpec(
        "morphology_gallery",
        f"{_HOME}.morphology_gallery:show_morphology_gallery",
        830,
        summary="Most certain and most doubtful classes, with the model's attention",
    ),
    PanelSpec(
        "uncertainty",
        f"{_HOME}.uncertainty:show_uncertainty",
        840,
        summary="How far classes can be trusted: reliability, entropy, prediction sets",
    ),
    PanelSpec(
        "uncertainty_gallery",
        f"{_HOME}.morphology_gallery:show_uncertainty_gallery",
        850,
        summary="Sources whose class is most uncertain",
    ),
    PanelSpec(
        "shift",
        f"{_HOME}.shift:show_shift",
        860,
        summary="How far the sources of each field are from what the model was made for",
    ),
    PanelSpec(
        "shift_gallery",
        f"{_HOME}.morphology_gallery:show_shift_gallery",
        870,
        summary="Sources least like what the model was made for",
    ),
    PanelSpec("timings", f"{_HOME}.timings:show_timings", 900, summary="Tiles and time by stage"),
    PanelSpec("provenance", f"{_HOME}.provenance:show_provenance", 950, summary="Inputs, versions, citation"),
)
