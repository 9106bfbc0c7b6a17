"""The same release on an object store: S3 as moto plays it on the loopback."""

from __future__ import annotations

import hashlib
import pickle
import time

import numpy as np
import pytest
from fits_files import make_image, write_image
from small_release import CORE, commit_image, list_tiles, make_config, make_field, make_store

from survey_ml.data import s3
from survey_ml.data.commit import (
    Unit,
    check_commit,
    list_commits,
    list_quarantine,
    quarantine,
    read_commit,
    read_table,
    release_quarantine,
    remove_commit,
    write_commit,
)
from survey_ml.data.ingest import close_readers, ingest_tile
from survey_ml.data.inputs import find_sources
from survey_ml.data.release import Release
from survey_ml.data.stamps import hash_input
from survey_ml.data.store import ReleaseStore
from survey_ml.data.unreliable import Faults, UnreliableProxy
from survey_ml.errors import DamagedError, StoreError
from survey_ml.field import Window, split_tiles
from survey_ml.products import table


@pytest.fixture
def url(s3_bucket):
    return f"s3://{s3_bucket}/out"


def test_a_release_reads_back_through_a_pickled_store(url, pixels):
    store = make_store(url)
    commit_image(store, pixels)
    again = pickle.loads(pickle.dumps(store))
    assert np.array_equal(again.read("north", "image", Window(10, 140, 20, 90)), pixels[10:140, 20:90])
    assert again.fields() == ["north"]
    assert again.products("north") == ["image"]
    assert again.field("north") == make_field()
    assert sorted(unit.tile for unit in list_commits(again)) == sorted(list_tiles(make_field()))
    assert not list_commits(again, "south")
    assert len(list_commits(again, stage="ingest")) == 6


def test_a_release_opens_as_such(url, pixels):
    store = make_store(url)
    commit_image(store, pixels)
    release = Release.open(url)
    assert release.name == "small"
    assert np.array_equal(release.field("north").image.compute(), pixels)


def test_a_new_key_replaces_the_old_commit(url, pixels):
    store = make_store(url)
    old = commit_image(store, pixels)["0_0"]
    tile = list_tiles(make_field())["0_0"]
    new = write_commit(
        store, old.unit, "b" * 64, made_by={}, tile=tile, arrays={"image": -pixels[tile.core.slices]}
    )
    assert read_commit(store, old.unit) == new
    assert list_commits(store, "north", "ingest")[old.unit].key == "b" * 64
    assert np.array_equal(store.read("north", "image", tile.core), -pixels[tile.core.slices])
    assert check_commit(store, new, deep=True) == ""
    assert check_commit(store, old, deep=True)


def test_damage_is_found(url, pixels):
    store = make_store(url)
    commit = commit_image(store, pixels)["1_1"]
    path = store.shard_path("north", "image", Window(CORE, 2 * CORE, CORE, 2 * CORE))
    data = bytearray(store.medium.read(path))
    data[len(data) // 3] ^= 4
    store.medium.replace(path, bytes(data))
    assert "differs" in check_commit(store, commit, deep=True)
    with pytest.raises(DamagedError) as caught:
        store.read("north", "image", Window(0, 150, 0, 100))
    assert (caught.value.field, caught.value.tile, caught.value.stage) == ("north", "1_1", "ingest")
    store.medium.remove(path)
    with pytest.raises(DamagedError, match="is missing"):
        store.read("north", "image", Window(0, 150, 0, 100))


def test_the_marker_is_created_only_once(url):
    store = make_store(url)
    medium = store.medium
    path = "units/north/s/0_0/key/_COMMIT.json"
    assert medium.create(path, b"mine")
    # Our own write after a lost answer counts as written; another's does not.
    assert medium.create(path, b"mine")
    assert not medium.create(path, b"theirs")
    assert medium.read(path) == b"mine"


def test_lost_answers_are_no_failures(url, s3_server, monkeypatch, pixels):
    """Every other write is carried out and answered with 500; some answers never come."""
    with UnreliableProxy(s3_server, Faults(refused=0.1, applied=0.5), seed=2) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = make_store(url)
        commits = commit_image(store, pixels)
        assert np.array_equal(store.read("north", "image", Window(0, 150, 0, 100)), pixels)
        assert proxy.counts["applied"] > 5
        assert proxy.counts["refused"] > 5
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    held = list_commits(ReleaseStore(url))
    assert {unit.tile: commit for unit, commit in held.items()} == commits


def test_an_outage_is_waited_for(url, s3_server, monkeypatch, pixels):
    with UnreliableProxy(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = make_store(url)
        proxy.fail_for(3)
        start = time.monotonic()
        commit_image(store, pixels)
        assert time.monotonic() - start > 3
        assert proxy.counts["outage"] > 2
        proxy.fail_for(1)
        assert np.array_equal(store.read("north", "image", Window(0, 150, 0, 100)), pixels)


def test_no_answer_is_no_damage(url, s3_server, monkeypatch, pixels):
    with UnreliableProxy(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = make_store(url)
        commit_image(store, pixels)
        monkeypatch.setattr(s3, "PATIENCE", 0.5)
        proxy.fail_for(30)
        with pytest.raises(StoreError, match="cannot read") as caught:
            store.read("north", "image", Window(0, 150, 0, 100))
        assert not isinstance(caught.value, DamagedError)


def test_large_objects_go_in_parts(url, s3_server, monkeypatch):
    data = np.random.default_rng(1).bytes(2 * s3.PART + 5)
    with UnreliableProxy(s3_server, Faults(refused=0.1, applied=0.3), seed=4) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        medium = ReleaseStore(url).medium
        medium.replace("large", data)
        # Three parts, a beginning and an end, and what is done twice.
        assert sum(proxy.counts.values()) >= 5
        assert medium.read("large") == data
        assert medium.measure(["large"]) == {"large": len(data)}


def test_a_record_is_replaced_only_as_it_was_read(url):
    medium = ReleaseStore(url).medium
    assert medium.create("lease.json", b"1")
    data, tag = medium.read_tagged("lease.json")
    assert data == b"1"
    assert medium.swap("lease.json", b"2", tag)
    assert not medium.swap("lease.json", b"3", tag)
    assert medium.read("lease.json") == b"2"
    medium.take("lease.json", tag)
    assert medium.read("lease.json") == b"2"
    medium.take("lease.json", medium.read_tagged("lease.json")[1])
    assert medium.read_tagged("lease.json") is None
    assert not medium.swap("lease.json", b"4", tag)


def test_a_store_that_does_not_answer_is_told_soon(url, monkeypatch):
    monkeypatch.setattr(s3, "GREETING", 0.5)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(StoreError) as caught:
        make_store(url)
    assert time.monotonic() - start < 5
    assert "AWS_ENDPOINT_URL" in caught.value.hint


def test_tables_quarantine_and_removal(url):
    store = make_store(url)
    unit = Unit("north", "mine", "0_0")
    rows = {"n": np.arange(3)}
    write_commit(store, unit, "k" * 64, made_by={}, tables={"mine": (rows, table("mine"))})
    assert np.array_equal(read_table(store, unit, "mine")["n"], rows["n"])
    remove_commit(store, unit)
    assert read_commit(store, unit) is None
    quarantine(store, unit, "k" * 64, "killed its worker", "", 3)
    assert list_quarantine(store)[unit]["attempts"] == 3
    release_quarantine(store, [unit])
    assert not list_quarantine(store)


def test_a_bucket_that_does_not_exist_is_named(url):
    with pytest.raises(StoreError, match="s3://nobody-has-this"):
        make_store("s3://nobody-has-this/out")


def test_an_unknown_protocol_tells_what_to_install():
    with pytest.raises(StoreError) as caught:
        ReleaseStore("nonsense://somewhere/out")
    assert "nonsense" in caught.value.message


def test_images_are_read_from_the_bucket(url, tmp_path):
    path = write_image(tmp_path / "north.fits")
    folder = url.rpartition("/")[0]
    ReleaseStore(folder).medium.replace("in/north.fits", path.read_bytes())
    sources, aside = find_sources(
        make_config(tmp_path, fields=[f"{folder}/in/*.fits", f"{folder}/in/gone.fits"])
    )
    assert [source.field.name for source in sources] == ["north"]
    assert len(aside) == 1 and "gone.fits" in aside[0].cause
    tile = split_tiles(sources[0].field.shape, CORE, 0)[1]
    pixels, _ = ingest_tile(sources[0], tile)
    close_readers()
    assert np.array_equal(pixels, make_image()[tile.core.slices], equal_nan=True)
    store = make_store(url)
    assert hash_input(sources[0], store) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert ReleaseStore(url).checksums[sources[0].path]["size"] == path.stat().st_size


def test_many_sizes_are_asked_for_at_once(url):
    store = make_store(url)
    for number in range(5):
        store.medium.replace(f"x/{number}", bytes(number))
    paths = [f"x/{number}" for number in range(7)]
    assert store.medium.measure(paths) == {f"x/{n}": n if n < 5 else None for n in range(7)}


def test_any_fsspec_url_will_do(pixels):
    """A file system without an asynchronous client, such as fsspec's own memory."""
    store = make_store("memory://release/out")
    commit_image(store, pixels)
    assert np.array_equal(store.read("north", "image", Window(0, 150, 0, 100)), pixels)
    unit = Unit("north", "s", "field")
    commit = write_commit(
        store, unit, "k" * 64, made_by={}, tables={"mine": ({"n": np.arange(2)}, table("mine"))}
    )
    assert check_commit(store, commit, deep=True) == ""
    assert list_commits(store)[unit].files == commit.files
    store.medium.remove(next(iter(commit.files)))
    assert "is missing" in check_commit(store, commit)
