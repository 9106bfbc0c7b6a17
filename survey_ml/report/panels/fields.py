"""Fields with what was found in them."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw, join, make_table, render
from survey_ml.report.panels.sky import MOST_ELLIPSES, draw_ellipses, shorten, show_image
from survey_ml.report.style import format_value, make_grid

_ROWS = 20
_PX = {1: 1400, 2: 900, 3: 600}
"""Side to which images are thinned, by columns of the figure."""


def show_fields(context: Context) -> Panel | None:
    """Return quick-looks with sources, and the list of all fields."""
    if not context.release.fields:
        return None
    pieces = [_list_fields(context)]
    drawn = [name for name in context.shown if context.has_product(name, "image")]
    if drawn:
        pieces.insert(0, _draw_fields(context, drawn))
    left = len(context.release.fields) - len(drawn)
    if left:
        text = (
            "{{ n }} field{{ 's are' if n != 1 else ' is' }} drawn, evenly spaced in the list; "
            "the other {{ m }} {{ 'are' if m != 1 else 'is' }} only listed."
        )
        pieces.insert(1, render(f'<p class="note">{text}</p>', n=len(drawn), m=left))
    return Panel("Fields and sources", join(pieces))


def _draw_fields(context: Context, names: list[str]) -> Markup:
    shapes = [context.release.field(name).info.shape for name in names]
    aspect = float(np.median([ny / nx for ny, nx in shapes]))
    figure, axes = make_grid(len(names), aspect=aspect)
    table = context.main_table
    field_of = context.column(table, "field")
    flux = context.column(table, "peak_flux")
    columns = [c for c in ("ra", "dec", "major", "minor", "pa") if len(context.column(table, c))]
    data = {c: context.column(table, c) for c in columns}
    for name, axis in zip(names, axes, strict=True):
        field = context.release.field(name).info
        show_image(axis, context.thin(name, "image", _PX[min(3, len(names))]), field)
        rows = np.flatnonzero(field_of == name)
        axis.set_title(f"{shorten(name)}  ({len(rows)})", parse_math=False, fontsize=8.5)
        rows = rows[np.argsort(-flux[rows])][:MOST_ELLIPSES]
        if len(rows):
            least = max(field.shape) * 0.018
            draw_ellipses(axis, field, {c: v[rows] for c, v in data.items()}, grow=2.0, least_px=least)
    caption = (
        f"Images with an asinh stretch (dark is bright; blue has no data) and their {table}, "
        "counted in the title. Ellipses are twice the fitted width, and at least large enough to see."
    )
    return draw(figure, f"Quick-looks of {len(names)} fields with ellipses around the {table} found", caption)


def _list_fields(context: Context) -> Markup:
    rows = []
    field_of = context.column(context.main_table, "field")
    counts = dict(zip(*(v.tolist() for v in np.unique(field_of, return_counts=True)), strict=True))
    rms = context.noise.medians()
    for name in context.release.fields[:_ROWS]:
        field = context.release.field(name).info
        ny, nx = field.shape
        beam = f"{field.beam.major:.4g} × {field.beam.minor:.4g}, {field.beam.pa:.3g}°"
        frequency = f"{field.frequency / 1e6:.6g}" if np.isfinite(field.frequency) else "–"
        noise_text = format_value(rms.get(name, float("nan")) * 1e6)
        found = format_value(counts.get(name, 0))
        rows.append((name, f"{nx} × {ny}", f"{field.pixel_scale:.3g}", beam, frequency, noise_text, found))
    header = (
        "Field",
        "Pixels",
        "Pixel (arcsec)",
        "Beam (arcsec)",
        "Frequency (MHz)",
        "Median rms (µJy/beam)",
        context.main_table.capitalize() or "Found",
    )
    table = make_table(header, rows, numeric=(1, 2, 3, 4, 5, 6))
    rest = context.release.fields[_ROWS:]
    if not rest:
        return table
    text = """<details><summary>{{ rest|length }} more fields</summary><ul class="names">
    {% for name, n in rest %}<li>{{ name }} ({{ n }})</li>{% endfor %}</ul></details>"""
    return join([table, render(text, rest=[(name, counts.get(name, 0)) for name in rest])])
