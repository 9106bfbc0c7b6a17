"""The panel of the shift monitor: what it says of fields that were judged, and of those that were not."""

from __future__ import annotations

import dataclasses
import re

import pytest
from markupsafe import escape

from survey_ml.data.commit import Commit, Unit
from survey_ml.report.panels.shift import read_verdicts, show_shift

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
