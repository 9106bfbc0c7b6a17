from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from survey_ml.data.release import Release
from survey_ml.errors import ConfigError, DamagedError, PluginError, StoreError
from survey_ml.export import bundle
from survey_ml.export.bundle import export_release, load_tables
from survey_ml.export.moc import measure_footprint
from survey_ml.export.spec import EXPORTERS
from survey_ml.hookspecs import ExporterSpec
from survey_ml.plugins import Origin, Registry, load_factory

HERE = Origin("survey_ml", "0", "builtin", True)


@pytest.fixture
def registry(monkeypatch):
    """The built-in exporters, to which a test may add."""
    known = Registry(offers=[(spec, HERE) for spec in EXPORTERS])
    monkeypatch.setattr("survey_ml.plugins.get_manager", lambda: known)
    return known


@pytest.fixture
def out(tmp_path, committed, registry):
    return str(shutil.copytree(committed, tmp_path / "out"))


def read_all(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_all_formats_are_there_and_their_checksums_hold(out, config):
    paths = export_release(out, config(out, export={"maps": ["rms"]}))
    names = {p.relative_to(Path(out) / "catalogue").as_posix() for p in paths}
    tables = {f"{t}.{s}" for t in ("sources", "components", "islands") for s in ("fits", "vot", "parquet")}
    shapes = {f"{t}.{s}" for t in ("sources", "components") for s in ("reg", "crtf")}
    maps = {"maps/north.rms.fits", "maps/south.rms.fits"}
    assert names == tables | shapes | maps | {"footprint.moc.fits"}
    subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=out, check=True, capture_output=True)
    assert len((Path(out) / "SHA256SUMS").read_text().splitlines()) == len(names)
    assert not list(Path(out).glob(".tmp-*"))


def test_the_catalogue_has_names_tiles_and_duplicates(out, config):
    export_release(out, config(out, export={"prefix": "EMU"}))
    sources = Table.read(Path(out) / "catalogue/sources.fits")
    assert len(sources) == 60
    assert all(name.startswith("EMU J") for name in sources["name"])
    assert set(sources["tile"]) == {"0_0", "0_1", "0_2", "1_0", "1_1", "1_2"}
    south = sources[sources["field"] == "south"]
    assert (south["flags"] & 512 == 512).all()
    better = dict(zip(sources["name"], sources["field"], strict=True))
    assert {better[name] for name in south["duplicate_of"]} == {"north"}
    assert Release.open(out).catalogue()["ra"].unit == "deg"
    assert len(Release.open(out).catalogue()) == 60


def test_a_second_run_writes_nothing(out, config):
    first = export_release(out, config(out))
    times = {p: p.stat().st_mtime_ns for p in first}
    inode = (Path(out) / "catalogue").stat().st_ino
    assert export_release(out, config(out)) == first
    assert {p: p.stat().st_mtime_ns for p in first} == times
    assert (Path(out) / "catalogue").stat().st_ino == inode


def test_another_order_of_commits_gives_the_same_bytes(out, config, tmp_path, commit, registry):
    export_release(out, config(out))
    other = str(tmp_path / "other")
    commit(other)
    export_release(other, config(other))
    assert read_all(Path(out) / "catalogue") == read_all(Path(other) / "catalogue")


@pytest.mark.parametrize("change", [{"prefix": "X"}, {"formats": ["fits"]}, {"columns": "pybdsf"}])
def test_a_changed_option_writes_anew(out, config, change):
    export_release(out, config(out))
    before = read_all(Path(out) / "catalogue")
    export_release(out, config(out, export=change))
    assert read_all(Path(out) / "catalogue") != before
    if "formats" in change:
        assert {p.suffix for p in (Path(out) / "catalogue").iterdir()} == {".fits", ".json"}
    if "columns" in change:
        assert "Total_flux" in Table.read(Path(out) / "catalogue/sources.fits").colnames


def test_a_lost_file_is_written_again(out, config):
    paths = export_release(out, config(out))
    paths[0].unlink()
    export_release(out, config(out))
    assert paths[0].exists()


def test_a_new_commit_writes_anew(out, config, commit):
    from survey_ml.data.commit import list_commits, remove_commit

    export_release(out, config(out))
    store = Release.open(out).store
    remove_commit(store, next(u for u in list_commits(store) if u.stage == "extraction"))
    export_release(out, config(out))
    assert len(Table.read(Path(out) / "catalogue/sources.fits")) == 55


def fail(release, folder, options):
    (folder / "half.txt").write_text("half")
    raise ValueError("no such luck")


def fill_disk(release, folder, options):
    raise OSError(28, "No space left on device")


def note(release, folder, options):
    path = folder / "notes" / "count.txt"
    path.parent.mkdir()
    path.write_text(str(len(options.tables["sources"])))
    return [path]


def add(registry, monkeypatch, name, function):
    registry.offers.append((ExporterSpec(name, f"trial:{name}"), Origin("trial", "1.0", "trial")))
    monkeypatch.setattr(
        "survey_ml.plugins.load_factory",
        lambda path, origin="": function if path == f"trial:{name}" else load_factory(path, origin),
    )


def test_a_third_party_writes_beside_the_others(out, config, registry, monkeypatch):
    add(registry, monkeypatch, "note", note)
    export_release(out, config(out, export={"formats": ["fits", "note"]}))
    assert (Path(out) / "catalogue/notes/count.txt").read_text() == "60"


@pytest.mark.parametrize(
    "function, error, words",
    [(fail, PluginError, "exporter trial of trial failed: ValueError: no such luck"),
     (fill_disk, StoreError, "No space left on device")],
)  # fmt: skip
def test_a_failing_exporter_leaves_what_was_there(out, config, registry, monkeypatch, function, error, words):
    export_release(out, config(out))
    before = read_all(Path(out) / "catalogue")
    add(registry, monkeypatch, "trial", function)
    with pytest.raises(error, match=words) as raised:
        export_release(out, config(out, export={"formats": ["fits", "trial"]}))
    assert raised.value.hint
    assert read_all(Path(out) / "catalogue") == before
    assert not list(Path(out).glob(".tmp-*"))


def test_an_unknown_format_names_the_nearest(out, config):
    with pytest.raises(ConfigError, match="did you mean parquet"):
        export_release(out, config(out, export={"formats": ["parqet"]}))


def test_an_unknown_map_names_what_there_is(out, config):
    with pytest.raises(StoreError) as raised:
        export_release(out, config(out, export={"maps": ["rsm"]}))
    assert "rms" in raised.value.hint
    assert not (Path(out) / "catalogue").exists()


def test_a_damaged_part_stops_the_export(out, config):
    part = next(Path(out).glob("units/north/extraction/*/*/sources.parquet"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(DamagedError, match="north"):
        export_release(out, config(out))


def test_tables_are_read_back_only_while_current(out, config):
    export_release(out, config(out))
    release = Release.open(out)
    read = load_tables(release, config(out))
    anew = bundle.load_tables(release, config(out, export={"formats": ["fits"]}))
    assert list(read) == list(anew)
    for name in read:
        assert read[name].equals(anew[name])
        assert read[name].schema.field("ra").metadata == anew[name].schema.field("ra").metadata


def test_a_tile_set_aside_is_blank_and_the_rest_goes_out(tmp_path, commit, config, registry):
    out = str(tmp_path / "partial")
    commit(out, without=("north", "0_1"))
    export_release(out, config(out, export={"maps": ["rms"]}))
    rms = fits.getdata(Path(out) / "catalogue/maps/north.rms.fits")
    assert np.isnan(rms[:128, 128:256]).all()
    assert np.isfinite(rms[:128, :128]).all() and np.isfinite(rms[128:]).all()
    assert len(Table.read(Path(out) / "catalogue/sources.fits")) == 55


def test_a_damaged_map_is_an_error_not_a_blank(out, config):
    shard = Path(out) / "store.zarr/north/rms/c/0/1"
    shard.unlink()
    with pytest.raises(DamagedError, match="is missing"):
        export_release(out, config(out, export={"maps": ["rms"]}))


def test_the_marker_seals_the_files(out, config):
    export_release(out, config(out))
    marker = json.loads((Path(out) / "catalogue/_COMMIT.json").read_text())
    for name, known in marker["files"].items():
        data = (Path(out) / "catalogue" / name).read_bytes()
        assert known == {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def test_the_footprint_counts_overlaps_once(out, config):
    release = Release.open(out)
    assert measure_footprint(release) is None
    export_release(out, config(out, export={"formats": ["moc"]}))
    field = release.field("north").info
    one = field.shape[0] * field.shape[1] * (field.pixel_scale / 3600) ** 2
    # Both fields lie on the same sky; cells stick out along the edges.
    assert one < measure_footprint(release) < 1.2 * one
