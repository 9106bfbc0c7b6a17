"""Records of a release that are read back: whatever is in them, nobody is told of a fault in survey_ml."""

from __future__ import annotations

import json
import os
import shutil

import pytest

ODD = {
    "empty": b"",
    "cut": b'{"format": 1, "na',
    "list": b"[]",
    "null": b"null",
    "text": b'"text"',
    "object": b"{}",
    "binary": b"\xff\xfe\x00{}",
    "deep": b"[" * 100_000,
    "entries": b'{"a": "text", "b": [], "c": {"stamp": 1}}',
}
FAULT = "fault in survey_ml"


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("records")


@pytest.fixture
def done(call, release, module_folder):
    """Return the YAML of a release that has run; it runs once, and each test gets a copy of it."""
    kept = module_folder / "out"
    out = release.parent / "out"
    if not kept.exists():
        assert call("run", release, "--quiet").code == 0
        shutil.copytree(out, kept)
    else:
        shutil.copytree(kept, out)
    return release


def list_records(out):
    """Return every JSON file of a release that is no log and no array, and the checksums."""
    found = [
        path for path in out.rglob("*.json") if "catalogue" not in path.parts or path.name == "_COMMIT.json"
    ]
    return sorted(path.relative_to(out) for path in [*found, *out.glob("logs/*"), out / "SHA256SUMS"])


@pytest.mark.parametrize("odd", ODD)
def test_odd_records_never_end_as_a_fault_in_survey_ml(call, done, odd):
    out = done.parent / "out"
    for record in [*list_records(out), "taken.json", "lease.json", "quarantine/east/level/0_0.json"]:
        path = out / record
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(ODD[odd])
        if path.name == "lease.json":
            # A damaged lease is watched for as long as one holds: only looked at here.
            commands = [("status", out)]
        else:
            commands = [("status", out, "--verify"), ("export", out), ("gc", done)]
        for command in commands:
            answer = call(*command)
            assert FAULT not in answer.err, (record, command, answer.err)
            assert answer.code == 0 or "hint: " in answer.err, (record, command, answer.err)
        path.unlink()
        if before is not None:
            path.write_bytes(before)


@pytest.mark.parametrize("record", ["release.json", "taken.json", "inputs.json", "scope.json", "SHA256SUMS"])
@pytest.mark.parametrize("odd", ["list", "binary", "entries"])
def test_a_run_goes_on_past_odd_records_or_says_what_to_remove(call, done, record, odd):
    path = done.parent / "out" / record
    path.write_bytes(ODD[odd])
    command = ("watch", done, "--once", "--every", "0.1s") if record == "taken.json" else ("run", done)
    answer = call(*command)
    assert FAULT not in answer.err
    if record == "release.json":
        assert answer.code == 2 and str(path) in answer.err and "Remove that file" in answer.err
        path.unlink()
        answer = call(*command)
    assert answer.code == 0
    assert "16 were done already" in answer.out
    assert call("status", done, "--verify").code == 0


def test_wrong_types_inside_the_description_of_a_release_are_named(call, done):
    path = done.parent / "out/release.json"
    good = json.loads(path.read_text())
    for change in ({"name": 3}, {"config": []}, {"base": None}, {"source": {}}):
        path.write_text(json.dumps(good | change))
        for command in ("status", "export", "report"):
            answer = call(command, path.parent)
            assert answer.code == 2 and f"{path} is damaged" in answer.err, (change, command)
    for change in ({"fields": 3}, {"stages": []}, {"seed": "x"}, {"tiling": 7}, {"name": None}):
        path.write_text(json.dumps(good | {"config": good["config"] | change}))
        for command in ("status", "export", "report"):
            answer = call(command, path.parent)
            assert answer.code == 2 and FAULT not in answer.err, (change, command, answer.err)


@pytest.mark.parametrize("record", ["release.json", "lease.json", "scope.json", "inputs.json", "taken.json"])
def test_a_folder_in_the_place_of_a_record_is_named_with_what_helps(call, done, record):
    path = done.parent / "out" / record
    path.unlink(missing_ok=True)
    path.mkdir()
    command = ("watch", done, "--once", "--every", "0.1s") if record == "taken.json" else ("run", done)
    answer = call(*command)
    assert answer.code == 2
    assert f"Remove the folder {path}" in answer.err
    path.rmdir()
    assert call(*command).code == 0


def test_a_pipe_in_the_place_of_a_record_holds_nobody_up(call, done):
    path = done.parent / "out/release.json"
    path.unlink()
    os.mkfifo(path)
    answer = call("status", path.parent)
    assert answer.code == 2 and "is damaged" in answer.err


def test_what_is_no_checksum_is_named_and_nothing_elsewhere_is_touched(call, done, tmp_path):
    sums = done.parent / "out/SHA256SUMS"
    outside = tmp_path / "outside.txt"
    outside.write_text("precious")
    good = sums.read_bytes()
    lines = [
        b"no checksum",
        b"0" * 64 + b"  ../../outside.txt",
        b"0" * 64 + b"  catalogue/../../../outside.txt",
    ]
    sums.write_bytes(good + b"\n".join([*lines, b"\xff\xfe"]) + b"\n")
    answer = call("status", done, "--verify", "--repair", "--json")
    assert answer.code == 1
    first = len(good.splitlines()) + 1
    assert [item["cause"] for item in answer.json["damaged"]] == [
        f"line {number} of SHA256SUMS is no checksum of this release" for number in range(first, first + 4)
    ]
    assert outside.read_text() == "precious"
    assert call("run", done).code == 0
    assert sums.read_bytes() == good
    assert call("status", done, "--verify").code == 0
