"""Euclidean-normalised source counts, corrected for the area in which each flux is detectable."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw, join, make_table
from survey_ml.report.style import BLUE, GREY, ORANGE, format_value, label_plainly, make_figure

# Hopkins et al. (2003, AJ 125, 465): log10(S^2.5 dN/dS [Jy^1.5/sr]) against log10(S/mJy), 1.4 GHz.
_HOPKINS = (0.859, 0.508, 0.376, -0.049, -0.121, 0.057, -0.008)
_HOPKINS_HZ = 1.4e9
_INDEX = -0.7
"""Spectral index that takes the 1.4 GHz counts to another frequency."""
_LEAST = 10
"""Sources below which there is no panel."""
_BINS_A_DECADE = 5


def show_counts(context: Context) -> Panel | None:
    """Return the differential counts, with the 1.4 GHz counts of Hopkins et al. (2003) beside them."""
    peak = context.column("sources", "peak_flux")
    total = context.column("sources", "total_flux")
    noise = context.noise
    if len(total) < _LEAST or not len(noise.rms):
        return None
    # Duplicates stay: the area of an overlap is counted twice as well.
    area = find_area(peak, context.seed_snr, noise.rms, noise.area)
    edges = choose_edges(total)
    count, value, error = count_sources(total, area, edges)
    middle = np.sqrt(edges[1:] * edges[:-1])
    shown = count > 0
    figure, (left, right) = make_figure(1, 2, height=3.6)
    left.errorbar(
        middle[shown] * 1e3,
        value[shown],
        # A bar that reaches zero has no end on a logarithmic axis.
        yerr=np.stack([np.minimum(error, 0.9 * value), error])[:, shown],
        fmt="o",
        ms=4,
        color=BLUE,
        capsize=0,
        label="This release",
    )
    raw, _, _ = _normalise(total, np.full(len(total), noise.area.sum()), edges)
    left.plot(
        middle[shown] * 1e3, raw[shown], "o", ms=4, mfc="none", color=GREY, label="Without area correction"
    )
    frequency = _median_frequency(context)
    caption = ""
    if np.isfinite(frequency):
        flux = np.geomspace(max(edges[0], 5e-5), min(edges[-1], 1.0), 200)
        left.plot(flux * 1e3, compare_counts(flux, frequency), color=ORANGE, label="Hopkins et al. 2003")
        scaled = (
            "" if abs(frequency / _HOPKINS_HZ - 1) < 0.1 else f", scaled from 1.4 GHz with index {_INDEX}"
        )
        caption = f" The line is the fit of Hopkins et al. (2003){scaled}."
    left.set(xscale="log", yscale="log", xlabel="Total flux density (mJy)")
    left.set_ylabel("S$^{2.5}$ dN/dS (Jy$^{1.5}$ sr$^{-1}$)")
    left.set_ylim(0.2 * value[shown].min(), 5.0 * (value + error)[shown].max())
    left.legend(loc="lower right")
    left.set_title("Differential counts")
    label_plainly(left.xaxis)
    level = np.geomspace(np.min(noise.rms), np.max(noise.rms) * 1.2, 200) * context.seed_snr
    right.plot(level * 1e3, find_area(level, context.seed_snr, noise.rms, noise.area), color=BLUE)
    right.set(xscale="log", xlabel="Peak flux density (mJy/beam)", ylabel="Area (deg²)")
    right.set_ylim(bottom=0)
    label_plainly(right.xaxis)
    right.set_title(f"Area in which a peak is above {context.seed_snr:g} rms")
    caption = (
        "Each source counts for one over the area in which its peak would be above the threshold; bars are "
        "Poisson errors. Counts near the threshold are not corrected for incompleteness or flux bias, and "
        "sources are counted, not galaxies. A demo, or fields chosen for what is in them, do not follow the "
        "counts of the average sky." + caption
    )
    rows = [
        (f"{lo * 1e3:.3g} – {hi * 1e3:.3g}", int(n), format_value(v), format_value(e, 2))
        for lo, hi, n, v, e in zip(edges[:-1], edges[1:], count, value, error, strict=True)
        if n
    ]
    header = ("Total flux density (mJy)", "Sources", "S²·⁵ dN/dS (Jy¹·⁵ sr⁻¹)", "Error")
    table = make_table(header, rows, numeric=(0, 1, 2, 3))
    return Panel("Source counts", join([draw(figure, "Euclidean-normalised source counts", caption), table]))


def find_area(
    peak: NDArray[Any], threshold: float, rms: NDArray[np.float64], area: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the area in which each peak would be above ``threshold`` times the rms.

    Parameters
    ----------
    peak : ndarray
        Shape (n,), in the unit of ``rms``.
    threshold : float
        Detection threshold in rms.
    rms, area : ndarray
        Shape (m,): samples of the rms, and the area that each stands for.

    Returns
    -------
    ndarray
        Shape (n,), in the unit of ``area``.
    """
    order = np.argsort(rms)
    cumulative = np.concatenate([[0.0], np.cumsum(area[order])])
    return np.asarray(cumulative[np.searchsorted(rms[order], np.asarray(peak) / threshold, side="right")])


def choose_edges(flux: NDArray[Any]) -> NDArray[np.float64]:
    """Return bin edges in Jy, five a decade on fixed places, that hold all fluxes; shape (k + 1,)."""
    good = flux[np.isfinite(flux) & (flux > 0)]
    low = np.floor(np.log10(good.min()) * _BINS_A_DECADE)
    high = np.ceil(np.log10(good.max()) * _BINS_A_DECADE + 1e-9)
    return np.asarray(10.0 ** (np.arange(low, max(high, low + 1) + 1) / _BINS_A_DECADE))


def count_sources(
    flux: NDArray[Any], area: NDArray[np.float64], edges: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return number, S^2.5 dN/dS and its error for each bin.

    Parameters
    ----------
    flux : ndarray
        Shape (n,), Jy.
    area : ndarray
        Shape (n,), deg^2: where each source could have been found; none counts where it is 0.
    edges : ndarray
        Shape (k + 1,), Jy.

    Returns
    -------
    count, value, error : ndarray
        Shape (k,); value and error in Jy^1.5 sr^-1.
    """
    value, error, count = _normalise(flux, area, edges)
    return count, value, error


def _normalise(
    flux: NDArray[Any], area: NDArray[np.float64], edges: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    good = np.isfinite(flux) & (area > 0)
    weight = 1.0 / (area[good] * np.deg2rad(1.0) ** 2)
    density, _ = np.histogram(flux[good], edges, weights=weight)
    square, _ = np.histogram(flux[good], edges, weights=weight**2)
    count, _ = np.histogram(flux[good], edges)
    factor = np.sqrt(edges[1:] * edges[:-1]) ** 2.5 / np.diff(edges)
    return density * factor, np.sqrt(square) * factor, count


def compare_counts(flux: NDArray[np.float64], frequency: float) -> NDArray[np.float64]:
    """Return the normalised counts of Hopkins et al. (2003) at another frequency, in Jy^1.5/sr.

    Parameters
    ----------
    flux : ndarray
        Shape (n,), Jy at ``frequency``; the fit holds from 50 uJy to 1 Jy at 1.4 GHz.
    frequency : float
        Hz.
    """
    scale = (frequency / _HOPKINS_HZ) ** _INDEX
    power = np.log10(flux / scale * 1e3)
    # Fluxes that all scale by one factor move the normalised counts by its power of 1.5.
    return np.asarray(10.0 ** np.polyval(_HOPKINS[::-1], power) * scale**1.5)


def _median_frequency(context: Context) -> float:
    values = [context.release.field(name).info.frequency for name in context.release.fields]
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else float("nan")
