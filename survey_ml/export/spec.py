"""The exporters that come with survey_ml, as light specifications."""

from __future__ import annotations

from survey_ml.hookspecs import ExporterSpec

EXPORTERS: tuple[ExporterSpec, ...] = (
    ExporterSpec("fits", "survey_ml.export.tables:export_fits", summary="FITS tables with units and UCDs"),
    ExporterSpec("votable", "survey_ml.export.votable:export_votable", summary="VOTable, binary2"),
    ExporterSpec(
        "parquet",
        "survey_ml.export.tables:export_parquet",
        summary="Parquet with astropy's and the VOParquet description in one footer",
    ),
    ExporterSpec(
        "regions",
        "survey_ml.export.regions:export_regions",
        summary="Ellipses for DS9 (.reg) and CARTA (.crtf)",
    ),
    ExporterSpec("moc", "survey_ml.export.moc:export_moc", summary="MOC of the valid pixels"),
    ExporterSpec(
        "maps",
        "survey_ml.export.maps:export_maps",
        summary="Array products as FITS images; runs when export.maps names any",
    ),
)
