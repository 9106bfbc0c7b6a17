"""Positions and fluxes against a reference catalogue."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.report.comparison import match_nearest, measure_offsets, read_catalogue
from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw, join, make_table, render
from survey_ml.report.style import BLUE, GREY, RED, format_value, make_figure

_COMPARED = ("components", "sources", "peaks")


def show_reference(context: Context) -> Panel | None:
    """Return offsets and flux ratios of detections that the reference catalogue has too."""
    if context.config.reference_catalogue is None:
        return None
    table = next((name for name in _COMPARED if name in context.tables), "")
    if not table:
        return None
    path = context.config.reference_catalogue
    reference = read_catalogue(path, context.base, ("ra", "dec", "peak_flux"))
    beams = [context.release.field(name).info.beam.major for name in context.release.fields]
    radius = float(max(beams))
    flags = context.column(table, "flags")
    best = (flags.astype(int) & 512) == 0 if len(flags) else np.ones(len(context.column(table, "ra")), bool)
    ours = {c: context.column(table, c)[best] for c in ("ra", "dec", "peak_flux", "snr")}
    one, two = match_nearest(ours["ra"], ours["dec"], reference["ra"], reference["dec"], radius)
    intro = render(
        "<p>{{ k }} of {{ n }} {{ table }} have a counterpart within {{ radius }} arcsec in "
        "<code>{{ path }}</code> ({{ m }} rows), nearest to each other.</p>",
        k=len(one),
        n=int(best.sum()),
        table=table,
        radius=f"{radius:.3g}",
        path=path,
        m=len(reference["ra"]),
    )
    if not len(one):
        return Panel("Reference catalogue", intro)
    east, north = measure_offsets(
        ours["ra"][one], ours["dec"][one], reference["ra"][two], reference["dec"][two]
    )
    ratio = ours["peak_flux"][one] / reference["peak_flux"][two]
    body = _draw(east, north, ratio, ours["snr"][one], radius)
    return Panel("Reference catalogue", join([intro, body, _tabulate(east, north, ratio, ours["snr"][one])]))


def _spread(values: NDArray[Any]) -> float:
    """Return the robust standard deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _draw(
    east: NDArray[Any], north: NDArray[Any], ratio: NDArray[Any], snr: NDArray[Any], radius: float
) -> Any:
    figure, (left, right) = make_figure(1, 2, height=4.2)
    left.plot(east, north, ".", ms=3, alpha=0.5, color=BLUE, mew=0)
    left.axhline(0, color=GREY, lw=0.8)
    left.axvline(0, color=GREY, lw=0.8)
    middle = float(np.median(east)), float(np.median(north))
    left.errorbar(*middle, xerr=_spread(east), yerr=_spread(north), fmt="o", color=RED, ms=5, label="Median")
    side = min(radius, 1.15 * float(np.percentile(np.abs(np.concatenate([east, north])), 99.5)) + 1e-6)
    left.set(xlim=(side, -side), ylim=(-side, side), aspect="equal")
    left.set(xlabel="East offset (arcsec)", ylabel="North offset (arcsec)")
    left.set_title("Position: this release less the reference")
    left.legend(loc="upper right")
    good = np.isfinite(ratio) & (ratio > 0)
    right.plot(snr[good], ratio[good], ".", ms=3, alpha=0.5, color=BLUE, mew=0)
    right.axhline(1, color=GREY, lw=0.8)
    middle_ratio = float(np.median(ratio[good])) if good.any() else float("nan")
    right.axhline(middle_ratio, color=RED, lw=1.2, label=f"Median {middle_ratio:.3f}")
    right.set(xscale="log", yscale="log", xlabel="Peak over local rms", ylabel="Peak over reference peak")
    right.set_title("Flux scale")
    right.legend(loc="upper right")
    return draw(
        figure,
        "Position offsets and flux ratios against the reference catalogue",
        "Red: median, with bars of one robust standard deviation. Different epochs, beams and "
        "frequencies move the flux ratio.",
    )


def _tabulate(east: NDArray[Any], north: NDArray[Any], ratio: NDArray[Any], snr: NDArray[Any]) -> Any:
    rows = []
    for label, keep in (("All", snr > 0), ("S/N above 20", snr > 20), ("S/N above 100", snr > 100)):
        good = keep & np.isfinite(ratio)
        if good.any():
            values = [f"{f(v[good]):+.3f}" for v in (east, north) for f in (np.median, _spread)]
            rows.append((label, format_value(int(good.sum())), *values, f"{np.median(ratio[good]):.3f}"))
    header = (
        "Sample",
        "Pairs",
        "East median (arcsec)",
        "East scatter",
        "North median (arcsec)",
        "North scatter",
        "Peak ratio",
    )
    return make_table(header, rows, numeric=range(1, 7))
