"""`run --strict`: a field whose sources the model was not made for is a fault of the run."""

from __future__ import annotations

from types import SimpleNamespace

from survey_ml.data.commit import Unit
from survey_ml.data.release import Release
from survey_ml.data.verdicts import find_red


def judge(monkeypatch, levels):
    """Let releases hold verdicts of these levels, by field."""

    honest = Release.commits

    def commits(self, field=None, stage=None):
        if stage != "shift":
            return honest(self, field, stage)
        return {
            Unit(name, stage, "field"): SimpleNamespace(
                summaries={"shift_verdict": {"level": level, "cause": "beam"}}
            )
            for name, level in levels.items()
        }

    monkeypatch.setattr(Release, "commits", commits)


def test_a_red_field_is_told_and_turns_the_exit_code(call, release, monkeypatch):
    judge(monkeypatch, {"west": "red", "east": "amber"})
    answer = call("run", release, "--strict", "--json")
    assert answer.code == 1 and answer.json["exit_code"] == 1 and answer.json["red"] == {"west": "beam"}
    assert "red: west: " in answer.err and "(beam)" in answer.err and "east" not in answer.err
    relaxed = call("run", release, "--json")
    assert relaxed.code == 0 and "red" not in relaxed.json


def test_amber_and_unknown_fields_are_no_fault(call, release, monkeypatch):
    judge(monkeypatch, {"west": "unknown", "east": "amber"})
    assert call("run", release, "--strict", "--quiet").code == 0


def test_a_release_without_the_stage_has_no_red_field(call, release):
    assert call("run", release, "--strict", "--json").json["red"] == {}
    assert find_red(release.parent / "out") == {}
