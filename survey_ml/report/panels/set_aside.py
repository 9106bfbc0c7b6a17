"""What was left out of the run, and why."""

from __future__ import annotations

from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, join, make_table, render

_MOST = 200


def show_set_aside(context: Context) -> Panel:
    """Return a table of fields and tiles that were left out, with causes and remedies."""
    rows = [(item.field, item.tile or "all", item.stage, item.cause, item.hint) for item in context.set_aside]
    if not rows:
        return Panel("Set aside", render('<p class="good">Nothing was set aside.</p>'))
    fields = {item.field for item in context.set_aside}
    intro = render(
        "<p>{{ n }} {{ 'entry' if n == 1 else 'entries' }} in {{ m }} "
        "{{ 'field' if m == 1 else 'fields' }}. Everything else went on. "
        "The same command tries again what can be tried again.</p>",
        n=len(rows),
        m=len(fields),
    )
    table = make_table(("Field", "Tile", "Stage", "Cause", "What to do"), rows[:_MOST])
    pieces = [intro, table]
    if len(rows) > _MOST:
        pieces.append(render('<p class="note">{{ n }} more are not shown.</p>', n=len(rows) - _MOST))
    return Panel("Set aside", join(pieces))
