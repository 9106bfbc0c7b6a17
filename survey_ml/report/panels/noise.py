"""Maps of the rms noise, and how much sky is how deep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw, join
from survey_ml.report.panels.sky import set_offsets, shorten
from survey_ml.report.style import BLUE, GREY, label_plainly, make_figure, make_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAPS = 6
_BARS = 8


def show_noise(context: Context) -> Panel | None:
    """Return rms maps of some fields, and the area below each rms for all."""
    if not len(context.noise.rms):
        return None
    names = [name for name in context.shown if context.has_product(name, "rms")][:_MAPS]
    return Panel("Noise", join([_draw_maps(context, names), _draw_area(context)]))


def _draw_maps(context: Context, names: list[str]) -> Markup:
    shapes = [context.release.field(name).info.shape for name in names]
    figure, axes = make_grid(len(names), aspect=float(np.median([ny / nx for ny, nx in shapes])) * 0.82)
    # The layout does not know of the inset colour bars.
    figure.set_layout_engine("constrained", wspace=0.1)
    for name, axis in zip(names, axes, strict=True):
        field = context.release.field(name).info
        rms = context.thin(name, "rms", 500) * 1e6
        ny, nx = field.shape
        extent = (-0.5, nx - 0.5, -0.5, ny - 0.5)
        valid = rms[np.isfinite(rms)]
        low, high = np.percentile(valid, (0.5, 99.5)) if len(valid) else (0.0, 1.0)
        shown = np.ma.masked_invalid(rms)
        drawn = axis.imshow(
            shown, origin="lower", extent=extent, cmap="cividis", vmin=low, vmax=max(high, low * 1.001)
        )
        axis.set_title(shorten(name, 20), parse_math=False, fontsize=8.5)
        set_offsets(axis, field, extent)
        # Inset axes are as tall as the image, whatever its shape.
        bar = figure.colorbar(drawn, cax=axis.inset_axes((1.03, 0.0, 0.05, 1.0)))
        bar.ax.set_title("µJy/beam", fontsize=7, fontweight="normal", loc="center")
        bar.outline.set_visible(False)
    return draw(
        figure,
        f"Maps of the rms noise of {len(names)} fields",
        "The rms noise as measured. The colours of each map span the central 99 % of its values.",
    )


def _draw_area(context: Context) -> Markup:
    noise = context.noise
    order = np.argsort(noise.rms)
    rms, area = noise.rms[order] * 1e6, np.cumsum(noise.area[order])
    half = float(rms[np.searchsorted(area, area[-1] / 2)])
    # A line of a thousand points looks the same as one of a million.
    rms, area = (values[:: max(1, len(rms) // 1000)] for values in (rms, area))
    figure, (left, right) = make_figure(1, 2, height=3.2)
    left.plot(rms, area, color=BLUE, drawstyle="steps-post")
    left.set(xscale="log", xlabel="rms (µJy/beam)", ylabel="Area with lower rms (deg²)")
    left.set_ylim(bottom=0)
    label_plainly(left.xaxis)
    left.set_title("Area by depth")
    left.axvline(half, color=GREY, ls="--", lw=1)
    left.annotate(f" half the area\n below {half:.3g}", (half, 0.06 * area[-1]), color=GREY, fontsize=8)
    _draw_depths(right, noise.medians())
    caption = "Left: cumulative image area by rms, overlaps counted twice. Right: the fields."
    return draw(figure, "Cumulative area by rms noise, and histogram of the fields' median rms", caption)


def _draw_depths(axis: Axes, medians: dict[str, float]) -> None:
    """Draw the median rms of each field: as bars when they are few, else as a histogram."""
    known = {name: value * 1e6 for name, value in medians.items() if np.isfinite(value)}
    axis.set_title("Depth of the fields")
    axis.set_xlabel("Median rms of a field (µJy/beam)")
    if len(known) > _BARS:
        bins = min(40, max(5, len(known) // 4))
        axis.hist(list(known.values()), bins=bins, color=BLUE, edgecolor="white", lw=0.6)
        axis.set_ylabel("Fields")
        return
    axis.barh(np.arange(len(known)), list(known.values()), color=BLUE, height=0.6)
    axis.set_yticks(np.arange(len(known)), [shorten(name) for name in known], parse_math=False)
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
