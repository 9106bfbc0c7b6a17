"""Damage that `survey-ml status --verify`, `run` and `export` find, name and mend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from survey_ml import Release
from survey_ml.errors import DamagedError


def test_status_finds_a_flipped_byte_and_repair_lets_it_be_made_again(call, release):
    assert call("run", release, "--quiet").code == 0
    part = sorted((release.parent / "out" / "units").rglob("levels.parquet"))[0]
    good = part.read_bytes()
    part.write_bytes(good[:50] + bytes([good[50] ^ 1]) + good[51:])
    assert call("status", release).code == 0
    assert "with --repair" in call("status", release, "--verify").err
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


def test_a_lost_catalogue_is_noticed_without_reading_and_put_together_again(call, release):
    assert call("run", release, "--quiet").code == 0
    assert call("plan", release, "--json").json["catalogue"] is True
    out = release.parent / "out"
    good = (out / "catalogue" / "levels.parquet").read_bytes()
    for lost in ("catalogue/levels.parquet", "report.html"):
        (out / lost).unlink()
        found = call("status", release, "--json")
        assert found.code == 1
        assert [entry["cause"] for entry in found.json["damaged"]] == [f"{lost} is missing"]
        for more in ((), ("--verify",)):
            assert "hint: the next run makes them again\n" in call("status", release, *more).err
        assert call("plan", release, "--json").json["catalogue"] is False
        assert call("plan", release).out.endswith("not whole, and would be put together again\n")
        assert call("run", release, "--quiet").code == 0
        assert call("status", release, "--verify").code == 0
    assert (out / "catalogue" / "levels.parquet").read_bytes() == good


def read_page(out: Path) -> str:
    """Return the report without the minute that it was made in."""
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", (out / "report.html").read_text())


def test_a_flipped_bit_in_the_catalogue_is_never_read_as_a_number(call, release):
    assert call("run", release, "--quiet").code == 0
    out = release.parent / "out"
    path = out / "catalogue" / "levels.parquet"
    good, page = path.read_bytes(), read_page(out)
    for at in range(0, len(good), len(good) // 40):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(DamagedError, match=r"levels\.parquet differs") as caught:
            Release.open(out).catalogue("levels")
    assert "--verify --repair" in caught.value.hint
    # The report is made of the parts then.
    assert call("report", out).code == 0
    assert read_page(out) == page
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
