"""From raw rows in pixels to the tables of components, sources and islands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from survey_ml.field import Field, Window
from survey_ml.stage import Table
from survey_ml.stages.extraction.deconvolution import Axes, limit_size, measure_axes
from survey_ml.stages.extraction.islands import Islands
from survey_ml.stages.extraction.measurement import Measured
from survey_ml.stages.extraction.projection import congruence, locate, measure_jacobians
from survey_ml.stages.extraction.settings import EDGE, POINT_MODEL
from survey_ml.stages.noise.beam import find_covariance

RESOLVED_SIGMA = 3.0
"""Significance from which a size or a total over peak counts as resolved."""

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Shapes:
    """Positions and shapes in pixels with their errors, one row a component or source.

    Parameters
    ----------
    x, y : (n,) float64
        In the field.
    position : (n, 3) float64
        Error covariance ``(xx, xy, yy)`` of the position, px^2.
    shape : (n, 3) float64
        Covariance matrix ``(xx, xy, yy)``, px^2.
    shape_error : (n, 3, 3) float64
        Its error covariance.
    point : (n,) bool
        The beam's shape was taken.
    excess : (n, 9) float64
        Of points: estimated departure from the beam and its error covariance; see
        `survey_ml.stages.extraction.covariance.measure_shape_excess`.
    """

    x: Reals
    y: Reals
    position: Reals
    shape: Reals
    shape_error: Reals
    point: NDArray[np.bool_]
    excess: Reals


def invert_precision(rows: Reals) -> tuple[Reals, Reals]:
    """Turn precision matrices ``(a, b, c)`` into covariance matrices ``(xx, xy, yy)``.

    Returns
    -------
    (n, 3) float64
    (n, 3, 3) float64
        Derivatives of these by ``(a, b, c)``.
    """
    a, b, c = rows.T
    det = a * c - b * b
    xx, xy, yy = c / det, -b / det, a / det
    slopes = -np.array(
        [
            [xx * xx, 2.0 * xx * xy, xy * xy],
            [xx * xy, xx * yy + xy * xy, xy * yy],
            [xy * xy, 2.0 * xy * yy, yy * yy],
        ]
    )
    return np.stack([xx, xy, yy], axis=1), np.moveaxis(slopes, -1, 0)


def describe_shapes(shapes: Shapes, field: Field, snr: Reals, ratio: Reals, ratio_err: Reals) -> Table:
    """Turn positions and shapes in pixels into the columns of sky position, size and angle.

    Parameters
    ----------
    snr : (n,) float64
        Peak over rms, for the size limit where the shape could not be tested.
    ratio, ratio_err : (n,) float64
        Logarithm of total over peak, and its standard error.
    """
    jacobians = measure_jacobians(field.sky, shapes.x, shapes.y)
    to_sky = congruence(jacobians)
    beam = find_covariance(field.beam)
    beam_row = np.array([beam[0, 0], beam[0, 1], beam[1, 1]])
    sky = locate(field.sky, shapes.x, shapes.y)
    error = np.einsum("nij,nj->ni", to_sky, shapes.position)
    on_sky = np.einsum("nij,nj->ni", to_sky, shapes.shape)
    on_sky[shapes.point] = beam_row
    spread = to_sky @ shapes.shape_error @ np.swapaxes(to_sky, 1, 2)
    spread[shapes.point] = 0.0
    fitted = measure_axes(on_sky, spread)
    alone = measure_axes(on_sky - beam_row, spread)
    widest, widest_err = _bound_points(shapes, to_sky, alone, beam_row, snr)
    with np.errstate(invalid="ignore"):
        by_size = alone.variance > RESOLVED_SIGMA * alone.variance_err
        by_flux = ratio > RESOLVED_SIGMA * ratio_err
    resolved = ~shapes.point & (alone.variance > 0.0) & (by_size | by_flux)
    shown = alone.major > 0.0
    return {
        "ra": sky[:, 0],
        "ra_err": np.sqrt(np.maximum(error[:, 0], 0.0)) / 3600.0,
        "dec": sky[:, 1],
        "dec_err": np.sqrt(np.maximum(error[:, 2], 0.0)) / 3600.0,
        "x": shapes.x,
        "y": shapes.y,
        "major": fitted.major,
        "major_err": fitted.major_err,
        "minor": fitted.minor,
        "minor_err": fitted.minor_err,
        "pa": fitted.pa,
        "pa_err": fitted.pa_err,
        "dc_major": np.where(shapes.point, 0.0, alone.major),
        "dc_major_err": np.where(shapes.point, 0.0, alone.major_err),
        "dc_minor": np.where(shapes.point, 0.0, alone.minor),
        "dc_minor_err": np.where(shapes.point, 0.0, alone.minor_err),
        "dc_pa": np.where(shown & ~shapes.point, alone.pa, np.nan),
        "dc_limit": limit_size(widest, widest_err),
        "resolved": resolved,
    }


def _bound_points(
    shapes: Shapes, to_sky: Reals, alone: Axes, beam_row: Reals, snr: Reals
) -> tuple[Reals, Reals]:
    """Variance along the major axis with the beam removed, and its error, also for points."""
    tested = np.zeros((len(snr), 3, 3))
    upper = np.triu_indices(3)
    tested[:, upper[0], upper[1]] = shapes.excess[:, 3:]
    tested[:, upper[1], upper[0]] = shapes.excess[:, 3:]
    known = shapes.point & np.isfinite(shapes.excess).all(axis=1)
    excess = np.einsum("nij,nj->ni", to_sky, np.where(known[:, None], shapes.excess[:, :3], 0.0))
    spread = to_sky @ np.where(known[:, None, None], tested, 0.0) @ np.swapaxes(to_sky, 1, 2)
    axes = measure_axes(excess, spread)
    # Untested points (too few pixels): the error of a width at this S/N in independent noise.
    guess = measure_axes(beam_row[None], np.zeros((1, 3, 3))).variance * np.sqrt(8.0) / np.maximum(snr, 1.0)
    variance = np.where(shapes.point, np.where(known, axes.variance, 0.0), alone.variance)
    error = np.where(shapes.point, np.where(known, axes.variance_err, guess), alone.variance_err)
    return variance, error


@dataclass(frozen=True)
class Maps:
    """What the tables read at a position: the window's maps and where it lies in the field."""

    background: NDArray[np.float32]
    rms: NDArray[np.float32]
    window: Window

    def sample(self, x: Reals, y: Reals, seeds: NDArray[np.int64]) -> tuple[Reals, Reals]:
        """Return rms and background at the pixels nearest to positions in the field.

        Where that pixel is blank or outside, at the starting pixel (n, 2) instead.
        """
        ny, nx = self.rms.shape
        corner = np.array([self.window.y0, self.window.x0])
        row, column = np.rint(y).astype(np.int64) - corner[0], np.rint(x).astype(np.int64) - corner[1]
        inside = (row >= 0) & (row < ny) & (column >= 0) & (column < nx)
        row, column = np.where(inside, row, 0), np.where(inside, column, 0)
        inside &= np.isfinite(self.rms[row, column])
        first = seeds - corner
        row, column = np.where(inside, row, first[:, 0]), np.where(inside, column, first[:, 1])
        return self.rms[row, column].astype(np.float64), self.background[row, column].astype(np.float64)


def build_tables(
    measured: Measured, islands: Islands, chosen: NDArray[np.int64], beams: Reals, maps: Maps, field: Field
) -> tuple[Table, Table, Table]:
    """Build the tables of components, sources and islands.

    Parameters
    ----------
    measured : Measured
        Of the chosen islands.
    islands : Islands
        All islands of the window.
    chosen : (i,) int64
        Which of them were measured, in the order of ``measured``.
    beams : (i, 3) float64
        Precision matrices of the beam at them.
    maps : Maps
        Background and rms of the window.
    field : Field

    Returns
    -------
    components, sources, islands : Table
        Columns as in ``columns.yaml``, numbers unique in the field.
    """
    width = field.shape[1]
    y0, x0 = maps.window.y0, maps.window.x0
    theta, covariance = measured.theta, measured.covariance
    beam = beams[measured.island]
    det_beam = beam[:, 0] * beam[:, 2] - beam[:, 1] ** 2
    det = theta[:, 3] * theta[:, 5] - theta[:, 4] ** 2
    area = np.sqrt(det_beam / det)
    shape, slopes = invert_precision(theta[:, 3:])
    # d ln(area) = -d ln(det) / 2; total = peak * area.
    steer = -0.5 * np.stack([theta[:, 5], -2.0 * theta[:, 4], theta[:, 3]], axis=1) / det[:, None]
    by_total = np.concatenate([1.0 / theta[:, :1], np.zeros((len(theta), 2)), steer], axis=1)
    relative = np.sqrt(np.maximum(np.einsum("ni,nij,nj->n", by_total, covariance, by_total), 0.0))
    log_error = np.sqrt(np.maximum(np.einsum("ni,nij,nj->n", steer, covariance[:, 3:, 3:], steer), 0.0))
    local_rms, background = maps.sample(theta[:, 1], theta[:, 2], measured.seeds)
    shapes = Shapes(
        x=theta[:, 1],
        y=theta[:, 2],
        position=covariance[:, [1, 1, 2], [1, 2, 2]],
        shape=shape,
        shape_error=slopes @ covariance[:, 3:, 3:] @ np.swapaxes(slopes, 1, 2),
        point=(measured.flags & POINT_MODEL) != 0,
        excess=measured.shapes,
    )
    snr = theta[:, 0] / local_rms
    number = measured.seeds[:, 0] * width + measured.seeds[:, 1]
    peaks = (islands.peak_y[chosen].astype(np.int64) + y0) * width + islands.peak_x[chosen] + x0
    brightest = _find_brightest(measured.source, theta[:, 0], number)
    components: dict[str, NDArray] = {
        "component_id": number,
        "source_id": number[brightest][measured.source],
        "island_id": peaks[measured.island],
        **describe_shapes(shapes, field, snr, np.log(area), log_error),
        "peak_flux": theta[:, 0],
        "peak_flux_err": np.sqrt(np.maximum(covariance[:, 0, 0], 0.0)),
        "total_flux": theta[:, 0] * area,
        "total_flux_err": np.abs(theta[:, 0] * area) * relative,
        "local_rms": local_rms,
        "background": background,
        "snr": snr,
        "flags": measured.flags.astype(np.int32),
    }
    sources = _merge_components(measured, components, shapes, brightest, beams, maps, field)
    return components, sources, _list_islands(measured, islands, chosen, beams, peaks, maps, field)


def _find_brightest(source: NDArray[np.int64], peak: Reals, number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of the brightest component of each source; ties go to the lowest number."""
    order = np.lexsort((number, -peak, source))
    first = np.ones(len(order), bool)
    first[1:] = source[order][1:] != source[order][:-1]
    return order[first]


def _merge_components(
    measured: Measured,
    components: Table,
    shapes: Shapes,
    brightest: NDArray[np.int64],
    beams: Reals,
    maps: Maps,
    field: Field,
) -> Table:
    """Sum components into sources: totals with joint errors, flux-weighted centre and moments."""
    moments = measured.source_moments
    source = measured.source
    n = len(moments)
    members = np.bincount(source, minlength=n)
    share = components["total_flux"] / moments[source, 0]
    arm = np.stack([measured.theta[:, 1], measured.theta[:, 2]], axis=1) - moments[source, 1:3]
    offset = np.stack([arm[:, 0] ** 2, arm[:, 0] * arm[:, 1], arm[:, 1] ** 2], axis=1)
    shape = np.zeros((n, 3))
    np.add.at(shape, source, share[:, None] * (shapes.shape + offset))
    # Each component changes the moments by its shape, its distance and its share of the flux.
    by_position = np.zeros((len(source), 3, 2))
    by_position[:, 0, 0], by_position[:, 2, 1] = 2.0 * arm[:, 0], 2.0 * arm[:, 1]
    by_position[:, 1, 0], by_position[:, 1, 1] = arm[:, 1], arm[:, 0]
    place = measured.covariance[:, 1:3, 1:3]
    spread = shapes.shape_error + by_position @ place @ np.swapaxes(by_position, 1, 2)
    spread *= share[:, None, None] ** 2
    change = (shapes.shape + offset - shape[source]) * (
        components["total_flux_err"] / np.abs(moments[source, 0])
    )[:, None]
    spread += change[:, :, None] * change[:, None, :]
    shape_error = np.zeros((n, 3, 3))
    np.add.at(shape_error, source, spread)
    single = members == 1
    excess = np.full((n, 9), np.nan)
    excess[single] = shapes.excess[brightest[single]]
    merged = Shapes(
        x=moments[:, 1],
        y=moments[:, 2],
        position=moments[:, 4:7],
        shape=shape,
        shape_error=shape_error,
        point=single & shapes.point[brightest],
        excess=excess,
    )
    peak, peak_err = components["peak_flux"][brightest], components["peak_flux_err"][brightest]
    total, total_err = moments[:, 0], np.sqrt(np.maximum(moments[:, 3], 0.0))
    local_rms, background = maps.sample(moments[:, 1], moments[:, 2], measured.seeds[brightest])
    log_error = np.hypot(total_err / np.abs(total), peak_err / np.abs(peak))
    log_ratio = np.log(np.maximum(total / peak, 1e-300))
    flags = np.zeros(n, np.int64)
    np.bitwise_or.at(flags, source, measured.flags & ~POINT_MODEL)
    flags[merged.point] |= POINT_MODEL
    described = dict(describe_shapes(merged, field, peak / local_rms, log_ratio, log_error))
    # A source of one component is that component: the same numbers in both tables.
    for name, values in described.items():
        described[name] = np.where(single, components[name][brightest], values)
    return {
        "source_id": components["source_id"][brightest],
        "island_id": components["island_id"][brightest],
        "n_components": members.astype(np.int32),
        **described,
        "peak_flux": peak,
        "peak_flux_err": peak_err,
        "total_flux": np.where(single, components["total_flux"][brightest], total),
        "total_flux_err": np.where(single, components["total_flux_err"][brightest], total_err),
        "local_rms": np.where(single, components["local_rms"][brightest], local_rms),
        "background": np.where(single, components["background"][brightest], background),
        "snr": peak / np.where(single, components["local_rms"][brightest], local_rms),
        "flags": flags.astype(np.int32),
    }


def _list_islands(
    measured: Measured,
    islands: Islands,
    chosen: NDArray[np.int64],
    beams: Reals,
    peaks: NDArray[np.int64],
    maps: Maps,
    field: Field,
) -> Table:
    """Table of the islands: sums over pixels and what was fitted."""
    sums = measured.island_sums
    y0, x0 = maps.window.y0, maps.window.x0
    # Sum over pixels to flux density: the beam's area in pixels is 2 pi / sqrt(det P).
    beam_area = 2.0 * np.pi / np.sqrt(beams[:, 0] * beams[:, 2] - beams[:, 1] ** 2)
    sky = locate(field.sky, sums[:, 1], sums[:, 2])
    boxes = islands.boxes[chosen].astype(np.int64)
    flags = np.zeros(len(chosen), np.int64)
    np.bitwise_or.at(flags, measured.island, measured.flags & ~POINT_MODEL)
    flags[islands.touches_blank[chosen]] |= EDGE
    rows, columns = islands.peak_y[chosen], islands.peak_x[chosen]
    return {
        "island_id": peaks,
        "ra": sky[:, 0],
        "dec": sky[:, 1],
        "peak_flux": islands.peak_snr[chosen].astype(np.float64) * maps.rms[rows, columns],
        "total_flux": sums[:, 0] / beam_area,
        "total_flux_err": np.sqrt(sums[:, 3]) / beam_area,
        "n_pixels": islands.n_pixels[chosen],
        "x_min": boxes[:, 2] + x0,
        "x_max": boxes[:, 3] - 1 + x0,
        "y_min": boxes[:, 0] + y0,
        "y_max": boxes[:, 1] - 1 + y0,
        "n_components": sums[:, 6].astype(np.int32),
        "residual_rms": sums[:, 5],
        "local_rms": sums[:, 4],
        "flags": flags.astype(np.int32),
    }
