"""Histograms of flux and signal-to-noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw
from survey_ml.report.style import BLUE, GREY, ORANGE, label_plainly, make_figure


def show_distributions(context: Context) -> Panel | None:
    """Return histograms of peak and total flux and of S/N, and total over peak flux against S/N."""
    table = context.main_table
    best = context.is_best
    if not best.any() or not len(context.column(table, "peak_flux")):
        return None
    peak, snr = (context.column(table, name)[best] for name in ("peak_flux", "snr"))
    total = context.column(table, "total_flux")
    total = total[best] if len(total) else total
    has_total = len(total) > 0
    figure, axes = make_figure(1, 3 if has_total else 2, height=3.3)
    fluxes = [("Peak (mJy/beam)" if has_total else "Peak", peak, BLUE)]
    if has_total:
        fluxes.append(("Total (mJy)", total, ORANGE))
    bins = _log_bins(np.concatenate([values for _, values, _ in fluxes]) * 1e3)
    for label, values, color in fluxes:
        axes[0].hist(values * 1e3, bins=bins, histtype="step", color=color, lw=1.6, label=label)
    axes[0].set(xscale="log", yscale="log", xlabel="Flux density (mJy, mJy/beam)", ylabel=table.capitalize())
    # Room above the lines for the legend.
    axes[0].set_ylim(top=4.0 * axes[0].get_ylim()[1])
    axes[0].legend(loc="upper right")
    axes[0].set_title("Flux density")
    axes[1].hist(snr, bins=_log_bins(snr), color=BLUE, edgecolor="white", lw=0.4)
    axes[1].axvline(context.seed_snr, color=GREY, ls="--", lw=1)
    axes[1].set(xscale="log", yscale="log", xlabel="Peak over local rms", ylabel=table.capitalize())
    axes[1].set_title("Signal-to-noise")
    if has_total:
        ratio = total / peak
        axes[2].plot(snr, ratio, ".", ms=3 if len(snr) > 300 else 6, alpha=0.45, color=BLUE, mew=0)
        axes[2].axhline(1.0, color=GREY, ls="--", lw=1)
        axes[2].set(xscale="log", yscale="log", xlabel="Peak over local rms", ylabel="Total over peak (beam)")
        axes[2].set_title("Compactness")
    for axis in axes:
        label_plainly(axis.xaxis)
        label_plainly(axis.yaxis)
    caption = (
        f"{int(best.sum())} {table}; duplicates in overlapping fields are left out. "
        f"The dashed line in the middle is the detection threshold of {context.seed_snr:g}."
    )
    if has_total:
        caption += (
            " Right: sources that are fitted as points lie on 1 exactly; those with a shape of their own "
            "scatter, and extended ones lie above."
        )
    return Panel("Flux and signal-to-noise", draw(figure, "Histograms of flux density and S/N", caption))


def _log_bins(values: NDArray[Any], most: int = 40) -> list[float]:
    good = values[np.isfinite(values) & (values > 0)]
    if not len(good):
        return list(np.geomspace(0.1, 10.0, 10))
    low, high = float(good.min()), float(good.max())
    n = min(most, max(8, int(np.sqrt(len(good)))))
    return list(np.geomspace(low * 0.999, max(high, low * 1.1) * 1.001, n + 1))
