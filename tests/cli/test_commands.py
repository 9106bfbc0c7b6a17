"""The commands on a small release, in this process."""

from __future__ import annotations

import getpass
import json
import os
import platform
from importlib.util import find_spec

import pytest
from cli_release import write_image

from survey_ml import Release, __version__
from survey_ml.cli.demo import pick_model
from survey_ml.cli.units import order_stages


def test_run_plan_status_go_together(call, release):
    before = call("plan", release, "--json").json
    assert before["counts"]["todo"] == 16
    first = call("run", release, "--json")
    assert first.code == 0, first.err
    assert first.json["done"] == 16
    assert "a stage that prints" in first.err
    assert [row["name"] for row in first.json["stages"]] == ["ingest", "level"]

    again = call("run", release)
    assert again.code == 0, again.err
    assert "\n0 units done, 16 were done already" in again.out
    assert "16 were done already" in again.out
    assert call("plan", release).out.endswith("nothing would be done\n")

    changed = call("plan", release, "--set", "level.scale=2", "--json").json
    assert changed["stages"] == {"ingest": {"done": 8}, "level": {"stale": 8}}
    assert "option scale" in next(u["reason"] for u in changed["units"] if u["state"] == "stale")
    assert "level: 8 stale: option scale" in call("plan", release, "--set", "level.scale=2").out

    out = release.parent / "out"
    assert call("plan", out).out == call("plan", release).out
    assert call("plan", out, "--set", "level.scale=2", "--json").json["stages"] == changed["stages"]
    refused = call("plan", out, "--set", "level.scal=2")
    assert refused.code == 2 and "--set level.scal: unknown key scal" in refused.err
    assert call("plan", release.parent).code == 2
    folder = call("run", out)
    assert folder.code == 2 and str(release) in folder.err

    state = call("status", out, "--verify", "--json")
    assert state.code == 0
    assert state.json["rows"] == {"levels": 8}
    assert state.json["stages"]["level"]["done"] == 8


def test_what_has_not_run_yet_is_said_to_be_so(call, release):
    for command in ("status", "export", "report"):
        answer = call(command, release)
        assert answer.code == 2
        assert answer.err == f"error: {release}: not run yet\nhint: survey-ml run {release}\n"


def test_what_brought_a_stage_is_in_the_provenance(call, release, level_plugin, monkeypatch):
    def read_origin(stage):
        crate = json.loads((release.parent / "out" / "ro-crate-metadata.json").read_text())
        (step,) = [entry for entry in crate["@graph"] if entry["@id"] == f"#stage-{stage}"]
        told = {one["name"]: one["value"] for one in step["additionalProperty"]}
        return told["distribution"], told["distribution_version"]

    assert call("run", release, "--quiet").code == 0
    page = (release.parent / "out" / "report.html").read_text()
    assert read_origin("level") == ("plugin-level", "1.0") and "plugin-level 1.0" in page
    assert read_origin("ingest") == ("survey-ml", __version__) and f"survey-ml {__version__}" in page
    units = Release.open(release.parent / "out").provenance()["units"]
    assert {unit["info"]["distribution"] for unit in units} == {"survey-ml", "plugin-level"}
    # An upgrade that changes no numbers does nothing again, and is not said to have made what it did not.
    (level_plugin / "plugin_level-1.0.dist-info").rename(level_plugin / "plugin_level-1.1.dist-info")
    metadata = level_plugin / "plugin_level-1.1.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "1.1"))
    monkeypatch.syspath_prepend(str(level_plugin.parent))  # what is installed is looked up once a path
    sorted((release.parent / "out").glob("units/east/level/*/*/levels.parquet"))[0].unlink()
    assert call("run", release, "--json").json["done"] == 1
    assert read_origin("level") == ("plugin-level", "1.0, 1.1")


def test_export_writes_what_is_asked_for(call, release):
    assert call("run", release, "--quiet").code == 0
    folder = release.parent / "out" / "catalogue"
    assert (folder / "levels.vot").exists()
    answer = call("export", release, "parquet", "--map", "image", "--json")
    assert answer.code == 0, answer.err
    assert all((folder / name).exists() for name in answer.json["files"])
    assert (folder / "levels.parquet").exists()
    assert not (folder / "levels.vot").exists()
    assert list(folder.rglob("*image*.fits"))
    wrong = call("export", release, "votabel")
    assert wrong.code == 2
    assert "did you mean votable?" in wrong.err


def test_report_writes_the_page_again(call, release):
    assert call("run", release, "--quiet").code == 0
    page = release.parent / "out" / "report.html"
    page.unlink()
    answer = call("report", release, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["report"] == str(page)
    assert page.stat().st_size > 1000


def test_a_failing_stage_sets_its_tiles_aside_and_is_named(call, release):
    answer = call("run", release, "--set", "level.fail=true")
    assert answer.code == 2
    assert "failed on purpose" in answer.err
    assert "stage level" in answer.err


def test_a_bad_field_is_set_aside_and_the_others_go_on(call, release):
    write_image(release.parent / "nobeam.fits", beam=False)
    answer = call("run", release, "--json")
    assert answer.code == 1
    assert [aside["field"] for aside in answer.json["set_aside"]] == ["nobeam"]
    assert answer.json["done"] == 16


def test_one_run_at_a_time_works_on_a_release(call, release):
    from survey_ml.data.lease import hold_lease
    from survey_ml.data.store import ReleaseStore

    assert call("run", release).code == 0
    description = release.parent / "out" / "release.json"
    kept = description.read_bytes()
    with hold_lease(ReleaseStore.open(str(release.parent / "out")).medium):
        refused = call("run", release, "--set", "level.scale=2")
        assert refused.code == 2
        assert "another run is at work" in refused.err and "hint" in refused.err
        assert f"@{platform.node()}, process {os.getpid()}, since 20" in refused.err
        assert description.read_bytes() == kept
        told = call("status", release)
        assert told.code == 0
        assert f"at work: {getpass.getuser()}@{platform.node()}, process {os.getpid()}, since 20" in told.out
        for command in ("export", "report"):
            assert call(command, release).code == 2
        assert call("status", release, "--repair").code == 2
        assert call("status", release, "--json").json["held_by"]["pid"] == os.getpid()
    assert call("run", release).code == 0


def test_quiet_says_nothing(call, release):
    answer = call("run", release, "--quiet")
    assert answer.code == 0
    assert answer.out.replace("a stage that prints\n", "") == ""


def test_images_run_without_a_yaml(call, release, tmp_path):
    out = tmp_path / "quick"
    answer = call(
        "run", release.parent / "east.fits", "--out", out, "--engine", "local", "--set", "level.scale=2",
        "--only", "level", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.json["out"] == str(out)
    assert [row["name"] for row in answer.json["stages"]] == ["ingest", "level"]


def test_plugins_as_json(call, level_plugin):
    found = call("plugins", "--json").json
    (level,) = [stage for stage in found["stages"] if stage["name"] == "level"]
    assert (level["distribution"], level["distribution_version"]) == ("plugin-level", "1.0")
    assert [product["name"] for product in level["reads"]] == ["image"]
    assert level["resources"]["memory"] == 1 << 20
    assert found["broken"] == []


def test_the_demo_scores_itself_against_its_truth(call, tmp_path):
    if find_spec("firstgalaxydata") is None:
        pytest.skip("the demo's galaxies are not installed: pip install --no-deps firstgalaxydata")
    folder = tmp_path / "demo"
    args = ("demo", "--out", folder, "--size", 512, "--fields", 2, "--engine", "local")
    first = call(*args, "--json")
    assert first.code == 0, first.err
    whole = first.json["scores"][-1]
    assert whole["completeness"]["n"] > 10
    assert whole["completeness"]["value"] > 0.9
    assert whole["reliability"]["value"] > 0.9
    classes = first.json["morphology"]
    assert (classes is not None) == bool(pick_model())
    if classes is not None:
        right = sum(row["right"]["k"] for row in classes["kinds"])
        assert classes["accuracy"]["k"] == right and classes["accuracy"]["n"] >= 1
        assert 0 <= classes["unflagged"]["n"] <= classes["accuracy"]["n"]
        assert sum(sum(row["called"].values()) for row in classes["kinds"]) >= classes["accuracy"]["n"]
    # Fields this small hold too few objects, and that is what is said.
    assert {one["level"] for one in first.json["shift"].values()} <= {"unknown"}
    assert list(first.json["shift"]) == (["demo_1", "demo_2", "all"] if classes is not None else [])
    again = call(*args)
    assert again.code == 0, again.err
    assert "against the truth" in again.out
    assert ("\nsources against what the model was made for" in again.out) == (classes is not None)
    assert ("\nclasses by " in again.out) == (classes is not None) == ("\nnot flagged " in again.out)
    assert f"{folder}/release/report.html" in again.out
    assert all(row.split()[2] == "0" for row in again.out.splitlines() if row.startswith("extraction"))


def test_stages_are_listed_as_they_run():
    names = {"extraction", "gone", "ingest", "noise", "forced"}
    assert order_stages(names, {}) == ["ingest", "noise", "extraction", "forced", "gone"]
