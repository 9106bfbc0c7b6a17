"""The extraction stage: one tile's maps, islands, components and sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, log, pi, sqrt
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from survey_ml.columns import part_columns
from survey_ml.errors import InputError, WindowTooSmallError
from survey_ml.field import Beam, Field, Tile
from survey_ml.stage import Inputs, Options, Stage, Table
from survey_ml.stages.extraction.background import Mesh, choose_mesh, measure_background, support_radius
from survey_ml.stages.extraction.clearance import find_exact, holds_core, shows_enough
from survey_ml.stages.extraction.components import Maps, build_tables
from survey_ml.stages.extraction.islands import find_islands
from survey_ml.stages.extraction.measurement import measure
from survey_ml.stages.extraction.model import finish_maps, render_components
from survey_ml.stages.extraction.options import ExtractionOptions, make_settings, measure_fwhm
from survey_ml.stages.extraction.projection import beam_precision, measure_jacobians

PAD_BEAMS = 2.5
"""How far beyond its island, in beam FWHM, a component may be fitted and shown in the model."""

SLACK_BEAMS = 8.0
"""Room for islands between the core and the part of a halo where maps are inexact, in FWHM."""

MODEL_SIGMA = 5.0
"""How far out the model image shows a component."""


@dataclass(frozen=True)
class Geometry:
    """Lengths in pixels that follow from a field and the options."""

    mesh: Mesh
    beam: NDArray[np.float64]
    """Precision matrix ``(a, b, c)`` at the field's centre."""
    fwhm: float
    pad: int
    margin: int
    """Distance from a side that cuts the field within which a measurement may be inexact."""

    @property
    def halo(self) -> int:
        """Least halo: the margin, and room for islands that touch the core."""
        return self.margin + self.pad + ceil(SLACK_BEAMS * self.fwhm)


def shape_points(field: Field, options: ExtractionOptions) -> Field:
    """Return the field with the shape of a point source for its beam."""
    if options.point_arcsec is None:
        return field
    return replace(field, beam=Beam(*options.point_arcsec))


def find_geometry(field: Field, options: ExtractionOptions) -> Geometry:
    """Work out the mesh and the distances that an exact measurement needs.

    Raises
    ------
    InputError
        When the WCS gives no scale at the field's centre.
    """
    middle = np.array([0.5 * (field.shape[1] - 1)]), np.array([0.5 * (field.shape[0] - 1)])
    beam = beam_precision(field.beam, measure_jacobians(field.sky, *middle))[0]
    if not np.isfinite(beam).all():
        raise InputError(
            "the WCS gives no position at the centre of the image",
            "check CTYPE, CRVAL and CDELT",
            field=field.name,
            stage="extraction",
        )
    fwhm = measure_fwhm(beam)
    mesh = choose_mesh(sqrt(field.beam_area * 4.0 * log(2.0) / pi), field.shape)
    if options.mesh_step_px is not None or options.mesh_box_px is not None:
        mesh = _adapt_mesh(mesh, options)
    pad = ceil(PAD_BEAMS * fwhm)
    return Geometry(mesh, beam, fwhm, pad, support_radius(mesh.step, mesh.box) + pad + 1)


def _adapt_mesh(mesh: Mesh, options: ExtractionOptions) -> Mesh:
    """Put the asked step and box in place of the automatic ones, rounded to what a mesh can be."""
    step = options.mesh_step_px or mesh.step
    stride = min(mesh.stride, max(1, step // 6))
    step = max(6, round(step / stride)) * stride
    box = options.mesh_box_px or 5 * step
    return Mesh(step, (2 * round((box / step - 1.0) / 2.0) + 1) * step, stride, min(mesh.grow, step))


class Extraction(Stage):
    """Find and measure sources: background, islands, Gaussian components, sources."""

    options_type: ClassVar[type[Options]] = ExtractionOptions

    def halo(self, field: Field) -> int:
        """Return how far around the core background, fits and small islands reach."""
        options = cast(ExtractionOptions, self.options)
        return find_geometry(shape_points(field, options), options).halo

    def run(self, inputs: Inputs) -> Mapping[str, Any]:
        """Measure the islands of one tile.

        Parameters
        ----------
        inputs : Inputs
            ``image`` (the window) and ``noise_model``.

        Returns
        -------
        mapping
            ``background``, ``rms``, ``residual``, ``model`` and ``island_mask`` of the core, and
            the tables ``components``, ``sources``, ``islands`` and ``inverted``.

        Raises
        ------
        WindowTooSmallError
            When an island that touches the core comes near a side where the window cuts the field.
        """
        options = cast(ExtractionOptions, self.options)
        field, tile = inputs.field, inputs.tile
        if field is None or tile is None:
            raise ValueError("extraction works on one tile")
        image = np.ascontiguousarray(inputs.arrays["image"], dtype=np.float32)
        acf = np.asarray(inputs.summaries["noise_model"]["acf"], dtype=np.float64)
        products = extract(image, field, tile, acf, options)
        inverted: Table = {
            c.name: np.empty(0, "O" if c.dtype == "string" else c.dtype) for c in part_columns("inverted")
        }
        if options.inverted:
            inverted = extract(-image, field, tile, acf, options)["components"]
        return {**products, "inverted": inverted}


def extract(
    image: NDArray[np.float32],
    field: Field,
    tile: Tile,
    acf: NDArray[np.float64],
    options: ExtractionOptions,
) -> dict[str, Any]:
    """Measure background, islands and sources of one tile.

    Parameters
    ----------
    image : (ny, nx) float32
        The tile's window; NaN where there is no data.
    field : Field
    tile : Tile
    acf : (2 k + 1, 2 k + 1) float64
        Noise autocorrelation of the field.
    options : ExtractionOptions

    Returns
    -------
    dict
        As `Extraction.run`, without ``inverted``.

    Raises
    ------
    WindowTooSmallError
        As `Extraction.run`.
    """
    window, core = tile.window, tile.core
    unit_area = field.beam.solid_angle
    field = shape_points(field, options)
    geometry = find_geometry(field, options)
    # Maps are exact, and made, only so far from where the window cuts the field.
    shown = find_exact(window, field.shape, geometry.margin - geometry.pad - 1)
    enough = holds_core(tile, field.shape, geometry.margin, geometry.pad)
    if enough:
        part = shown.inside(window)
        background, rms = measure_background(
            image, origin=(window.y0, window.x0), part=part, **geometry.mesh._asdict()
        )
        image = np.ascontiguousarray(image[part])
        enough = shows_enough(
            image, background, rms, window=shown, core=core, shape=field.shape,
            flood_snr=options.flood_snr, margin=geometry.pad + 1, pad=geometry.pad,
        )  # fmt: skip
    if not enough:
        held = max(core.y0 - window.y0, window.y1 - core.y1, core.x0 - window.x0, window.x1 - core.x1)
        raise WindowTooSmallError(max(geometry.halo, 2 * held))
    labels, islands = find_islands(
        image, background, rms, seed_snr=options.seed_snr, flood_snr=options.flood_snr
    )
    rows, columns = core.inside(shown)
    boxes, pad = islands.boxes.astype(np.int64), geometry.pad
    chosen = np.flatnonzero(
        (boxes[:, 0] - pad < rows.stop)
        & (boxes[:, 1] + pad > rows.start)
        & (boxes[:, 2] - pad < columns.stop)
        & (boxes[:, 3] + pad > columns.start)
    )
    peak_x = islands.peak_x[chosen].astype(np.float64) + shown.x0
    peak_y = islands.peak_y[chosen].astype(np.float64) + shown.y0
    beams = beam_precision(field.beam, measure_jacobians(field.sky, peak_x, peak_y))
    measured = measure(
        image, background, rms, labels, boxes[chosen], chosen + 1, beams, acf, pad,
        (shown.y0, shown.x0), make_settings(options, geometry.beam, acf),
    )  # fmt: skip
    model = np.zeros(core.shape, np.float32)
    rendered = measured.rendered
    corner = np.array([shown.y0 - pad, shown.y0 + pad, shown.x0 - pad, shown.x0 + pad])
    reach = boxes[chosen][measured.island[rendered]] + corner
    render_components(model, measured.theta[rendered], reach, MODEL_SIGMA, (core.y0, core.x0))
    maps = Maps(background, rms, shown)
    tables = build_tables(measured, islands, chosen, beams, maps, field)
    owned = (
        (islands.peak_y[chosen] >= rows.start)
        & (islands.peak_y[chosen] < rows.stop)
        & (islands.peak_x[chosen] >= columns.start)
        & (islands.peak_x[chosen] < columns.stop)
    )
    of_source = np.zeros(len(measured.source_moments), np.int64)
    of_source[measured.source] = measured.island
    keeps = (owned[measured.island], owned[of_source], owned)
    components, sources, listed = (
        {name: values[keep] for name, values in table.items()}
        for table, keep in zip(tables, keeps, strict=True)
    )
    # Totals are in areas of a point source so far; Jy/beam counts areas of the beam.
    for table in (components, sources, listed):
        for name in ("total_flux", "total_flux_err"):
            table[name] = table[name] * (field.beam.solid_angle / unit_area)
    residual, mask = finish_maps(
        image[rows, columns], background[rows, columns], labels[rows, columns], model
    )
    return {
        "background": background[rows, columns],
        "rms": rms[rows, columns],
        "model": model,
        "residual": residual,
        "island_mask": mask,
        "components": components,
        "sources": sources,
        "islands": listed,
    }
