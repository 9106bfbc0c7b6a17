"""A unit of work is committed whole or not at all, whatever fails at whatever moment."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_release import commit_image, list_tiles, make_field, make_store

from survey_ml.columns import part_columns
from survey_ml.data.commit import (
    Commit,
    Unit,
    _decode,
    _encode,
    check_commit,
    clean,
    list_commits,
    list_quarantine,
    quarantine,
    read_commit,
    read_table,
    release_quarantine,
    remove_commit,
    write_commit,
)
from survey_ml.data.disk import ASIDE
from survey_ml.errors import DamagedError, PluginError, StoreError
from survey_ml.products import array, table

TILE = list_tiles(make_field())["1_0"]
UNIT = Unit("north", "work", "1_0")


def make_rows(n: int) -> dict[str, np.ndarray]:
    dtypes = {column.name: column.dtype for column in part_columns("islands")}
    return {name: np.arange(n).astype(dtype) for name, dtype in dtypes.items()}


def write(store, key="a" * 64, value=1.0):
    """Commit a unit with two arrays, a table and a summary."""
    pixels = np.full(TILE.core.shape, value, dtype=np.float32)
    return write_commit(
        store,
        UNIT,
        key,
        made_by={"version": "1", "value": value},
        tile=TILE,
        arrays={"image": pixels, "rms": 2 * pixels},
        tables={"islands": (make_rows(3), table("islands", "island"))},
        summaries={"model": {"acf": np.eye(2, dtype=np.float32), "n": np.int64(4), "nan": float("nan")}},
        info={"seconds": 0.5},
    )


def prepare(folder):
    store = make_store(folder)
    store.declare("north", array("rms"))
    return store


@pytest.fixture
def release(tmp_path):
    return prepare(tmp_path / "out")


def list_aside(store) -> list[Path]:
    return [path for path in Path(store.out).rglob("*") if path.name.startswith(ASIDE)]


def assert_whole(store, value):
    """The commit in place vouches for exactly what was written."""
    commit = read_commit(store, UNIT)
    assert commit is not None
    assert check_commit(store, commit, deep=True) == ""
    assert np.all(store.read("north", "image", TILE.core) == value)
    assert np.all(store.read("north", "rms", TILE.core) == 2 * value)
    assert len(read_table(store, UNIT, "islands")["island_id"]) == 3


def test_a_commit_reads_back_as_it_was_written(release):
    written = write(release)
    found = read_commit(release, UNIT)
    assert found.key == written.key and found.files == written.files
    assert found.summaries["model"]["acf"] == [[1.0, 0.0], [0.0, 1.0]]
    assert np.isnan(found.summaries["model"]["nan"])
    assert found.made_by == {"version": "1", "value": 1.0}
    assert found.tables == {"islands": 3}
    assert len(found.files) == 3
    for path, sealed in found.files.items():
        data = (Path(release.out) / path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sealed["sha256"] and len(data) == sealed["size"]
    assert_whole(release, 1.0)
    assert not list_aside(release)


def test_no_commit_is_no_commit(release):
    assert read_commit(release, UNIT) is None
    assert list_commits(release) == {}
    with pytest.raises(DamagedError, match="no commit"):
        read_table(release, UNIT, "islands")


def test_writing_the_same_work_again_changes_nothing(release):
    first = write(release)
    path = Path(release.out) / next(iter(first.files))
    before = path.stat().st_ino
    assert write(release, value=5.0).files == first.files
    assert path.stat().st_ino == before
    assert_whole(release, 1.0)


def test_the_same_key_is_written_again_when_a_file_is_gone(release):
    first = write(release)
    (Path(release.out) / next(iter(first.files))).unlink()
    assert "is missing" in check_commit(release, first)
    write(release)
    assert_whole(release, 1.0)


def test_another_key_takes_the_place_of_the_old_commit(release):
    write(release)
    write(release, key="b" * 64, value=7.0)
    assert list(list_commits(release)) == [UNIT]
    assert read_commit(release, UNIT).key == "b" * 64
    assert_whole(release, 7.0)
    assert not (Path(release.out) / UNIT.folder / ("a" * 64)).exists()


def test_losing_a_race_to_the_same_bytes_is_no_failure(release, monkeypatch, tmp_path):
    other = prepare(tmp_path / "other")
    twin = write(other)
    real = release.medium._rename_unit

    def rename(aside, target):
        (Path(other.out) / twin.folder).rename(target)
        return real(aside, target)

    monkeypatch.setattr(release.medium, "_rename_unit", rename)
    assert write(release).files == twin.files
    assert_whole(release, 1.0)
    assert not list_aside(release)


def test_losing_a_race_to_other_bytes_leaves_no_commit(release, monkeypatch, tmp_path):
    other = prepare(tmp_path / "other")
    twin = write(other, value=3.0)
    real = release.medium._rename_unit

    def rename(aside, target):
        (Path(other.out) / twin.folder).rename(target)
        return real(aside, target)

    monkeypatch.setattr(release.medium, "_rename_unit", rename)
    with pytest.raises(StoreError, match="another run"):
        write(release)
    assert read_commit(release, UNIT) is None


def test_every_flipped_bit_of_a_marker_is_found():
    data = _encode(Commit(UNIT, "k" * 64, summaries={"x": 1.25}))
    assert _decode(data).summaries == {"x": 1.25}
    for place in range(len(data) - 1):
        for bit in (0, 5):
            broken = bytearray(data)
            broken[place] ^= 1 << bit
            assert _decode(bytes(broken)) is None, (place, bit)
    for length in range(len(data)):
        assert _decode(data[:length]) is None


def test_a_damaged_marker_means_not_done(release):
    commit = write(release)
    path = Path(release.out) / commit.folder / "_COMMIT.json"
    path.write_bytes(path.read_bytes().replace(b'"n":4', b'"n":5'))
    assert read_commit(release, UNIT) is None
    assert list_commits(release) == {}
    write(release)
    assert_whole(release, 1.0)


def test_a_marker_copied_elsewhere_vouches_for_nothing(release):
    commit = write(release)
    folder = Path(release.out) / "units/north/work/2_0" / commit.key
    folder.mkdir(parents=True)
    (folder / "_COMMIT.json").write_bytes(_encode(commit))
    assert list(list_commits(release)) == [UNIT]


def test_check_finds_missing_short_and_changed_files(release):
    commit = write(release)
    paths = [Path(release.out) / name for name in commit.files]
    original = paths[0].read_bytes()
    paths[0].write_bytes(original[:-1])
    assert "bytes" in check_commit(release, commit)
    paths[0].write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    assert check_commit(release, commit) == ""
    assert "differs" in check_commit(release, commit, deep=True)
    paths[0].unlink()
    assert "missing" in check_commit(release, commit)


def test_a_changed_table_part_is_not_read(release):
    commit = write(release)
    path = Path(release.out) / commit.folder / "islands.parquet"
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="differs") as caught:
        read_table(release, UNIT, "islands")
    assert caught.value.tile == "1_0"
    path.unlink()
    with pytest.raises(DamagedError, match="missing"):
        read_table(release, UNIT, "islands")


def test_units_are_listed_by_field_and_stage(release, pixels):
    commit_image(release, pixels)
    write(release)
    assert len(list_commits(release)) == 7
    assert set(list_commits(release, stage="work")) == {UNIT}
    assert len(list_commits(release, "north", "ingest")) == 6
    assert not list_commits(release, "south")
    assert list(list_commits(release)) == sorted(list_commits(release))


def test_removing_a_commit_keeps_the_others(release, pixels):
    commit_image(release, pixels)
    write(release)
    remove_commit(release, UNIT)
    remove_commit(release, UNIT)
    assert read_commit(release, UNIT) is None
    assert len(list_commits(release)) == 6
    assert not list_aside(release)


def test_wrong_shapes_and_rows_are_refused_before_anything_is_written(release):
    with pytest.raises(PluginError, match="shape"):
        write_commit(release, UNIT, "k", made_by={}, tile=TILE, arrays={"image": np.zeros((3, 3))})
    with pytest.raises(PluginError, match="shape"):
        write_commit(release, UNIT, "k", made_by={}, arrays={"image": np.zeros(TILE.core.shape)})
    with pytest.raises(PluginError, match="dtype"):
        bad = np.zeros(TILE.core.shape, dtype=complex)
        write_commit(release, UNIT, "k", made_by={}, tile=TILE, arrays={"image": bad})
    rows = make_rows(2) | {"surprise": np.zeros(2)}
    with pytest.raises(PluginError, match="surprise"):
        write_commit(release, UNIT, "k", made_by={}, tables={"islands": (rows, table("islands"))})
    with pytest.raises(TypeError, match="JSON"):
        write_commit(release, UNIT, "k", made_by={}, summaries={"x": object()})
    assert list_commits(release) == {} and not list_aside(release)


def test_quarantine_is_kept_and_lifted(release):
    other = replace(UNIT, tile="0_0")
    quarantine(release, UNIT, "k" * 64, "killed its worker", "Look at the tile.", 3)
    quarantine(release, other, "k" * 64, "killed its worker", "", 3)
    held = list_quarantine(release)
    assert held[UNIT]["cause"] == "killed its worker" and held[UNIT]["key"] == "k" * 64
    release_quarantine(release, [UNIT])
    assert set(list_quarantine(release)) == {other}


def test_clean_removes_what_killed_writers_left_and_nothing_else(release):
    write(release)
    base = Path(release.out)
    left = [
        base / UNIT.folder / f"{ASIDE}abc" / "islands.parquet",
        base / "store.zarr/north/image" / f"{ASIDE}abc-0.0",
        base / "store.zarr/north" / f"{ASIDE}zarr.json-1",
        base / f"{ASIDE}release.json-1",
        base / "units/north/work" / f"{ASIDE}old-1_0-1" / "x" / "_COMMIT.json",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert list(list_commits(release)) == [UNIT]
    assert release.fields() == ["north"] and release.products("north") == ["image", "rms"]
    assert len(clean(release)) == 5
    assert not list_aside(release)
    assert_whole(release, 1.0)
    assert clean(release) == []


# Faults of the system, at every call


class Faults:
    """Make the n-th call of a system function fail once."""

    def __init__(self, monkeypatch, name: str, number: int, code: int) -> None:
        self.left = number
        self.real = getattr(os, name)
        self.code = code
        self.hit = False
        monkeypatch.setattr(os, name, self)

    def __call__(self, *args, **options):
        self.left -= 1
        if self.left == 0:
            self.hit = True
            raise OSError(self.code, os.strerror(self.code), str(args[0]))
        return self.real(*args, **options)


@pytest.mark.parametrize("previous", [False, True], ids=["new", "replacing"])
@pytest.mark.parametrize("name", ["fsync", "rename", "write", "mkdir"])
def test_a_failure_of_any_call_leaves_no_half_commit(tmp_path, name, previous):
    number, hits = 0, 0
    while True:
        number += 1
        store = prepare(tmp_path / f"{number}")
        if previous:
            write(store, key="b" * 64, value=9.0)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, name, number, errno.EIO)
            try:
                write(store)
                failed = False
            except StoreError as error:
                failed = True
                assert str(tmp_path) in error.message and "Input/output" in error.message and error.hint
        if not faults.hit:
            break
        hits += 1
        assert number < 60
        commit = read_commit(store, UNIT)
        if commit is None:
            assert failed
        else:
            # Either nothing was changed yet, or all was done and only the last fsync failed.
            assert_whole(store, 9.0 if commit.key == "b" * 64 else 1.0)
        assert not list_aside(store), (name, number)
        write(store)
        assert_whole(store, 1.0)
    assert hits >= {"fsync": 8, "rename": 3, "write": 4, "mkdir": 1}[name]
