"""What the shift monitor publishes: metrics that Prometheus reads, and entries of the history."""

from __future__ import annotations

import re

from survey_ml.export.shift import format_metrics, make_entry

MODEL = {"name": "trial", "hash": "a" * 64}
RED = {
    "level": "red", "score": 0.25, "cause": "beam", "n": 40, "n_left_out": 3, "model": MODEL,
    "conditional": {"effect": 0.3, "p_value": 0.005},
}  # fmt: skip
UNKNOWN = {
    "level": "unknown", "score": None, "cause": "", "n": 3, "n_left_out": 9, "model": MODEL,
    "conditional": None,
}  # fmt: skip
LINE = re.compile(r'^[a-z_]+\{(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+\} -?[0-9.e+-]+$')


def test_metrics_have_a_line_a_field_and_what_is_not_known_has_none():
    text = format_metrics('a "name"', {"one": RED, "two": UNKNOWN}, None)
    lines = text.splitlines()
    assert text.endswith("\n")
    assert r'survey_ml_shift_level{release="a \"name\"",field="one"} 2' in lines
    assert r'survey_ml_shift_level{release="a \"name\"",field="two"} -1' in lines
    assert r'survey_ml_shift_score{release="a \"name\"",field="one"} 0.25' in lines
    assert r'survey_ml_shift_cause_info{release="a \"name\"",field="one",cause="beam"} 1' in lines
    assert r'survey_ml_shift_sources_left_out{release="a \"name\"",field="two"} 9' in lines
    assert sum(line.startswith("survey_ml_shift_score{") for line in lines) == 1
    assert not any("release_level" in line for line in lines)
    values = [line for line in lines if not line.startswith("#")]
    assert all(LINE.match(line) for line in values)
    # Each metric is told of once, and its lines stand together.
    names = [line.partition("{")[0] for line in values]
    runs = [name for k, name in enumerate(names) if k == 0 or names[k - 1] != name]
    assert len(runs) == len(set(runs)) == text.count("# TYPE ") == text.count("# HELP ")


def test_all_fields_together_have_metrics_of_their_own():
    lines = format_metrics("r", {"one": UNKNOWN}, RED).splitlines()
    assert 'survey_ml_shift_release_level{release="r"} 2' in lines
    assert 'survey_ml_shift_release_cause_info{release="r",cause="beam"} 1' in lines
    assert format_metrics("r", {}, None) == ""


def test_an_entry_holds_what_is_compared_later():
    entry = make_entry({"one": RED}, UNKNOWN)
    model = "trial aaaaaaaaaaaa"
    assert entry["fields"] == {
        "one": {"level": "red", "score": 0.25, "cause": "beam", "n": 40, "model": model}
    }
    assert entry["release"]["level"] == "unknown" and make_entry({}, None)["release"] is None
