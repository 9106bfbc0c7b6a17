"""`survey-ml init` and `survey-ml check`: before anything is run."""

from __future__ import annotations

import pytest
from cli_release import write_image

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
