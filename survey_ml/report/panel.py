"""What a panel returns, and the pieces it is made of: safe text, tables and figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

PIXELS_AN_INCH = 150
"""Of the figures; they are shown at 96, so they stay sharp on dense screens."""

_TABLE = """
<div class="scroll"><table>
{% if caption %}<caption>{{ caption }}</caption>{% endif %}
<thead><tr>
{% for name in header %}<th{% if loop.index0 in numeric %} class="number"{% endif %}>{{ name }}</th>
{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}<tr>{% for cell in row %}<td{% if loop.index0 in numeric %} class="number"{% endif %}>
{{- cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
"""
_FIGURE = """
<figure><img src="data:image/png;base64,{{ data }}" alt="{{ alt }}" width="{{ width }}" height="{{ height }}">
{% if caption %}<figcaption>{{ caption }}</figcaption>{% endif %}</figure>
"""


@dataclass(frozen=True)
class Panel:
    """A section of the report.

    Parameters
    ----------
    title : str
        Plain text; it is escaped.
    body : Markup
        HTML. Build it with `render`, `make_table` and `draw`, which escape what they are given.
    """

    title: str
    body: Markup


@cache
def _open_environment() -> Environment:
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)


def render(template: str, **values: Any) -> Markup:
    """Fill a Jinja template; every value that is not `Markup` is escaped."""
    # Templates are constants of the code; only values come from outside.
    return Markup(_open_environment().from_string(template).render(**values))  # noqa: S704


def make_table(
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    numeric: Iterable[int] = (),
    caption: str = "",
) -> Markup:
    """Return an HTML table.

    Parameters
    ----------
    header : sequence of str
        Column titles, with units.
    rows : iterable of sequence
        Cells; escaped unless `Markup`.
    numeric : iterable of int
        Columns that are aligned to the right.
    caption : str
        Above the table.
    """
    return render(_TABLE, header=header, rows=list(rows), numeric=set(numeric), caption=caption)


def draw(figure: Figure, alt: str, caption: str = "") -> Markup:
    """Return a figure as an inline PNG.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        It is drawn with the Agg canvas and can be thrown away then.
    alt : str
        What it shows, for those who cannot see it.
    caption : str
        Below the figure.
    """
    buffer = io.BytesIO()
    if (layout := figure.get_layout_engine()) is not None:
        # Laid out here, once: `savefig` would draw the whole figure to lay it out, and then again.
        figure.set_dpi(PIXELS_AN_INCH)
        layout.execute(figure)
        figure.set_layout_engine("none")
    figure.savefig(buffer, format="png", dpi=PIXELS_AN_INCH, metadata={"Software": None})
    width, height = (round(side * 96) for side in figure.get_size_inches())
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return render(_FIGURE, data=data, alt=alt, caption=caption, width=width, height=height)


def join(pieces: Iterable[Markup]) -> Markup:
    """Put pieces of HTML one after the other."""
    return Markup("\n").join(pieces)
