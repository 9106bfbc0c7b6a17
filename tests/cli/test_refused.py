"""What is refused before any work, and that it leaves nothing behind."""

from __future__ import annotations

import pytest


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


@pytest.mark.slow
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
    some = ("run", base / "east.fits", base / "text.fits", "--out", out, "--only", "ingest")
    assert call(*some, "--engine", "local").code == 1


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
