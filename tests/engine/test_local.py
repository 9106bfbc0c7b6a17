"""Whole releases through the local engine."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from releases import make_config, read_bytes_of, write_field, write_fields

from survey_ml import __version__
from survey_ml.data.commit import Unit, list_commits, read_table
from survey_ml.data.store import ReleaseStore
from survey_ml.engine import worker as worker_module
from survey_ml.engine.cluster import EngineError
from survey_ml.engine.driver import Driver
from survey_ml.engine.observe import watch_run
from survey_ml.engine.progress import QuietProgress
from survey_ml.engine.run import plan_release, run_release
from survey_ml.field import Window
from survey_ml.graph import build_graph


def run(config, registry, **options):
    return run_release(config, registry=registry, assemble=False, **options)


def list_times(out: Path) -> dict[Path, int]:
    files = [p for p in out.rglob("*") if p.is_file() and p.name != "SHA256SUMS" and p.parent.name != "logs"]
    return {path: path.stat().st_mtime_ns for path in files}


def smooth_by_hand(path: Path) -> np.ndarray:
    from astropy.io import fits

    image = np.pad(fits.getdata(path).astype(np.float64), 1, mode="edge")
    ny, nx = image.shape[0] - 2, image.shape[1] - 2
    return (sum(image[y : y + ny, x : x + nx] for y in range(3) for x in range(3)) / 9).astype(np.float32)


def test_whole_release(release_folder, registry):
    config = make_config(release_folder)
    result = run(config, registry)
    assert (result.done, result.redone, result.skipped, result.exit_code) == (57, 0, 0, 0)
    assert [(row.name, row.tiles, row.done) for row in result.stages] == [
        ("ingest", 18, 18), ("smooth", 18, 18), ("total", 2, 2), ("ratio", 18, 18), ("census", 1, 1),
    ]  # fmt: skip
    store = ReleaseStore.open(config.out)
    truth = smooth_by_hand(release_folder / "fields" / "north.fits")
    got = store.read("north", "smooth", Window(0, 70, 0, 90))
    # The rim differs: a tile at the edge of the field pads there as the whole does.
    np.testing.assert_array_equal(got, truth)
    commits = list_commits(store)
    census = commits[Unit("_release", "census", "release")].summaries["census"]
    assert census["fields"] == ["north", "south"]
    rows = sum(len(read_table(store, u, "ratios")["ratio"]) for u in commits if u.stage == "ratio")
    assert sum(census["rows"].values()) == rows > 0
    total = commits[Unit("north", "total", "field")].summaries["total"]
    assert total["tiles"] == [f"{y}_{x}" for y in range(3) for x in range(3)]
    info = commits[Unit("north", "smooth", "0_0")].info
    assert info["seconds"] > 0
    assert info["peak_memory_bytes"] > 1 << 20


def test_second_run_does_nothing(release_folder, registry):
    config = make_config(release_folder)
    run(config, registry)
    before = list_times(Path(config.out))
    result = run(config, registry)
    assert (result.done, result.skipped, result.exit_code) == (0, 57, 0)
    assert before == list_times(Path(config.out))


def test_seeds_are_per_unit_and_the_same_every_time(tmp_path, registry):
    one, other = (make_config(write_fields(tmp_path / name)) for name in ("one", "other"))
    run(one, registry)
    run(other, registry)
    assert read_bytes_of(Path(one.out)) == read_bytes_of(Path(other.out))
    looks = [c.summaries["looks"]["seed"] for u, c in commits(one).items() if u.stage == "smooth"]
    assert len(set(looks)) == len(looks)


def commits(config):
    return list_commits(ReleaseStore.open(config.out))


def test_one_bad_tile_is_set_aside_and_named(release_folder, registry):
    config = make_config(release_folder, stages={"ratio": {}, "smooth": {"fail": "1_1"}})
    result = run(config, registry)
    assert result.exit_code == 1
    (cause,) = {s.cause for s in result.set_aside if s.stage == "smooth"}
    assert cause.startswith("ZeroDivisionError: on request (trial.py:")
    assert {(s.field, s.tile) for s in result.set_aside if s.stage == "smooth"} == {
        ("north", "1_1"), ("south", "1_1"),
    }  # fmt: skip
    assert sum(u.stage == "smooth" for u in commits(config)) == 16


def test_a_stage_that_leaves_does_not_take_the_run_along(release_folder, registry):
    result = run(make_config(release_folder, stages={"smooth": {"leave": "1_1"}}), registry)
    assert result.exit_code == 1
    assert {s.tile for s in result.set_aside} == {"1_1"}
    assert all(s.cause.startswith("SystemExit: 3 (trial.py:") for s in result.set_aside)


def test_refused_data_keep_their_reason(release_folder, registry):
    config = make_config(release_folder, stages={"smooth": {"refuse": "2_0"}})
    result = run(config, registry)
    assert {(s.cause, s.hint) for s in result.set_aside} == {("refused on request", "nothing to be done")}


def test_larger_window_on_request(release_folder, registry):
    config = make_config(release_folder, stages={"smooth": {"wide": 30}})
    assert run(config, registry).exit_code == 0
    beyond = make_config(write_fields(release_folder / "b"), stages={"smooth": {"wide": 10_000}})
    plain = make_config(write_fields(release_folder / "c"), stages={"smooth": {}})
    run(plain, registry)
    assert run(beyond, registry).exit_code == 0
    same = [
        {path: digest for path, digest in read_bytes_of(Path(c.out)).items() if "smooth" in path}
        for c in (beyond, plain)
    ]
    assert same[0] == same[1]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "did not return looks"),
        ("extra", "returned more, which it does not declare"),
        ("shape", "the core has"),
        ("dtype", "as float64, declared as float32"),
        ("column", "without column value"),
        ("length", "columns of lengths"),
        ("kind", "declared as int64"),
        ("json", "not JSON"),
        ("none", "returned NoneType"),
    ],
)
def test_broken_contract_is_a_named_reason(tmp_path, registry, how, words):
    write_field(tmp_path / "fields" / "north.fits", shape=(30, 30))
    stages = {"smooth": {"wrong": how, "threshold": 1.0}}
    result = run(make_config(tmp_path, stages=stages), registry)
    assert result.exit_code == 2
    (entry,) = result.set_aside
    assert (entry.field, entry.tile, entry.stage) == ("north", "0_0", "smooth")
    assert words in entry.cause


def test_bad_fields_are_set_aside_and_the_others_done(release_folder, registry):
    fields = release_folder / "fields"
    write_field(fields / "blank.fits", values=np.full((70, 90), np.nan, np.float32))
    write_field(fields / "flat.fits", values=np.ones((70, 90), np.float32))
    write_field(fields / "tiny.fits", shape=(3, 3))
    (fields / "torn.fits").write_bytes((fields / "north.fits").read_bytes()[:9000])
    (fields / "text.fits").write_text("no image")
    config = make_config(release_folder)
    result = run(config, registry)
    assert result.exit_code == 1
    assert {s.field for s in result.set_aside} == {"blank", "flat", "tiny", "torn", "text"}
    assert all(s.cause and s.hint for s in result.set_aside)
    assert {u.field for u in commits(config) if u.stage == "smooth"} == {"north", "south"}
    again = run(config, registry)
    assert (again.done, again.exit_code) == (0, 1)
    assert {s.field for s in again.set_aside} == {s.field for s in result.set_aside}


def test_nothing_usable_is_exit_code_2(tmp_path, registry):
    write_field(tmp_path / "fields" / "blank.fits", values=np.full((70, 90), np.nan, np.float32))
    assert run(make_config(tmp_path), registry).exit_code == 2


def test_a_run_that_its_engine_refuses_leaves_nothing_behind(release_folder, registry):
    config = make_config(release_folder)
    out = Path(config.out)
    for before in ([], ["notes.txt"]):
        for name in before:
            out.mkdir()
            (out / name).write_text("mine")
        driver = Driver(
            config, build_graph(config, registry), registry, stages=None, progress=QuietProgress()
        )
        with pytest.raises(EngineError), driver.claim(), watch_run(config, driver.stop):
            driver.open()
            assert (out / "release.json").exists() and list(out.glob("logs/*"))
            raise EngineError("there is no such GPU")
        assert [path.name for path in out.glob("*")] == before
        assert out.exists() == bool(before)
    assert run(config, registry).exit_code == 0
    driver = Driver(config, build_graph(config, registry), registry, stages=None, progress=QuietProgress())
    with pytest.raises(EngineError), driver.claim():
        driver.open()
        raise EngineError("there is no such GPU")
    assert plan_release(config, registry=registry).counts["done"] == 57


def test_flipped_bit_is_found_and_made_again(release_folder, registry, caplog):
    config = make_config(release_folder)
    run(config, registry)
    whole = read_bytes_of(Path(config.out))
    shard = Path(config.out) / "store.zarr/south/image/c/1/1"
    data = bytearray(shard.read_bytes())
    data[200] ^= 4
    shard.write_bytes(data)
    changed = make_config(release_folder, stages={"census": {}, "smooth": {"threshold": 3.01}})
    result = run(changed, registry)
    assert result.exit_code == 0
    assert "field south, tile 1_1, stage ingest is damaged" in caplog.text
    assert (
        whole["store.zarr/south/image/c/1/1"]
        == read_bytes_of(Path(config.out))["store.zarr/south/image/c/1/1"]
    )
    assert plan_release(changed, registry=registry).counts["done"] == 57


def test_passing_fault_is_tried_again(release_folder, registry, monkeypatch):
    real, calls = worker_module.write_commit, []

    def stumble(store, unit, *rest, **options):
        calls.append(unit)
        if calls.count(unit) == 1 and unit.stage == "smooth":
            raise OSError(errno.EIO, "a passing fault")
        return real(store, unit, *rest, **options)

    monkeypatch.setattr(worker_module, "write_commit", stumble)
    monkeypatch.setattr(worker_module, "_BACKOFF", 0.001)
    result = run(make_config(release_folder), registry)
    assert (result.done, result.exit_code) == (57, 0)
    assert max(map(calls.count, calls)) == 2
    monkeypatch.setattr(worker_module, "write_commit", _always_fail)
    config = make_config(write_fields(release_folder / "b"), engine_options={"retries": 2})
    result = run(config, registry)
    assert result.exit_code == 2
    assert "a lasting fault" in result.set_aside[0].cause


def _always_fail(*rest, **options):
    raise OSError(errno.EIO, "a lasting fault")


def test_full_disk_stops_the_run_and_the_same_command_goes_on(release_folder, registry, monkeypatch):
    real, left = worker_module.write_commit, [25]

    def fill_up(store, unit, *rest, **options):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", f"{store.out}/units")
        return real(store, unit, *rest, **options)

    config = make_config(release_folder)
    monkeypatch.setattr(worker_module, "write_commit", fill_up)
    result = run(config, registry)
    assert result.exit_code == 1
    assert result.stopped is not None
    assert str(config.out) in result.stopped.message
    assert "the disk is full" in result.stopped.message
    assert "same command" in result.stopped.hint
    assert result.done == 25
    monkeypatch.setattr(worker_module, "write_commit", real)
    result = run(config, registry)
    assert (result.done, result.skipped, result.exit_code) == (32, 25, 0)


def test_interrupt_leaves_what_is_committed(release_folder, registry, monkeypatch):
    real, left = worker_module.write_commit, [30]

    def interrupt(*rest, **options):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return real(*rest, **options)

    config = make_config(release_folder)
    monkeypatch.setattr(worker_module, "write_commit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(config, registry)
    monkeypatch.setattr(worker_module, "write_commit", real)
    result = run(config, registry)
    assert (result.done, result.skipped) == (28, 29)


def test_catalogue_report_and_crate_are_written_once(release_folder, registry):
    config = make_config(release_folder, stages={"baseline": {}})
    assert run_release(config, registry=registry).exit_code == 0
    out = Path(config.out)
    crate = json.loads((out / "ro-crate-metadata.json").read_text())
    entries = {entry["@id"]: entry for entry in crate["@graph"]}
    assert entries["ro-crate-metadata.json"]["conformsTo"]["@id"] == "https://w3id.org/ro/crate/1.1"
    assert entries["#input-north"]["sha256"]
    properties = {p["name"]: p["value"] for p in entries["#stage-baseline"]["additionalProperty"]}
    assert properties["units"] == 18
    assert properties["seconds"] > 0
    assert len(properties["keys_sha256"]) == 64
    assert (properties["distribution"], properties["distribution_version"]) == ("survey-ml", __version__)
    sums = (out / "SHA256SUMS").read_text()
    times = list_times(out)
    assert run_release(config, registry=registry).done == 0
    assert times == list_times(out)
    assert sums == (out / "SHA256SUMS").read_text()


def test_neither_prefect_nor_ray_is_imported(release_folder):
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from pathlib import Path\n"
        "from releases import make_config, make_registry\n"
        "from survey_ml.engine.run import run_release\n"
        "result = run_release(make_config(Path(sys.argv[2])), registry=make_registry(), assemble=False)\n"
        "assert result.done == 57, result\n"
        "assert not {'ray', 'prefect', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), str(release_folder)], check=True)
