"""The panel of the shift monitor: what it says of fields that were judged, and of those that were not."""

from __future__ import annotations

import dataclasses
import re

import pytest
from markupsafe import escape

from survey_ml.data.commit import Commit, Unit
from survey_ml.report.panels.shift import read_verdicts, show_shift
from survey_ml.report.panels.shift_views import draw_history

STATISTIC = {
    "value": 0.123, "low": 0.1, "high": 0.15, "null_mean": 0.007, "null_std": 0.002, "p_value": 0.005,
    "n": 60, "d": 28,
}  # fmt: skip
KNOWN = {
    "model": {"name": "trial <b>", "hash": "a" * 64, "classes": ["FRI", "FRII"]},
    "reference": {"data": "made <i>", "n": 160, "kept": 160, "held_out": True},
    "n": 60, "n_left_out": 7, "permutations": 200, "alpha": 0.01, "seed": 0, "reason": "", "covariates": {},
}  # fmt: skip


def judged(level, score, cause="", shares=None):
    conditional = {
        "level": level, "effect": score, "p_value": 0.005, "matched": True, "prior_only": 0.0,
        "statistics": {"mmd": STATISTIC, "answers": STATISTIC},
    }  # fmt: skip
    prior = {"refused": shares is None, "classes": shares or {}, "reason": "classes look different here"}
    return KNOWN | {
        "level": level, "score": score, "cause": cause, "statistics": {"mmd": STATISTIC}, "prior": prior,
        "conditional": conditional,
    }  # fmt: skip


UNJUDGED = KNOWN | {
    "level": "unknown", "score": None, "cause": "", "statistics": {}, "conditional": None, "n": 3,
    "prior": {"refused": True, "classes": {}}, "reason": "3 of 10 sources are bright enough",
}  # fmt: skip


@pytest.fixture
def tell(context):
    like = next(iter(context.commits.values()))

    def add(verdicts):
        commits: dict[Unit, Commit] = dict(context.commits)
        for name, verdict in verdicts.items():
            unit = dataclasses.replace(like.unit, field=name, stage="shift")
            commits[unit] = dataclasses.replace(like, unit=unit, summaries={"shift_verdict": verdict})
        return dataclasses.replace(context, commits=commits)

    return add


def test_there_is_a_line_a_field_and_the_loudest_is_first(tell):
    shares = {
        "FRI": {"estimate": 0.4, "low": 0.3, "high": 0.5},
        "FRII": {"estimate": 0.6, "low": 0.5, "high": 0.7},
    }
    found = tell(
        {
            "quiet": judged("green", 0.02, shares=shares),
            "dumb": UNJUDGED,
            "<script>x": judged("red", 0.34, "beam"),
            "some": judged("amber", 0.12, "size"),
        }
    )
    assert list(read_verdicts(found)) == ["<script>x", "some", "quiet", "dumb"]
    body = show_shift(found).body
    rows = [
        re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)
    ]
    lines = {
        row[0].strip(): [cell.strip() for cell in row] for row in rows if len(row) == 8 and row[0].strip()
    }
    assert lines["quiet"][-1] and {"quiet", "some", "dumb", str(escape("<script>x"))} <= set(lines)
    first = [row for row in rows if row][:4]
    assert [cell.strip() for cell in first[0]][1:7] == ["red", "0.34", "beam", "0.005", "60", "7"]
    assert "classes look different here" in first[0][7] and "FRII 0.60 (0.50 – 0.70)" in first[2][7]
    assert "3 of 10 sources are bright enough" in first[3][7] and "–" in first[3][2]
    assert "<script>" not in body and "trial &lt;b&gt;" in body and "made &lt;i&gt;" in body
    assert body.count("<img ") == 1 and 'alt="Scores of the shift of 3 fields"' in body


def test_each_distance_is_above_what_chance_makes_of_it(tell):
    body = show_shift(tell({"one": judged("red", 0.3, "beam")})).body
    rows = [
        re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)
    ]
    rows = [[cell.strip() for cell in row] for row in rows if row][1:]
    assert [row[1] for row in rows] == ["mmd", "by chance"] * 2 + ["answers", "by chance"]
    assert rows[0][3:] == ["0.123", "0.1 – 0.15", "0.005", "60", "28"]
    assert rows[1][3:5] == ["0.007", "0.003 – 0.011"]


def test_fields_that_cannot_be_judged_make_no_figure(tell):
    body = show_shift(tell({"one": UNJUDGED})).body
    assert "unknown" in body and "<img" not in body and "<details>" not in body


def test_there_is_no_panel_without_the_stage(context):
    assert show_shift(context) is None


def test_fields_and_squares_are_on_the_map_and_runs_on_the_curve(tell, context):
    names = context.release.fields
    square = {"x": [-0.5, 63.5], "y": [-0.5, 63.5], "n": 30, "p_value": 0.5, "cause": ""}
    squares = [
        square | {"level": "green", "score": 0.02},
        square | {"x": [63.5, 127.5], "level": "unknown", "score": None, "p_value": None, "n": 9},
    ]
    shares = {name: {"estimate": 0.5, "low": 0.4, "high": 0.6} for name in ("FRI", "FRII")}
    verdict = judged("green", 0.02, shares=shares) | {"squares": squares}
    html = str(show_shift(tell({names[0]: verdict})).body)
    assert "Sky map of the shift of 1 fields" in html and "0 – 64" in html and "64 – 128" in html
    assert "once a later run finds something else" in html
    entry = {"fields": {"one": {"level": "green", "score": 0.1}}, "release": None}
    later = {"fields": {"one": {"level": "red", "score": 0.3}, "two": {"level": "unknown", "score": None}}}
    entries = [
        {"number": 1, "when": "2026-01-01T00:00:00Z", "entry": entry},
        {"number": 2, "when": "2026-02-01T00:00:00Z", "entry": later | {"release": None}},
    ]
    assert "Scores of the shift over 2 runs" in str(draw_history(entries))


def test_all_fields_together_are_told_above_the_fields(tell, context):
    made = tell({"sky": judged("red", 0.3, "beam")})
    unit = dataclasses.replace(next(iter(made.commits)), field="", stage="shift_release")
    whole = judged("amber", 0.12, "size") | {"fields": 4}
    like = next(iter(context.commits.values()))
    commit = dataclasses.replace(like, unit=unit, summaries={"shift_release_verdict": whole})
    html = str(show_shift(dataclasses.replace(made, commits={**made.commits, unit: commit})).body)
    assert (
        "All fields together: <b>amber</b>, likely cause size, score 0.12, by 60 sources of 4 fields" in html
    )
    assert "By itself sky is red: classes there are not to be trusted" in html
    both = tell({"sky": judged("red", 0.3, "beam"), "sea": judged("red", 0.4, "beam")})
    html = str(show_shift(dataclasses.replace(both, commits={**both.commits, unit: commit})).body)
    assert "By themselves sea, sky are red: classes there" in html
    calm = tell({"sky": judged("amber", 0.3, "beam")})
    html = str(show_shift(dataclasses.replace(calm, commits={**calm.commits, unit: commit})).body)
    assert "by 60 sources of 4 fields." in html and "By " not in html
