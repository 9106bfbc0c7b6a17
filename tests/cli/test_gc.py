"""What is removed from a release, and that nothing else is touched; on disk and in a bucket."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import pytest

from survey_ml.data.commit import Unit, list_commits, list_quarantine, quarantine
from survey_ml.data.lease import LEASE, hold_lease, read_holder
from survey_ml.data.store import ReleaseStore


@pytest.fixture(params=["disk", "s3"])
def store(request, call, release) -> ReleaseStore:
    """Return a finished release that the YAML names."""
    if request.param == "s3":
        bucket = request.getfixturevalue("s3_bucket")
        text = release.read_text().replace("out: out", f"out: s3://{bucket}/out")
        release.write_text(text)
        out = f"s3://{bucket}/out"
    else:
        out = str(release.parent / "out")
    assert call("run", release).code == 0
    return ReleaseStore(out)


def hash_all(store: ReleaseStore) -> dict[str, str]:
    """Return the checksum of every file."""
    medium = store.medium
    files = [path for path, _ in medium.walk_files("")]
    return {path.lstrip("/"): hashlib.sha256(medium.read(path)).hexdigest() for path in files}


def test_clean_removes_what_interrupted_runs_left_and_only_that(call, release, store):
    before = hash_all(store)
    medium = store.medium
    if "://" in store.out:
        left = ["units/east/level/9_9/" + "a" * 64 + "/levels.parquet", ".probe"]
    else:
        left = ["units/east/level/.tmp-1/levels.parquet", "store.zarr/east/image/.tmp-x-0.0", ".tmp-old-y"]
    for path in left:
        medium.replace(path, b"half")
    with hold_lease(medium):
        holder = read_holder(medium)
        assert call("status", release, "--clean").code == 2
        assert set(left) <= set(hash_all(store))
    # A lease whose holder is gone: a process of this number that started at another time.
    assert medium.create(LEASE, replace(holder, born="1").encode())
    said = call("status", release, "--clean")
    assert said.code == 0
    for path in left:
        assert path.rpartition("/")[0] in said.out or path in said.out
    assert "lease.json" in said.out and "removed" in said.out
    assert hash_all(store) == before
    assert call("status", release, "--clean", "--json").json["residue"] == []
    assert call("run", release, "--json").json["done"] == 0


def test_gc_lists_first_and_removes_only_what_nothing_reaches(call, release, store):
    whole = hash_all(store)
    assert call("gc", release, "--json").json == {"items": [], "bytes": 0, "removed": False}
    quarantine(store, Unit("east", "level", "7_7"), "k", "killed its worker", "", 3)
    quarantine(store, Unit("east", "level", "0_0"), "k", "killed its worker", "", 3)
    store.medium.replace("store.zarr/east/rms/zarr.json", b"{}")
    store.medium.replace("store.zarr/east/rms/c/0/0", b"pixels")
    store.medium.replace("store.zarr/east/image/c/8/8", b"pixels")
    store.medium.replace("units/east/older/0_0/" + "b" * 64 + "/_COMMIT.json", b"{}")
    (release.parent / "west.fits").unlink()
    before = hash_all(store)
    answer = call("gc", release, "--json").json
    assert hash_all(store) == before
    assert {item["path"] for item in answer["items"]} == {
        "units/west", "store.zarr/west", "units/east/older", "store.zarr/east/rms",
        "store.zarr/east/image/c/8/8",
        "quarantine/east/level/7_7.json",
    }  # fmt: skip
    said = call("gc", release)
    assert "no longer named" in said.out and "--yes" in said.out
    gone = [item["path"] for item in answer["items"]]
    with hold_lease(store.medium):
        assert call("gc", release, "--yes").code == 2
    assert call("gc", release, "--yes", "--dry-run").code == 0
    assert hash_all(store) == before
    removed = call("gc", release, "--yes", "--json").json
    assert removed["removed"] and removed["bytes"] == answer["bytes"] > 0
    kept = {p: h for p, h in before.items() if not any(p == g or p.startswith(f"{g}/") for g in gone)}
    assert hash_all(store) == kept
    assert list_quarantine(store).keys() == {Unit("east", "level", "0_0")}
    assert {unit.field for unit in list_commits(store)} == {"east"}
    assert set(kept) - {"quarantine/east/level/0_0.json"} < set(whole)
    assert call("gc", release, "--json").json["items"] == []


def test_stale_commits_go_and_are_made_again(call, release, store):
    before = {unit.stage for unit in list_commits(store)}
    settings = ("--set", "level.scale=3")
    answer = call("gc", release, *settings, "--json").json
    assert len(answer["items"]) == 8
    assert all("/level/" in item["path"] for item in answer["items"])
    call("gc", release, *settings, "--yes")
    assert {unit.stage for unit in list_commits(store)} == before - {"level"}
    assert call("run", release, "--json").json["done"] == 8


def test_a_field_whose_image_is_missing_keeps_all_it_has(call, release):
    text = release.read_text().replace("'*.fits'", "'east.fits', 'west.fits'")
    release.write_text(text)
    assert call("run", release).code == 0
    shutil.move(release.parent / "west.fits", release.parent / "away")
    assert call("gc", release, "--json").json["items"] == []
    release.write_text(text.replace("'east.fits', 'west.fits'", "'no*.fits'"))
    said = call("gc", release, "--yes")
    assert said.code == 2
    assert "matches nothing" in said.err
    (release.parent / "away").write_bytes(b"SIMPLE  = damaged")
    shutil.move(release.parent / "away", release.parent / "west.fits")
    release.write_text(text)
    assert call("gc", release, "--json").json["items"] == []
    assert json.loads(json.dumps(call("plan", release, "--json").json))["set_aside"]
