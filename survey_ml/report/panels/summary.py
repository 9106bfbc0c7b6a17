"""What was made, in a few figures."""

from __future__ import annotations

import numpy as np

from survey_ml.export.moc import measure_footprint
from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, render
from survey_ml.report.style import format_seconds, format_value

_CARDS = """
<div class="cards">
{% for value, unit, label, warn in cards %}<div class="card{{ ' warn' if warn }}">
<b>{{ value }}{% if unit %} <small>{{ unit }}</small>{% endif %}</b>
<span>{{ label }}</span></div>
{% endfor %}</div>
{% for note in notes %}<p>{{ note }}</p>
{% endfor %}
"""
_NAMES = ("sources", "components", "islands", "peaks")


def show_summary(context: Context) -> Panel:
    """Return the counts, area, depth, what was set aside, and the time it took."""
    release, noise = context.release, context.noise
    cards = [_count(len(release.fields), "fields")]
    cards += [_count(len(context.tables[name]), name) for name in _NAMES if name in context.tables]
    area, sky = float(noise.area.sum()), measure_footprint(release)
    if sky is not None:
        cards.append((f"{sky:.3g}", "deg²", "of sky, to a cell of the footprint", False))
    if area:
        order = np.argsort(noise.rms)
        share = np.cumsum(noise.area[order]) / area
        middle = float(noise.rms[order][min(len(order) - 1, int(np.searchsorted(share, 0.5)))])
        cards.append((f"{area:.3g}", "deg²", "of images, overlaps counted twice", False))
        cards.append((f"{middle * 1e6:.3g}", "µJy/beam", "median rms noise", False))
    tiles = {(unit.field, unit.tile) for unit in context.commits if unit.stage == "ingest"}
    cards.append(_count(len(tiles), "tiles"))
    cards.append((format_value(len(context.set_aside)), "", "set aside", bool(context.set_aside)))
    work = sum(float(c.info.get("seconds", 0.0)) for c in context.commits.values())
    cards.append((format_seconds(work), "", "worker time of all stages", False))
    return Panel("Summary", render(_CARDS, cards=cards, notes=_write_notes(context)))


def _count(number: int, what: str) -> tuple[str, str, str, bool]:
    """Return the card of a number of things."""
    return format_value(number), "", what if number != 1 else what.removesuffix("s"), False


def _write_notes(context: Context) -> list[str]:
    notes = []
    table = context.main_table
    n = len(context.is_best)
    duplicates = n - int(context.is_best.sum())
    if not table:
        notes.append("No stage of this release writes a catalogue.")
    elif not n:
        notes.append(f"Nothing was found: the table {table} has no rows.")
    if duplicates:
        them = "are second measurements" if duplicates > 1 else "is a second measurement"
        notes.append(
            f"{duplicates} of the {n} {table} {them} in overlapping fields. They stay in the catalogue with "
            "flag 512 and the name of the better one; the figures below leave them out unless they say "
            "otherwise."
        )
    inverted, components = len(context.column("inverted", "ra")), len(context.column("components", "ra"))
    if inverted and components:
        share = 100.0 * (1.0 - inverted / components)
        notes.append(
            f"The sign-inverted images gave {inverted} components. Where noise is symmetric, that puts the "
            f"reliability of the components at about {share:.2f} %."
        )
    return notes
