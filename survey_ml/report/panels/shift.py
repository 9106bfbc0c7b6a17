"""How far the sources of each field are from what the model was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from survey_ml.data.history import read_history
from survey_ml.export.shift import HISTORY
from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw, join, make_table, render
from survey_ml.report.panels.shift_views import COLOURS, draw_history, draw_sky
from survey_ml.report.panels.sky import shorten
from survey_ml.report.style import make_figure

_ROWS = 40
"""Fields that are listed and drawn at most: the loudest."""
_DISTANCES = 8
"""Fields whose distances are listed."""
_WORST = {"red": 0, "amber": 1, "green": 2, "unknown": 3}
_INTRO = """<p>Sources of each field beside the images that <b>{{ model }}</b> was made for: {{ data }}
({{ n }} {{ 'images that it was not trained on' if held_out else 'images, some of its training' }}). Green:
nothing found. Amber: the mix of classes or how images look differs, but classes can be told. Red: sources of
one class look so different that the model's classes are not to be trusted. Each test is at a level of
{{ alpha }}, by {{ permutations }} permutations.</p>"""

Verdicts = Mapping[str, Mapping[str, Any]]


def read_verdicts(context: Context) -> dict[str, dict[str, Any]]:
    """Return what the stage says of each field, the loudest alarm first."""
    found = {
        unit.field: dict(commit.summaries["shift_verdict"])
        for unit, commit in context.commits.items()
        if unit.stage == "shift"
    }
    return dict(sorted(found.items(), key=lambda one: (_WORST[one[1]["level"]], -_score(one[1]), one[0])))


def show_shift(context: Context) -> Panel | None:
    """Return levels, scores and distances by field; None where the stage has not run."""
    verdicts = read_verdicts(context)
    if not verdicts:
        return None
    first = next(iter(verdicts.values()))
    intro = render(
        _INTRO,
        model=first["model"]["name"],
        alpha=f"{first['alpha']:g}",
        permutations=first["permutations"],
        **first["reference"],
    )
    pieces = [intro, _say_whole(context, verdicts), _list_fields(verdicts)]
    judged = {name: one for name, one in verdicts.items() if one["score"] is not None}
    if judged:
        fields = {name: context.release.field(name).info for name in context.release.fields}
        pieces += [_draw_scores(judged), draw_sky(verdicts, fields)]
        pieces += [_list_squares(verdicts), draw_history(read_history(context.release.store, HISTORY))]
        pieces.append(_list_distances(judged))
    return Panel("Shift from what the model was made for", join(pieces))


def _score(verdict: Mapping[str, Any]) -> float:
    return -1.0 if verdict["score"] is None else float(verdict["score"])


def _say_whole(context: Context, verdicts: Verdicts) -> Markup:
    """Return what is said of all fields together, where that was asked for.

    Few sources of one field hardly move the whole: fields that are red by themselves are named beside it.
    """
    found = [one for unit, one in context.commits.items() if unit.stage == "shift_release"]
    if not found:
        return Markup()
    whole = found[0].summaries["shift_release_verdict"]
    return render(
        "<p>All fields together: <b>{{ level }}</b>{{ cause }}{{ score }}, by {{ n }} sources of "
        "{{ fields }} fields.{{ reason }}{% if red %} {{ red }} red: classes there are not to "
        "be trusted, whatever all fields together say.{% endif %}</p>",
        level=whole["level"],
        cause=f", likely cause {whole['cause']}" if whole["cause"] else "",
        score="" if whole["score"] is None else f", score {whole['score']:.2f}",
        n=whole["n"],
        fields=whole["fields"],
        reason=f" {whole['reason']}." if whole["reason"] else "",
        red=_name_red(verdicts),
    )


def _name_red(verdicts: Verdicts) -> str:
    red = [name for name, one in verdicts.items() if one["level"] == "red"]
    if not red:
        return ""
    more = f" and {len(red) - _DISTANCES} more" if len(red) > _DISTANCES else ""
    begin, verb = ("By itself", "is") if len(red) == 1 else ("By themselves", "are")
    return f"{begin} {', '.join(red[:_DISTANCES])}{more} {verb}"


def _list_squares(verdicts: Verdicts) -> Markup:
    """Return a line a square of a field that has several."""
    rows = [
        (
            name,
            " – ".join(f"{edge + 0.5:.0f}" for edge in square["x"]),
            " – ".join(f"{edge + 0.5:.0f}" for edge in square["y"]),
            square["level"],
            "–" if square["score"] is None else f"{square['score']:.2f}",
            square["cause"] or "–",
            "–" if square["p_value"] is None else f"{square['p_value']:.3g}",
            square["n"],
        )
        for name, one in list(verdicts.items())[:_DISTANCES]
        for square in one.get("squares") or []
    ]
    if not rows:
        return render("<p>No field has sources enough for two squares, of 20 each, to be judged.</p>")
    header = ("Field", "x (px)", "y (px)", "Level", "Score", "Likely cause", "p", "Sources")
    caption = "Squares of the fields with the loudest alarms; unknown: fewer than 20 sources"
    table = make_table(header, rows, numeric=(4, 6, 7), caption=caption)
    return render("<details><summary>Squares</summary>{{ table }}</details>", table=table)


def _list_fields(verdicts: Verdicts) -> Markup:
    """Return a line a field."""
    rows = []
    for name, one in list(verdicts.items())[:_ROWS]:
        conditional = one["conditional"]
        shares = "; ".join(
            f"{label} {share['estimate']:.2f} ({share['low']:.2f} – {share['high']:.2f})"
            for label, share in one["prior"]["classes"].items()
        )
        rows.append(
            (
                name,
                one["level"],
                "–" if one["score"] is None else f"{one['score']:.2f}",
                one["cause"] or "–",
                "–" if conditional is None else f"{conditional['p_value']:.3g}",
                one["n"],
                one["n_left_out"],
                shares or one["reason"] or one["prior"]["reason"],
            )
        )
    header = (
        "Field", "Level", "Score", "Likely cause", "p", "Sources judged", "left out",
        "Shares of classes (95 %), or why there are none",
    )  # fmt: skip
    left = len(verdicts) - len(rows)
    caption = f"{len(rows)} fields with the loudest alarms; {left} more" if left else ""
    return make_table(header, rows, numeric=(2, 4, 5, 6), caption=caption)


def _draw_scores(verdicts: Verdicts) -> Markup:
    """Return the score of each field in the colour of its level."""
    shown = list(verdicts.items())[:_ROWS]
    figure, (axis,) = make_figure(height=1.0 + 0.22 * len(shown))
    place = np.arange(len(shown))
    colours = [COLOURS[one["level"]] for _, one in shown]
    axis.barh(place, [_score(one) for _, one in shown], color=colours, height=0.6)
    axis.set_yticks(place, [shorten(name) for name, _ in shown], parse_math=False)
    for number, (_, one) in enumerate(shown):
        axis.text(_score(one), number, f"  {one['level']} {one['cause']}", va="center", fontsize=8)
    highest = max(_score(one) for _, one in shown)
    axis.set(xlim=(0.0, max(0.3, 1.25 * highest)), xlabel="Score", ylim=(len(shown) - 0.5, -0.5))
    axis.grid(visible=False, axis="y")
    caption = (
        "How loud the alarm is: 0 where sources look like the model's own in the same mix of classes, about "
        "1 where they have nothing in common. The level is beside it."
    )
    return draw(figure, f"Scores of the shift of {len(shown)} fields", caption)


def _list_distances(verdicts: Verdicts) -> Markup:
    """Return distances, each with its interval and above what chance makes of it."""
    rows: list[tuple[str, ...]] = []
    for name, one in list(verdicts.items())[:_DISTANCES]:
        groups = (("as they are", one["statistics"]), ("same mix", one["conditional"]["statistics"]))
        for said, group in groups:
            for label, found in group.items():
                rows.append(
                    (name, label, said, _say(found["value"]), f"{_say(found['low'])} – {_say(found['high'])}",
                     f"{found['p_value']:.3g}", str(found["n"]), str(found["d"]))
                )  # fmt: skip
                spread = 2.0 * found["null_std"]
                low, high = (_say(found["null_mean"] + sign * spread) for sign in (-1.0, 1.0))
                rows.append(("", "by chance", "", _say(found["null_mean"]), f"{low} – {high}", "", "", ""))
    header = ("Field", "Distance", "Sets", "Value", "Interval", "p", "n", "d")
    caption = (
        "Distances with their 95 % intervals, each above its mean by chance and twice the standard deviation "
        "of that; of the fields with the loudest alarms"
    )
    table = make_table(header, rows, numeric=range(3, 8), caption=caption)
    return render("<details><summary>Distances</summary>{{ table }}</details>", table=table)


def _say(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
