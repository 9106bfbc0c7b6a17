"""Completeness and reliability against what was injected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from survey_ml.data.catalogues import read_catalogue
from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw, join, make_table, render
from survey_ml.report.style import BLUE, GREEN, GREY, label_plainly, make_figure
from survey_ml.validation.completeness import (
    Bin,
    compare_with_truth,
    find_radii,
    measure_share,
    measure_shares,
)
from survey_ml.validation.match import make_vectors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from survey_ml.field import Field

_COMPARED = ("components", "sources", "peaks")
_CURVE = np.geomspace(3.0, 100.0, 19)


def show_truth(context: Context) -> Panel | None:
    """Return both by signal-to-noise, with 95 % intervals, where the configuration names a truth."""
    table = next((name for name in _COMPARED if name in context.tables), "")
    if context.config.truth is None or not table:
        return None
    truth = add_noise(context, read_catalogue(context.config.truth, context.base, ("ra", "dec")))
    radius = find_radii(truth, context.beams) / 2
    ends = sorted({min(context.beams.values()), max(context.beams.values())})
    # The truth holds each object once, so second measurements in overlapping fields must stay out.
    best = context.best_of(table)
    ours = {c: context.column(table, c)[best] for c in ("ra", "dec", "snr")}
    result = compare_with_truth(ours, truth, radius=radius)
    found, real, true_snr, snr = result.found, result.real, truth["snr"], ours["snr"]
    intro = render(
        "<p>{{ table|capitalize }} against <code>{{ path }}</code> ({{ n }} rows; those below 2 σ do not "
        "count), matched one to one within {{ radius }} arcsec, or within the extent of extended ones. "
        "Above 7 σ {{ complete }} of the true are found; {{ reliable }} of all {{ table }} are real. "
        "{{ table|capitalize }} are counted here; counts of other tables differ.</p>",
        table=table,
        path=Path(context.config.truth).name,
        n=len(truth["ra"]),
        radius=" to ".join(f"{one / 2:.3g}" for one in ends),
        complete=_say(measure_share(found[true_snr >= 7])),
        reliable=_say(measure_share(real)),
    )
    body = _draw(measure_shares(found, true_snr, _CURVE), measure_shares(real, snr, _CURVE), context.seed_snr)
    rows = _tabulate(
        table, measure_shares(found, true_snr, empty=True), measure_shares(real, snr, empty=True)
    )
    return Panel("Completeness and reliability", join([intro, body, rows]))


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
    # Positions on the far side of the sky have no pixel.
    near = find_near(field, truth["ra"], truth["dec"])
    x, y = field.wcs.all_world2pix(truth["ra"][near], truth["dec"][near], 0, ra_dec_order=True)
    ny, nx = field.shape
    inside = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
    thin = context.thin(name, "rms", 512)
    row = (y[inside] * thin.shape[0] / ny).astype(int).clip(0, thin.shape[0] - 1)
    column = (x[inside] * thin.shape[1] / nx).astype(int).clip(0, thin.shape[1] - 1)
    rms[near[inside]] = np.fmin(rms[near[inside]], thin[row, column])


def find_near(field: Field, ra: NDArray[Any], dec: NDArray[Any]) -> NDArray[np.int64]:
    """Return the rows of positions (deg) that may lie in a field: within half its diagonal, and some."""
    ny, nx = field.shape
    middle = field.wcs.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0, ra_dec_order=True)
    one, many = make_vectors([middle[0]], [middle[1]]), make_vectors(ra, dec)
    reach = np.deg2rad(0.6 * np.hypot(ny, nx) * field.pixel_scale / 3600.0)
    return np.flatnonzero(many @ one[0] > np.cos(min(reach, np.pi)))


def _draw(complete: tuple[Bin, ...], reliable: tuple[Bin, ...], threshold: float) -> Markup:
    figure, (left, right) = make_figure(1, 2, height=3.4)
    _draw_shares(left, complete, BLUE, "True peak over local rms", "Completeness")
    _draw_shares(right, reliable, GREEN, "Measured peak over local rms", "Reliability")
    for axis in (left, right):
        axis.axvline(threshold, color=GREY, ls="--", lw=1)
    caption = "Bars are 95 % Wilson intervals; the dashed line is the detection threshold."
    return draw(figure, "Completeness and reliability by signal-to-noise", caption)


def _draw_shares(axis: Axes, bins: tuple[Bin, ...], color: str, label: str, title: str) -> None:
    axis.set_title(title)
    if not bins:
        axis.text(0.5, 0.5, "Nothing to count", transform=axis.transAxes, ha="center", color=GREY)
        return
    middle = np.array([np.sqrt(b.low * b.high) for b in bins])
    value, low, high = (np.array([getattr(b.share, c) for b in bins]) for c in ("value", "low", "high"))
    error = np.clip(np.stack([value - low, high - value]), 0.0, 1.0)
    axis.errorbar(middle, value, yerr=error, fmt="o-", ms=4, color=color, lw=1.2)
    axis.set(xscale="log", xlabel=label, ylabel="Share", ylim=(min(0.9, low.min() - 0.05), 1.02))
    label_plainly(axis.xaxis)


def _tabulate(table: str, complete: tuple[Bin, ...], reliable: tuple[Bin, ...]) -> Markup:
    rows = []
    for one, two in zip(complete, reliable, strict=True):
        if one.share.n or two.share.n:
            high = f"{one.high:g}" if np.isfinite(one.high) else ""
            label = f"{one.low:g} – {high}" if high else f"above {one.low:g}"
            rows.append((label, _say(one.share), one.share.n, _say(two.share), two.share.n))
    header = ("Peak over rms", "Completeness (95 %)", "True", "Reliability (95 %)", f"Detected {table}")
    return make_table(header, rows, numeric=(1, 2, 3, 4))


def _say(share: Any) -> str:
    if not share.n:
        return "–"
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} – {100 * share.high:.1f})"
