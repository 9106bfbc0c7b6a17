"""Completeness and reliability against what was injected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from survey_ml.report.comparison import read_catalogue
from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw, join, make_table, render
from survey_ml.report.style import BLUE, GREEN, GREY, label_plainly, make_figure
from survey_ml.validation.completeness import Bin, compare_with_truth, measure_share, measure_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COMPARED = ("components", "sources", "peaks")
_CURVE = np.geomspace(3.0, 100.0, 19)


def show_truth(context: Context) -> Panel | None:
    """Return both by signal-to-noise, with 95 % intervals, where the configuration names a truth."""
    table = next((name for name in _COMPARED if name in context.tables), "")
    if context.config.truth is None or not table:
        return None
    truth = add_noise(context, read_catalogue(context.config.truth, context.base, ("ra", "dec")))
    radius = max(context.release.field(name).info.beam.major for name in context.release.fields) / 2
    found, real, true_snr, snr = compare_fields(context, table, truth, radius)
    intro = render(
        "<p>{{ table|capitalize }} against <code>{{ path }}</code> ({{ n }} rows; those below 2 σ do not "
        "count), matched one to one within {{ radius }} arcsec, or within the extent of extended ones. "
        "Above 7 σ {{ complete }} of the true are found; {{ reliable }} of all {{ table }} are real.</p>",
        table=table,
        path=Path(context.config.truth).name,
        n=len(truth["ra"]),
        radius=f"{radius:.3g}",
        complete=_say(measure_share(found[true_snr >= 7])),
        reliable=_say(measure_share(real)),
    )
    body = _draw(measure_shares(found, true_snr, _CURVE), measure_shares(real, snr, _CURVE), context.seed_snr)
    rows = _tabulate(measure_shares(found, true_snr, empty=True), measure_shares(real, snr, empty=True))
    return Panel("Completeness and reliability", join([intro, body, rows]))


def compare_fields(
    context: Context, table: str, truth: dict[str, NDArray[Any]], radius: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Match field by field where the truth says which field a row is in, else all at once.

    Parameters
    ----------
    context : Context
        Of the report.
    table : str
        What to compare.
    truth : dict
        With ra, dec, and snr or peak_flux and local_rms; perhaps ``field`` and ``extent``.
    radius : float
        arcsec.

    Returns
    -------
    found, real, true_snr, snr : ndarray
        For the rows of the truth, of the catalogue, of the truth, and of the catalogue.
    """
    rows = {c: context.column(table, c) for c in ("ra", "dec", "snr")}
    by_field = "field" in truth
    field = context.column(table, "field")
    flags = context.column(table, "flags")
    pieces = []
    for name in context.release.fields if by_field else [""]:
        # Within a field all rows count; over all fields a duplicate would pass for a false one.
        best = (flags.astype(int) & 512) == 0 if len(flags) else np.ones(len(field), bool)
        ours = (field == name) if by_field else best
        theirs = truth["field"] == name if by_field else np.ones(len(truth["ra"]), bool)
        one = {c: values[ours] for c, values in rows.items()}
        two = {c: values[theirs] for c, values in truth.items()}
        result = compare_with_truth(one, two, radius=radius)
        pieces.append((result.found, result.real, two["snr"], one["snr"]))
    found, real, true_snr, snr = (np.concatenate(part) for part in zip(*pieces, strict=True))
    return found, real, true_snr, snr


def add_noise(context: Context, truth: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return a truth with ``snr``: its own, of its local_rms, or of the measured rms at each position.

    Rows outside all fields get 0, so that they do not count.
    """
    if "snr" in truth:
        return truth
    if "local_rms" in truth:
        rms = truth["local_rms"].astype(np.float64)
    else:
        rms = np.full(len(truth["ra"]), np.nan)
        for name in context.release.fields:
            if context.has_product(name, "rms"):
                _sample_rms(context, name, truth, rms)
    snr = np.divide(truth["peak_flux"], rms, out=np.zeros(len(rms)), where=rms > 0)
    return truth | {"snr": snr}


def _sample_rms(
    context: Context, name: str, truth: dict[str, NDArray[Any]], rms: NDArray[np.float64]
) -> None:
    """Write the lowest rms of any field at each position into ``rms``."""
    field = context.release.field(name).info
    near = np.flatnonzero(truth["field"] == name) if "field" in truth else np.arange(len(rms))
    x, y = field.wcs.all_world2pix(truth["ra"][near], truth["dec"][near], 0)
    ny, nx = field.shape
    inside = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
    thin = context.thin(name, "rms", 512)
    row = (y[inside] * thin.shape[0] / ny).astype(int).clip(0, thin.shape[0] - 1)
    column = (x[inside] * thin.shape[1] / nx).astype(int).clip(0, thin.shape[1] - 1)
    rms[near[inside]] = np.fmin(rms[near[inside]], thin[row, column])


def _draw(complete: tuple[Bin, ...], reliable: tuple[Bin, ...], threshold: float) -> Markup:
    figure, (left, right) = make_figure(1, 2, height=3.4)
    _draw_shares(left, complete, BLUE, "True peak over local rms", "Completeness")
    _draw_shares(right, reliable, GREEN, "Measured peak over local rms", "Reliability")
    for axis in (left, right):
        axis.axvline(threshold, color=GREY, ls="--", lw=1)
    caption = "Bars are 95 % Wilson intervals; the dashed line is the detection threshold."
    return draw(figure, "Completeness and reliability by signal-to-noise", caption)


def _draw_shares(axis: Axes, bins: tuple[Bin, ...], color: str, label: str, title: str) -> None:
    middle = np.array([np.sqrt(b.low * b.high) for b in bins])
    value, low, high = (np.array([getattr(b.share, c) for b in bins]) for c in ("value", "low", "high"))
    error = np.clip(np.stack([value - low, high - value]), 0.0, 1.0)
    axis.errorbar(middle, value, yerr=error, fmt="o-", ms=4, color=color, lw=1.2)
    axis.set(xscale="log", xlabel=label, ylabel="Share", ylim=(min(0.9, low.min() - 0.05), 1.02))
    axis.set_title(title)
    label_plainly(axis.xaxis)


def _tabulate(complete: tuple[Bin, ...], reliable: tuple[Bin, ...]) -> Markup:
    rows = []
    for one, two in zip(complete, reliable, strict=True):
        if one.share.n or two.share.n:
            high = f"{one.high:g}" if np.isfinite(one.high) else ""
            label = f"{one.low:g} – {high}" if high else f"above {one.low:g}"
            rows.append((label, _say(one.share), one.share.n, _say(two.share), two.share.n))
    header = ("Peak over rms", "Completeness (95 %)", "True", "Reliability (95 %)", "Detected")
    return make_table(header, rows, numeric=(1, 2, 3, 4))


def _say(share: Any) -> str:
    if not share.n:
        return "–"
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} – {100 * share.high:.1f})"
