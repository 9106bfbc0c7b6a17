"""``survey-ml run`` from images in a bucket to a catalogue in a bucket, undisturbed and disturbed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from survey_ml.data import s3
from survey_ml.data.commit import check_commit, list_commits
from survey_ml.data.store import ReleaseStore
from survey_ml.data.unreliable import Faults, UnreliableProxy

YAML = """name: small
fields: ['s3://{bucket}/in/*.fits']
stages: {{level: {{}}}}
engine: {{kind: {engine}, workers: 2}}
tiling: {{core_px: 64}}
out: s3://{bucket}/surveys/out
"""
UNITS = 16


@pytest.fixture
def on_disk(call, release) -> dict[str, str]:
    """Return the checksums of the same release on disk."""
    assert call("run", release).code == 0
    return hash_content(str(release.parent / "out"))


@pytest.fixture
def in_bucket(on_disk, release, s3_bucket) -> Path:
    """Put the images into a bucket and return the YAML of a release that is all in it."""
    medium = ReleaseStore(f"s3://{s3_bucket}").medium
    for path in release.parent.glob("*.fits"):
        medium.replace(f"in/{path.name}", path.read_bytes())
    return write_yaml(release, s3_bucket, "local")


def write_yaml(release: Path, bucket: str, engine: str) -> Path:
    path = release.with_name(f"{engine}.yaml")
    path.write_text(YAML.format(bucket=bucket, engine=engine))
    return path


def hash_content(out: str) -> dict[str, str]:
    """Return the checksum of every committed file and of the catalogue, as they are stored now."""
    store = ReleaseStore.open(out)
    commits = list_commits(store)
    assert len(commits) == UNITS
    found = {}
    for commit in commits.values():
        assert check_commit(store, commit, deep=True) == ""
        found |= {path: sealed["sha256"] for path, sealed in commit.files.items()}
    for line in store.medium.read("SHA256SUMS").decode().splitlines():
        digest, _, path = line.partition("  ")
        assert store.medium.digest(path) == digest
        if path.startswith("catalogue/"):
            found[path] = digest
    assert any(path.startswith("catalogue/levels") for path in found)
    return found


def test_a_release_in_a_bucket_is_the_same_as_on_disk(call, in_bucket, s3_bucket, on_disk):
    out = f"s3://{s3_bucket}/surveys/out"
    answer = call("run", in_bucket, "--json")
    assert (answer.code, answer.json["done"]) == (0, UNITS)
    assert hash_content(out) == on_disk
    again = call("run", in_bucket, "--json")
    assert (again.code, again.json["done"], again.json["skipped"]) == (0, 0, UNITS)
    assert call("plan", in_bucket, "--json").json["counts"]["done"] == UNITS
    assert call("status", out, "--verify").code == 0
    assert ReleaseStore(out).medium.read("report.html")


@pytest.mark.slow
def test_faults_of_the_store_change_nothing(call, in_bucket, s3_bucket, s3_server, on_disk, monkeypatch):
    """5 % refused, 3 % of the writes applied and then refused, 2 % slow, and an outage."""
    faults = Faults(refused=0.05, applied=0.03, slow=0.02, delay=0.3)
    with UnreliableProxy(s3_server, faults, seed=3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        timer = threading.Timer(1.0, proxy.fail_for, (4.0,))
        timer.start()
        answer = call("run", in_bucket, "--json")
        timer.join()
        assert (answer.code, answer.json["done"]) == (0, UNITS)
        for kind in ("refused", "applied", "slow", "outage"):
            assert proxy.counts[kind], proxy.counts
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    assert hash_content(f"s3://{s3_bucket}/surveys/out") == on_disk
    assert call("status", f"s3://{s3_bucket}/surveys/out", "--clean", "--json").json["residue"] == []


@pytest.mark.slow
def test_a_store_that_stays_away_ends_the_run_and_the_same_command_goes_on(
    call, in_bucket, s3_bucket, s3_server, on_disk, monkeypatch
):
    monkeypatch.setattr(s3, "PATIENCE", 1.0)
    with UnreliableProxy(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        watched = threading.Thread(target=fail_after, args=(proxy, 120, 600.0), daemon=True)
        watched.start()
        answer = call("run", in_bucket)
        assert answer.code in (1, 2)
        assert "s3://" in answer.err and "when the store answers" in answer.err
        watched.join()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    answer = call("run", in_bucket, "--json")
    assert answer.code == 0
    assert 0 < answer.json["done"] < UNITS
    assert hash_content(f"s3://{s3_bucket}/surveys/out") == on_disk


@pytest.mark.slow
def test_a_release_on_ray_bears_a_minute_of_outage(
    call, in_bucket, s3_bucket, s3_server, on_disk, release, monkeypatch, tmp_path
):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    out = f"s3://{s3_bucket}/surveys/out"
    with UnreliableProxy(s3_server, Faults(0.05, 0.03, 0.02, 0.3), seed=8) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        watched = threading.Thread(target=fail_after, args=(proxy, 60, 60.0), daemon=True)
        watched.start()
        answer = call("run", write_yaml(release, s3_bucket, "ray"), "--json")
        assert (answer.code, answer.json["done"]) == (0, UNITS), answer.err
        assert proxy.counts["outage"] > 5, proxy.counts
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    assert hash_content(out) == on_disk


def fail_after(proxy: UnreliableProxy, count: int, seconds: float) -> None:
    """Begin an outage once so many requests have passed: opening takes some twenty, a unit ten."""
    end = time.monotonic() + 120
    while proxy.counts["passed"] < count and time.monotonic() < end:
        time.sleep(0.005)
    proxy.fail_for(seconds)


def test_a_run_that_is_refused_leaves_no_object_behind(call, s3_bucket):
    medium = ReleaseStore(f"s3://{s3_bucket}").medium
    medium.replace("in/text.fits", b"no image")
    answer = call("run", f"s3://{s3_bucket}/in/text.fits", "--out", f"s3://{s3_bucket}/surveys/out")
    assert answer.code == 2 and "not a FITS" in answer.err
    assert [path for path, _ in medium.walk_files("")] == ["in/text.fits"]
