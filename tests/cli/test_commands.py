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
from survey_ml.errors import DamagedError
from survey_ml.loader import load_config


def test_init_writes_a_yaml_that_is_valid_and_never_overwrites(call, tmp_path, monkeypatch):
    folder = tmp_path / "my survey"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert call("init").code == 0
    path = folder / "release.yaml"
    text = path.read_text()
    config = load_config(path)
    assert config.release.name == "my-survey-release"
    assert config.release.stages == {"extraction": {}}
    assert "seed_snr" in text
    path.write_text("mine")
    answer = call("init")
    assert answer.code == 2
    assert "is there already" in answer.err
    assert path.read_text() == "mine"
    assert call("init", "no/such/folder.yaml").code == 2


@pytest.mark.parametrize(
    ("names", "fields"),
    [
        ((), ("*.fits",)),
        (("a.fits.fz", "b.fits.fz"), ("*.fits.fz",)),
        (("a.FITS", "b.fits", "c.txt"), ("*.fits", "*.FITS")),
    ],
)
def test_init_names_the_images_beside_it(call, tmp_path, names, fields):
    for name in names:
        (tmp_path / name).write_text("")
    assert call("init", tmp_path / "release.yaml").code == 0
    assert load_config(tmp_path / "release.yaml").release.fields == fields


def test_init_then_check_is_well(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "a.fits")
    assert call("init", "x.yaml").code == 0
    answer = call("check", "x.yaml")
    assert answer.code == 0, answer.err
    assert "96 x 96" in answer.out


def test_check_lists_fields_graph_and_estimate(call, release):
    answer = call("check", release)
    assert answer.code == 0, answer.err
    assert "east" in answer.out
    assert "west" in answer.out
    assert "image <- ingest" in answer.out
    assert "2 fields, 0.0 Mpx, 8 tiles, 16 units" in answer.out
    assert not (release.parent / "out").exists()


def test_check_as_json(call, release):
    found = call("check", release, "--json").json
    assert [field["name"] for field in found["fields"]] == ["east", "west"]
    assert found["fields"][0]["beam_arcsec"][:2] == pytest.approx([8.0, 8.0])
    assert found["stages"] == ["ingest", "level"]
    assert found["estimate"]["tiles"] == 8
    assert found["set_aside"] == []


def test_check_says_that_a_gpu_is_not_here(call, release, level_plugin, monkeypatch):
    path = level_plugin / "plugin_level.py"
    path.write_text(path.read_text().replace("Resources(memory=1 << 20)", "Resources(gpus=0.5)"))
    monkeypatch.setattr("survey_ml.conformance.check.count_gpus", lambda: 0)
    answer = call("check", release)
    assert answer.code == 0, answer.err
    assert "note: stage level asks for 0.5 GPU a worker, and this machine has none" in answer.out
    assert len(call("check", release, "--json").json["notes"]) == 1
    monkeypatch.setattr("survey_ml.conformance.check.count_gpus", lambda: 1)
    assert call("check", release, "--json").json["notes"] == []


def test_check_says_where_a_header_wins_over_a_default(call, release):
    text = release.read_text() + "defaults: {beam_arcsec: [20.0, 20.0, 0.0]}\n"
    release.write_text(text)
    answer = call("check", release, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["fields"][0]["beam_arcsec"][0] == pytest.approx(8.0)
    assert "beam" in " ".join(answer.json["fields"][0]["notes"])
    assert "note: fields east, west: " in call("check", release).out


def test_check_says_what_came_from_defaults_and_what_is_not_known(call, release):
    write_image(release.parent / "nobeam.fits", beam=False)
    release.write_text(release.read_text() + "defaults: {beam_arcsec: [8.0, 8.0, 0.0]}\n")
    answer = call("check", release)
    assert answer.code == 0, answer.err
    assert "note: field nobeam: the beam, 8 x 8 arcsec, is from `defaults`" in answer.out
    from astropy.io import fits

    with fits.open(release.parent / "east.fits", mode="update") as opened:
        del opened[0].header["RESTFRQ"]
    answer = call("check", release)
    assert "note: field east: no frequency is known: that column stays empty" in answer.out


def test_check_without_a_usable_field_estimates_nothing(call, release):
    for path in release.parent.glob("*.fits"):
        path.unlink()
    write_image(release.parent / "nobeam.fits", beam=False)
    answer = call("check", release)
    assert answer.code == 2
    assert "estimated" not in answer.out and "beam / arcsec" not in answer.out
    assert "1 of 1 field cannot be processed" in answer.err
    assert call("check", release, "--json").json["estimate"] is None


def test_a_quoted_pattern_and_a_missing_beam_on_the_command_line(call, release, tmp_path):
    write_image(release.parent / "nobeam.fits", beam=False)
    answer = call("check", release.parent / "nobeam.fits", release.parent / "*.fit")
    assert answer.code == 2
    assert "--set defaults.beam_arcsec='[5.4,5.4,0]'" in answer.err
    assert "[*]" not in answer.err and "*.fit" in answer.err and "quotes" in answer.err
    mended = call(
        "check", release.parent / "nobeam.fits", "--set", "defaults.beam_arcsec=[5.4,5.4,0]", "--json"
    )
    assert mended.code == 0, mended.err


def test_check_mermaid_is_the_graph_and_nothing_else(call, release):
    answer = call("check", release, "--mermaid")
    assert answer.out.startswith("graph LR\n")
    assert "ingest -->|image| level" in answer.out


def test_check_names_every_bad_field(call, release):
    write_image(release.parent / "nobeam.fits", beam=False)
    (release.parent / "text.fits").write_text("not an image")
    answer = call("check", release)
    assert answer.code == 1
    assert "field nobeam" in answer.err
    assert "field text" in answer.err
    assert "2 of 4 fields cannot be processed" in answer.err
    only_bad = call("check", release.parent / "text.fits")
    assert only_bad.code == 2


def test_check_of_images_needs_no_yaml(call, release):
    answer = call("check", release.parent / "east.fits", release.parent / "west.fits", "--json")
    assert answer.code == 0, answer.err
    assert len(answer.json["fields"]) == 2


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


def test_status_finds_a_flipped_byte_and_repair_lets_it_be_made_again(call, release):
    assert call("run", release, "--quiet").code == 0
    part = sorted((release.parent / "out" / "units").rglob("levels.parquet"))[0]
    good = part.read_bytes()
    part.write_bytes(good[:50] + bytes([good[50] ^ 1]) + good[51:])
    assert call("status", release).code == 0
    found = call("status", release, "--verify", "--json")
    assert found.code == 1
    assert "differs" in found.json["damaged"][0]["cause"]
    assert call("status", release, "--verify", "--repair").code == 1
    mended = call("run", release, "--json").json
    assert mended["done"] == 1
    assert call("status", release, "--verify").code == 0


def test_damaged_metadata_of_an_array_are_found_and_mended(call, release):
    assert call("run", release, "--quiet").code == 0
    path = release.parent / "out" / "store.zarr" / "east" / "image" / "zarr.json"
    good = path.read_bytes()
    path.write_bytes(good[:50])
    found = call("status", release, "--verify", "--repair", "--json")
    assert found.code == 1
    assert [
        (entry["field"], "image/zarr.json is damaged" in entry["cause"]) for entry in found.json["damaged"]
    ] == [("east", True)]
    assert path.read_bytes() == good
    assert call("status", release, "--verify").code == 0


def test_damage_found_while_the_catalogue_is_written_is_mended(call, release):
    assert call("run", release, "--quiet").code == 0
    parts = sorted((release.parent / "out" / "units").rglob("levels.parquet"))
    good = [part.read_bytes() for part in parts]
    for part, data in zip(parts[:2], good[:2], strict=True):
        part.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    answer = call("run", release, "--set", "export.prefix=XYZ", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["redone"] == 2
    assert [part.read_bytes() for part in parts] == good
    assert call("status", release, "--verify").code == 0


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('export.formats=["fitz"]', "no exporter fitz"),
        ('export.maps=["rmss"]', "no stage makes an array rmss"),
        ("reference_catalogue=absent.csv", "reference_catalogue: there is no file"),
        ("truth=absent.csv", "truth: there is no file"),
    ],
)
def test_what_cannot_be_written_is_an_error_before_any_work(call, release, setting, words):
    for command in ("check", "run"):
        answer = call(command, release, "--set", setting)
        assert answer.code == 2
        assert words in answer.err
    assert not (release.parent / "out").exists()


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("setting", "header", "row", "words"),
    [
        ("reference_catalogue", "RA_deg,DE_deg,F", "1,2,3", "list.csv has no column ra, dec"),
        ("reference_catalogue", "ra,dec,flux", "1,2,3", "list.csv has no column peak_flux"),
        ("reference_catalogue", "RA,Dec,Peak_flux", "12:30:00,+5:0:0,3", "ra, dec holds no numbers"),
        ("truth", "ra,dec,flux", "1,2,3", "list.csv has no column peak_flux"),
        ("truth", "ra,dec,snr", "1,2,3", ""),
        ("reference_catalogue", "RA,Dec,Peak_flux", "1,2,3", ""),
    ],
)
def test_catalogues_to_compare_with_are_read_before_any_work(
    call, release, command, setting, header, row, words
):
    (release.parent / "list.csv").write_text(f"{header}\n{row}\n")
    answer = call(command, release, "--set", f"{setting}=list.csv")
    if not words:
        assert answer.code == 0, answer.err
        return
    assert answer.code == 2
    assert answer.err.startswith(f"error: {setting}: ") and words in answer.err
    assert "Jy/beam" in answer.err
    assert not (release.parent / "out").exists()


@pytest.mark.parametrize("place", ["new/and/deep", "old"])
def test_a_run_that_is_refused_leaves_nothing_behind(call, release, place):
    base = release.parent
    (base / "old").mkdir()
    (base / "old" / "notes.txt").write_text("mine")
    (base / "text.fits").write_text("no image")
    out = base / place
    before = sorted(base.rglob("*"))
    for command in (
        ("run", base / "gone.fits", "--out", out),
        ("run", base / "*.fit", base / "text.fits", "--out", out),
        ("run", release, "--out", out, "--only", "nothing"),
        ("run", release, "--out", out, "--set", "export.formats=[papyrus]"),
        ("run", release, "--out", out, "--set", f"engine.metrics_file={base}/text.fits/metrics"),
    ):
        answer = call(*command)
        assert answer.code == 2 and "hint: " in answer.err, (command, answer.err)
        assert sorted(base.rglob("*")) == before, command
    assert call("run", base / "east.fits", base / "text.fits", "--out", out, "--only", "ingest").code == 1


def test_what_was_there_before_a_run_that_is_refused_stays(call, release):
    assert call("run", release, "--quiet").code == 0
    out = release.parent / "out"
    before = {
        path: path.read_bytes() for path in out.rglob("*") if path.is_file() and "logs" not in path.parts
    }
    (out / "release.json").unlink()
    assert call("run", release.parent / "gone.fits", "--out", out).code == 2
    after = {
        path: path.read_bytes() for path in out.rglob("*") if path.is_file() and "logs" not in path.parts
    }
    assert after == {path: data for path, data in before.items() if path.name != "release.json"}
    assert "16 were done already" in call("run", release).out


def test_what_has_not_run_yet_is_said_to_be_so(call, release):
    for command in ("status", "export", "report"):
        answer = call(command, release)
        assert answer.code == 2
        assert answer.err == f"error: {release}: not run yet\nhint: survey-ml run {release}\n"


def test_a_damaged_catalogue_is_found_and_written_again(call, release):
    assert call("run", release, "--quiet").code == 0
    assert call("status", release, "--verify").code == 0
    table = release.parent / "out" / "catalogue" / "levels.parquet"
    good = table.read_bytes()
    table.write_bytes(good[:50] + bytes([good[50] ^ 1]) + good[51:])
    found = call("status", release, "--verify", "--repair", "--json")
    assert [entry["stage"] for entry in found.json["damaged"]] == ["catalogue"]
    assert call("run", release, "--quiet").code == 0
    assert table.read_bytes() == good
    assert call("status", release, "--verify").code == 0


def test_a_flipped_bit_in_the_catalogue_is_never_read_as_a_number(call, release):
    assert call("run", release, "--quiet").code == 0
    out = release.parent / "out"
    path = out / "catalogue" / "levels.parquet"
    good, page = path.read_bytes(), (out / "report.html").read_bytes()
    for at in range(0, len(good), len(good) // 40):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(DamagedError, match=r"levels\.parquet differs") as caught:
            Release.open(out).catalogue("levels")
    assert "--verify --repair" in caught.value.hint
    # The report is made of the parts then.
    assert call("report", out).code == 0
    assert (out / "report.html").read_bytes() == page
    assert call("status", out, "--verify", "--repair").code == 1
    assert call("run", release, "--quiet").code == 0
    assert path.read_bytes() == good
    assert len(Release.open(out).catalogue("levels")) == 8


def test_verify_says_how_many_files_it_compared_and_which_it_could_not(call, release):
    assert call("run", release, "--quiet").code == 0
    out = release.parent / "out"
    shards = [path for path in out.glob("store.zarr/*/*/c/*/*") if path.is_file()]
    parts = list(out.glob("units/**/*.parquet"))
    published = (out / "SHA256SUMS").read_text().splitlines()
    count = len(shards) + len(parts) + len(published)
    answer = call("status", release, "--verify")
    assert f"\n{count} files compared, each with the checksum that was written\n" in answer.out
    assert "no checksum" not in answer.out
    (out / "catalogue" / "notes.txt").write_text("by hand")
    (out / "SHA256SUMS").write_text("\n".join(published[1:]) + "\n")
    lost = published[0].partition("  ")[2]
    answer = call("status", release, "--verify")
    assert answer.code == 0
    assert f"\n{count - 1} files compared" in answer.out
    for path in ("catalogue/notes.txt", lost):
        assert f"\nno checksum, not compared: {path}\n" in answer.out
    found = call("status", release, "--verify", "--json").json
    assert found["files_verified"] == count - 1
    assert found["files_without_checksum"] == sorted(["catalogue/notes.txt", lost])


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


def test_images_need_an_output_folder(call, release):
    answer = call("run", release.parent / "east.fits")
    assert answer.code == 2
    assert "--out DIR" in answer.err
    both = call("run", release, release.parent / "east.fits")
    assert both.code == 2
    assert "one release YAML" in both.err
    empty = call("run", release, "--out", "")
    assert empty.code == 2
    assert "--out is empty" in empty.err


def test_images_run_without_a_yaml(call, release, tmp_path):
    out = tmp_path / "quick"
    answer = call(
        "run", release.parent / "east.fits", "--out", out, "--engine", "local", "--set", "level.scale=2",
        "--only", "level", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.json["out"] == str(out)
    assert [row["name"] for row in answer.json["stages"]] == ["ingest", "level"]


def test_only_an_unknown_stage_is_an_error(call, release):
    answer = call("run", release, "--only", "levle")
    assert answer.code == 2
    assert "ingest, level" in answer.err


def test_commands_that_need_a_release_say_when_there_is_none(call, tmp_path):
    for command in ("status", "export", "report"):
        answer = call(command, tmp_path)
        assert answer.code == 2, command
        assert "no survey_ml release" in answer.err


def test_unknown_stage_and_option_are_errors_before_any_work(call, release):
    answer = call("run", release, "--set", "levle.scale=2")
    assert answer.code == 2
    assert "did you mean level?" in answer.err
    answer = call("run", release, "--set", "level.scael=2")
    assert answer.code == 2
    assert "unknown key scael of stage level; did you mean scale?" in answer.err
    assert not (release.parent / "out").exists()


def test_wrong_options_in_the_yaml_are_named_with_their_line(call, release):
    text = release.read_text().replace("level: {}", "level: {scale: -1}")
    release.write_text(text)
    answer = call("check", release)
    assert (
        "release.yaml:3: scale of stage level: input should be greater than 0; given -1 (int)" in answer.err
    )


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
    again = call(*args)
    assert again.code == 0, again.err
    assert "against the truth" in again.out
    assert ("\nclasses by " in again.out) == (classes is not None) == ("\nnot flagged " in again.out)
    assert f"{folder}/release/report.html" in again.out
    assert all(row.split()[2] == "0" for row in again.out.splitlines() if row.startswith("extraction"))


def test_stages_are_listed_as_they_run():
    names = {"extraction", "gone", "ingest", "noise", "forced"}
    assert order_stages(names, {}) == ["ingest", "noise", "extraction", "forced", "gone"]
