"""Positions and fluxes against a reference catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from survey_ml.data.catalogues import read_catalogue
from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw, join, make_table, render
from survey_ml.report.style import BLUE, GREY, RED, format_value, label_plainly, make_figure
from survey_ml.validation.astrometry import ReferenceComparison, compare_with_reference

_COMPARED = ("components", "sources", "peaks")


def show_reference(context: Context) -> Panel | None:
    """Return offsets and flux ratios of detections that the reference catalogue has too."""
    table = next((name for name in _COMPARED if name in context.tables), "")
    path = context.config.reference_catalogue
    if path is None or not table:
        return None
    reference = read_catalogue(path, context.base, ("ra", "dec", "peak_flux"))
    radius = max(context.release.field(name).info.beam.major for name in context.release.fields)
    best = context.best_of(table)
    ours = {c: context.column(table, c)[best] for c in ("ra", "dec", "peak_flux", "snr")}
    pairs = compare_with_reference(ours, reference, radius=radius)
    intro = render(
        "<p>{{ k }} of {{ n }} {{ table }} have a counterpart within {{ radius }} arcsec in "
        "<code>{{ path }}</code> ({{ m }} rows), matched one to one.</p>",
        k=len(pairs.first),
        n=int(best.sum()),
        table=table,
        radius=f"{radius:.3g}",
        path=Path(path).name,
        m=len(reference["ra"]),
    )
    if not len(pairs.first):
        return Panel("Reference catalogue", intro)
    snr = ours["snr"][pairs.first]
    return Panel("Reference catalogue", join([intro, _draw(pairs, snr, radius), _tabulate(pairs, snr)]))


def _spread(values: NDArray[np.float64]) -> float:
    """Return the robust standard deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _draw(pairs: ReferenceComparison, snr: NDArray[np.float64], radius: float) -> Markup:
    east, north, ratio = pairs.offset_east, pairs.offset_north, pairs.flux_ratio
    figure, (left, right) = make_figure(1, 2, height=4.2)
    dot = 3 if len(east) > 300 else 6
    left.plot(east, north, ".", ms=dot, alpha=0.5, color=BLUE, mew=0)
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
    right.plot(snr[good], ratio[good], ".", ms=dot, alpha=0.5, color=BLUE, mew=0)
    right.axhline(1, color=GREY, lw=0.8)
    if good.any():
        median = float(np.median(ratio[good]))
        right.axhline(median, color=RED, lw=1.2, label=f"Median {median:.3f}")
        right.legend(loc="upper right")
    right.set(xscale="log", yscale="log", xlabel="Peak over local rms", ylabel="Peak over reference peak")
    right.set_title("Flux scale")
    label_plainly(right.xaxis)
    label_plainly(right.yaxis)
    return draw(
        figure,
        "Position offsets and flux ratios against the reference catalogue",
        "Orange: median, with bars of one robust standard deviation. Different epochs, beams and "
        "frequencies move the flux ratio.",
    )


def _tabulate(pairs: ReferenceComparison, snr: NDArray[np.float64]) -> Markup:
    rows = []
    for label, keep in (("All", snr > 0), ("S/N above 20", snr > 20), ("S/N above 100", snr > 100)):
        good = keep & np.isfinite(pairs.flux_ratio)
        if good.any():
            east, north = pairs.offset_east[good], pairs.offset_north[good]
            rows.append(
                (
                    label,
                    format_value(int(good.sum())),
                    f"{np.median(east):+.3f}",
                    f"{_spread(east):.3f}",
                    f"{np.median(north):+.3f}",
                    f"{_spread(north):.3f}",
                    f"{np.median(pairs.flux_ratio[good]):.3f}",
                )
            )
    header = (
        "Sample",
        "Pairs",
        "East median (arcsec)",
        "Scatter",
        "North median (arcsec)",
        "Scatter",
        "Peak ratio",
    )
    return make_table(header, rows, numeric=range(1, 7))
