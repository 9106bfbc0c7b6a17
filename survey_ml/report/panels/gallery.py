"""Cut-outs of the brightest extended sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw
from survey_ml.report.panels.sky import draw_beam, draw_ellipses, shorten, show_image
from survey_ml.report.style import RED, SKY, format_value, make_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 9
_LEAST_BEAMS = 12
_LARGEST_PX = 600
_SHAPE = ("ra", "dec", "major", "minor", "pa")


def show_gallery(context: Context) -> Panel | None:
    """Return cut-outs of extended sources, brightest first, with their components."""
    if "sources" not in context.tables or not len(context.tables["sources"]):
        return None
    column = {c: context.column("sources", c) for c in ("total_flux", "resolved", "n_components", "field")}
    extended = context.is_best & ((column["resolved"].astype(bool)) | (column["n_components"] > 1))
    order = np.argsort(-np.where(extended, column["total_flux"], -np.inf), kind="stable")
    chosen = order[: min(_MOST, int(extended.sum()))]
    chosen = np.array([i for i in chosen if context.has_product(str(column["field"][i]), "image")], int)
    if not len(chosen):
        return None
    figure, axes = make_grid(len(chosen), title=0.75)
    for row, axis in zip(chosen, axes, strict=True):
        _draw_source(context, int(row), axis)
    caption = (
        f"The {len(chosen)} brightest of {int(extended.sum())} sources that are resolved or have several "
        "components. Orange: components of the source at half maximum; light blue: of its neighbours; "
        "grey: the beam."
    )
    return Panel("Brightest extended sources", draw(figure, "Cut-outs of extended sources", caption))


def _draw_source(context: Context, row: int, axis: Axes) -> None:
    source = {name: context.column("sources", name)[row] for name in ("field", "source_id", "x", "y", "name")}
    name = str(source["field"])
    field = context.release.field(name).info
    rows = np.flatnonzero(context.column("components", "field") == name)
    x, y = (context.column("components", axis_name)[rows] for axis_name in ("x", "y"))
    own = context.column("components", "source_id")[rows] == source["source_id"]
    reach = _LEAST_BEAMS / 2 * field.beam.major / field.pixel_scale
    if own.any():
        size = np.nan_to_num(context.column("components", "major")[rows][own]) / field.pixel_scale
        distance = np.hypot(x[own] - source["x"], y[own] - source["y"]) + 1.3 * size
        reach = max(reach, float(np.nanmax(distance)) * 1.2)
    reach = min(reach, _LARGEST_PX / 2)
    place = {c: float(source[c]) for c in ("x", "y")}
    y0, x0 = (max(0, int(place[c] - reach)) for c in ("y", "x"))
    y1 = min(field.shape[0], int(place["y"] + reach) + 1)
    x1 = min(field.shape[1], int(place["x"] + reach) + 1)
    image = context.read(name, "image", (slice(y0, y1), slice(x0, x1)))
    show_image(axis, image, field, window=(y0, y1, x0, x1))
    near = (x > x0) & (x < x1) & (y > y0) & (y < y1)
    for keep, color in ((near & ~own, SKY), (own, RED)):
        shape = {
            c: context.column("components", c)[rows][keep] for c in ("ra", "dec", "major", "minor", "pa")
        }
        draw_ellipses(axis, field, shape, color=color, width=1.0)
    draw_beam(axis, field, (x0 - 0.5, x1 - 0.5, y0 - 0.5, y1 - 0.5))
    flux = format_value(float(context.column("sources", "total_flux")[row]) * 1e3)
    n = int(own.sum())
    title = f"{source['name']}\n{flux} mJy, {n} component{'s' * (n != 1)}\n{shorten(name, 34)}"
    axis.set_title(title, parse_math=False, fontsize=8.5, fontweight="normal")
