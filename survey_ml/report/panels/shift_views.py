"""Where on the sky a shift is, and how it went from run to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from survey_ml.report.panel import draw, render
from survey_ml.report.panels.sky import shorten
from survey_ml.report.style import GREEN, GREY, INK, ORANGE, RED, make_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from survey_ml.field import Field

COLOURS = {"red": RED, "amber": ORANGE, "green": GREEN, "unknown": GREY}
_MOST_LINES = 8
"""Fields whose scores are drawn over time: the loudest of the last run."""
_MOST_NAMED = 24
"""Fields whose names are written on the map."""

Verdicts = Mapping[str, Mapping[str, Any]]


def draw_sky(verdicts: Verdicts, fields: Mapping[str, Field]) -> Markup:
    """Return a map of fields, and of their squares where these were judged, in the colours of the levels."""
    from matplotlib.patches import Patch

    outlines = {name: _find_corners(fields[name], None) for name in verdicts if name in fields}
    if not outlines:
        return Markup()
    everything = np.concatenate(list(outlines.values()))
    middle = _find_middle(everything)
    figure, (axis,) = make_figure(width=7.5, height=5.0)
    for number, (name, outline) in enumerate(outlines.items()):
        field, verdict = fields[name], verdicts[name]
        for square in verdict.get("squares") or []:
            _fill(axis, _project(_find_corners(field, square), middle), str(square["level"]), 0.55)
        place = _project(outline, middle)
        _fill(axis, place, str(verdict["level"]), 0.0 if verdict.get("squares") else 0.35)
        axis.plot(*place.mean(axis=0), "o", ms=5, color=COLOURS[str(verdict["level"])], mec="white", mew=0.6)
        if len(outlines) <= _MOST_NAMED:
            # Above and below by turns: fields that overlap are neighbours in a list, too.
            axis.annotate(
                shorten(name, 18),
                place.mean(axis=0),
                (0, 7 if number % 2 else -13),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                parse_math=False,
            )
    axis.set(xlabel=f"East of {middle[0]:.3f}° (deg on the sky)", ylabel="Declination (deg)", aspect="equal")
    axis.margins(0.08)
    axis.invert_xaxis()
    found = {str(verdicts[name]["level"]) for name in outlines}
    found |= {str(one["level"]) for name in outlines for one in verdicts[name].get("squares") or []}
    handles = [Patch(color=colour, label=level) for level, colour in COLOURS.items() if level in found]
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    caption = (
        "Fields in the colours of their levels, red shown as vermilion; a field with sources enough is "
        "also judged by squares, each at the same level of significance. Grey: too few sources to say."
    )
    return draw(figure, f"Sky map of the shift of {len(outlines)} fields", caption)


def draw_history(entries: Sequence[Mapping[str, Any]]) -> Markup:
    """Return the scores of fields from run to run.

    Parameters
    ----------
    entries : sequence of mapping
        From `survey_ml.data.history.read_history`, the oldest first.
    """
    if len(entries) < 2:
        return render(
            "<p>Scores over time are drawn once a later run finds something else than what is kept of the "
            "first.</p>"
        )
    times = [datetime.fromisoformat(str(one["when"])) for one in entries]
    last = entries[-1]["entry"]["fields"]
    chosen = sorted(last, key=lambda name: -(last[name]["score"] or 0.0))[:_MOST_LINES]
    figure, (axis,) = make_figure(height=3.2)
    _draw_line(axis, times, [one["entry"].get("release") for one in entries], "all fields", 2.2)
    for name in chosen:
        _draw_line(axis, times, [one["entry"]["fields"].get(name) for one in entries], shorten(name), 1.0)
    axis.set(ylabel="Score", xlabel="Run (UTC)", ylim=(0.0, None))
    axis.tick_params(axis="x", rotation=20)
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    caption = (
        "Scores of the last runs that found something new; the colour of a point is the level then. Of many "
        "fields the loudest of the last run."
    )
    return draw(figure, f"Scores of the shift over {len(entries)} runs", caption)


def _draw_line(
    axis: Axes, times: Sequence[datetime], found: Sequence[Mapping[str, Any] | None], label: str, width: float
) -> None:
    known = [(when, one) for when, one in zip(times, found, strict=True) if one and one["score"] is not None]
    if not known:
        return
    # Numbers of days, which is what axes of dates count in.
    from matplotlib.dates import date2num

    place = date2num([when for when, _ in known])
    scores = [float(one["score"]) for _, one in known]
    axis.plot(place, scores, lw=width, label=label, color=INK if width > 2.0 else None, zorder=2)
    axis.xaxis_date()
    colours = [COLOURS[str(one["level"])] for _, one in known]
    axis.scatter(place, scores, c=colours, s=28, zorder=3, edgecolors="white", linewidths=0.6)


def _find_corners(field: Field, square: Mapping[str, Any] | None) -> NDArray[np.float64]:
    """Return right ascension and declination (4, 2) of the corners of a square, or of the field."""
    ny, nx = field.shape
    x, y = (square["x"], square["y"]) if square else ((-0.5, nx - 0.5), (-0.5, ny - 0.5))
    pixels = np.array([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])])
    return np.asarray(field.wcs.all_pix2world(pixels, 0), np.float64)


def _find_middle(corners: NDArray[np.float64]) -> tuple[float, float]:
    """Return a place in the middle of corners (n, 2), on whichever side of 0 h they are."""
    longitude = np.radians(corners[:, 0])
    mean = np.degrees(np.arctan2(np.sin(longitude).mean(), np.cos(longitude).mean()))
    return float(mean % 360.0), float(corners[:, 1].mean())


def _project(corners: NDArray[np.float64], middle: tuple[float, float]) -> NDArray[np.float64]:
    """Return degrees east of the middle, as they are on the sky, and declination (n, 2)."""
    east = (corners[:, 0] - middle[0] + 180.0) % 360.0 - 180.0
    return np.stack([east * np.cos(np.radians(corners[:, 1])), corners[:, 1]], axis=1)


def _fill(axis: Axes, place: NDArray[np.float64], level: str, strength: float) -> None:
    from matplotlib.patches import Polygon

    axis.add_patch(Polygon(place, closed=True, fill=False, ec=COLOURS[level], lw=1.2))
    if strength:
        axis.add_patch(Polygon(place, closed=True, fc=COLOURS[level], ec="none", alpha=strength))
    axis.update_datalim(place)
