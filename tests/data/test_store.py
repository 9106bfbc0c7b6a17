"""The store gives back what was written, and an error instead of invented pixels."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from small_release import (
    CORE,
    commit_image,
    list_tiles,
    make_config,
    make_field,
    make_store,
)
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from survey_ml.data.commit import Unit, list_commits, remove_commit, write_commit
from survey_ml.data.shards import CHUNK, Layout, create_array, encode_shard
from survey_ml.data.source import Source
from survey_ml.data.store import ReleaseStore
from survey_ml.errors import ConfigError, DamagedError, StoreError
from survey_ml.field import Window
from survey_ml.products import array, table


def test_any_window_reads_as_from_the_array(store, pixels):
    commit_image(store, pixels)
    lazy = store.lazy("north", "image")
    assert lazy.shape == pixels.shape and lazy.dtype == np.float32
    numbers = random.Random(1)
    for _ in range(60):
        y0, y1 = sorted(numbers.sample(range(151), 2))
        x0, x1 = sorted(numbers.sample(range(101), 2))
        window = Window(y0, y1, x0, x1)
        assert np.array_equal(store.read("north", "image", window), pixels[window.slices])
        assert np.array_equal(lazy[window.slices], pixels[window.slices])
    assert np.array_equal(lazy[:, -30:], pixels[:, -30:])
    assert lazy[5:5, :].shape == (0, 100)
    with pytest.raises(IndexError):
        lazy[::2, :]


def test_a_window_is_clipped_to_the_field(store, pixels):
    commit_image(store, pixels)
    assert np.array_equal(store.read("north", "image", Window(-20, 999, 90, 130)), pixels[:, 90:])


def test_a_store_travels_as_its_address(store, pixels):
    commit_image(store, pixels)
    store.read("north", "image", Window(0, 9, 0, 9))
    data = pickle.dumps((store, store.lazy("north", "image")))
    assert len(data) < 1000
    again, lazy = pickle.loads(data)
    assert again.out == store.out
    assert np.array_equal(lazy[70:80, 60:70], pixels[70:80, 60:70])


def test_a_shard_decodes_to_the_same_array_in_plain_zarr(store, pixels):
    commit_image(store, pixels)
    stored = zarr.open_array(f"{store.out}/store.zarr/north/image", mode="r")
    assert np.array_equal(stored[:], pixels)
    assert stored.shards == (CORE, CORE) and stored.chunks == (CORE, CORE)
    assert type(stored.compressors[-1]).__name__ == "Crc32cCodec"
    assert stored.metadata.dimension_names == ("y", "x")


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int32"])
def test_blank_and_zero_chunks_are_written(tmp_path, dtype):
    """A chunk of fill values must be there: one that is not could also have been lost."""
    store = make_store(tmp_path / "out")
    store.declare("north", array("flat", dtype))
    values = np.full((CORE, CORE), np.nan if dtype == "float32" else 0, dtype=dtype)
    tile = list_tiles(make_field())["0_0"]
    unit = Unit("north", "s", "0_0")
    commit = write_commit(store, unit, "k", made_by={}, tile=tile, arrays={"flat": values})
    assert next(iter(commit.files.values()))["size"] > 30
    found = store.read("north", "flat", tile.core)
    assert found.dtype == dtype and np.array_equal(found, values, equal_nan=dtype == "float32")


def test_it_opens_with_xarray(store, pixels):
    xarray = pytest.importorskip("xarray")
    store.declare("north", array("rms"))
    store.declare("north", array("island_mask", "uint8", unit=""))
    commit_image(store, pixels)
    found = xarray.open_zarr(f"{store.out}/store.zarr/north", consolidated=False)
    assert set(found) == {"image", "rms", "island_mask"}
    assert found.image.dims == ("y", "x")
    assert np.array_equal(found.image.values, pixels)
    assert found.image.attrs["units"] == "Jy/beam" and found.island_mask.attrs["units"] == ""
    beam = found.attrs["beam"]
    assert beam["bmaj"] == {"data": 6.0, "dims": [], "attrs": {"type": "quantity", "units": "arcsec"}}
    assert beam["bmin"]["data"] == 5.0 and beam["bpa"]["data"] == 30.0
    assert found.attrs["frequency"]["data"] == 1.4e9
    direction = found.attrs["coordinate_system_info"]["reference_direction"]
    assert direction["data"] == [150.0, 2.0] and direction["attrs"]["frame"] == "icrs"
    assert found.attrs["coordinate_system_info"]["projection"] == "SIN"


# Fields


def test_a_field_reads_back_as_registered(store):
    field = make_field((90, 80), "south")
    field = replace(field, frequency=float("nan"))
    source = Source(field, "/data/south.fits", hdu="SCI", scale=1e-3, notes=("a note",))
    store.register(field, source, CORE)
    again = ReleaseStore.open(store.out)
    assert again.fields() == ["north", "south"]
    found = again.field("south")
    assert np.isnan(found.frequency)
    assert replace(found, frequency=0.0) == replace(field, frequency=0.0)
    assert again.core("south") == CORE
    assert found.wcs.wcs.crval[0] == 150.0
    loaded = again.source("south")
    assert (loaded.path, loaded.hdu, loaded.scale, loaded.notes) == (source.path, "SCI", 1e-3, ("a note",))


def test_registering_again_changes_nothing(store, pixels):
    commit_image(store, pixels)
    paths = sorted(Path(store.out).rglob("*"))
    before = [path.stat().st_ino for path in paths]
    field = make_field()
    store.register(field, Source(field, "/nowhere/north.fits"), CORE)
    store.declare("north", array("image"))
    assert sorted(Path(store.out).rglob("*")) == paths
    assert [path.stat().st_ino for path in paths] == before


def test_another_core_is_refused_with_a_remedy(store):
    field = make_field()
    with pytest.raises(ConfigError) as caught:
        store.register(field, Source(field, "/nowhere/north.fits"), 2 * CORE)
    assert caught.value.field == "north"
    assert "core_px to 64" in caught.value.hint


def test_another_image_under_a_known_name_starts_afresh(store, pixels):
    commit_image(store, pixels)
    field = make_field((70, 70))
    store.register(field, Source(field, "/nowhere/north.fits"), CORE)
    store.declare("north", array("image"))
    assert store.field("north").shape == (70, 70)
    assert not list_commits(store)
    with pytest.raises(DamagedError):
        store.read("north", "image", Window(0, 70, 0, 70))


def test_an_unknown_field_or_array_is_named(store):
    with pytest.raises(StoreError, match="no field 'south'"):
        store.field("south")
    with pytest.raises(StoreError, match="no array 'rms'"):
        store.read("north", "rms", Window(0, 1, 0, 1))
    with pytest.raises(ValueError, match="not an array"):
        store.declare("north", table("sources"))


def test_a_product_with_another_dtype_replaces_the_array(store, pixels):
    commit_image(store, pixels)
    store.declare("north", array("image", "float64"))
    assert store.lazy("north", "image").dtype == np.float64
    with pytest.raises(DamagedError, match="missing"):
        store.read("north", "image", Window(0, 1, 0, 1))


def test_going_on_with_a_release_notes_the_new_configuration(store):
    config = make_config(Path(store.out).parent, out=store.out, name="second")
    again = ReleaseStore.create(store.out, config)
    assert again.describe()["name"] == "second"
    assert again.fields() == ["north"]


def test_a_folder_that_is_no_release_or_of_another_format_is_refused(tmp_path, store):
    with pytest.raises(StoreError, match="no survey_ml release"):
        ReleaseStore.open(str(tmp_path)).describe()
    path = Path(store.out) / "release.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(StoreError, match="format 99"):
        store.describe()
    path.write_text("{")
    with pytest.raises(StoreError, match="is damaged"):
        store.describe()


# Damage


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"attributes": {"survey_ml": {}}}'])
def test_a_damaged_description_of_a_field_is_named_and_written_anew(tmp_path, store, content):
    path = Path(store.out) / "store.zarr/north/zarr.json"
    good = path.read_bytes()
    source = store.source("north")
    path.write_bytes(content)
    again = ReleaseStore.open(store.out)
    with pytest.raises(StoreError, match=r"north/zarr.json is damaged"):
        again.field("north")
    again.register(source.field, source, store.core("north"))
    assert path.read_bytes() == good


def test_damaged_metadata_of_an_array_are_written_anew_and_its_pixels_kept(store):
    path = Path(store.out) / "store.zarr/north/image/zarr.json"
    good, shards = path.read_bytes(), sorted((path.parent / "c").rglob("*"))
    path.write_bytes(good[: len(good) // 2])
    ReleaseStore.open(store.out).declare("north", array("image", "float32"))
    assert path.read_bytes() == good
    assert sorted((path.parent / "c").rglob("*")) == shards


def find_shard(store, row: int, column: int) -> Path:
    return Path(store.out) / "store.zarr/north/image/c" / str(row) / str(column)


def assert_damaged(store, words: str, tile: str = "1_1") -> None:
    for reader in (store, ReleaseStore.open(store.out)):
        with pytest.raises(DamagedError, match=words) as caught:
            reader.read("north", "image", Window(0, 150, 0, 100))
        assert (caught.value.field, caught.value.tile) == ("north", tile)
        assert caught.value.hint


def test_a_deleted_shard_is_damage_not_data(store, pixels):
    commit_image(store, pixels)
    find_shard(store, 1, 1).unlink()
    assert_damaged(store, "is missing")
    # Windows that do not touch it are read as ever.
    assert np.array_equal(store.read("north", "image", Window(0, 64, 0, 100)), pixels[:64])


def test_a_short_shard_is_damage(store, pixels):
    commit_image(store, pixels)
    path = find_shard(store, 1, 1)
    path.write_bytes(path.read_bytes()[:-1])
    assert_damaged(store, "bytes")


def test_a_shard_without_a_commit_is_damage(store, pixels):
    commit_image(store, pixels)
    store.read("north", "image", Window(0, 150, 0, 100))
    remove_commit(store, Unit("north", "ingest", "1_1"))
    assert_damaged(store, "no commit")


def test_every_flipped_bit_is_found(store, pixels):
    """Anywhere in a shard: pixels, checksums and the index of its chunks."""
    commit_image(store, pixels)
    path = find_shard(store, 1, 1)
    whole = path.read_bytes()
    numbers = random.Random(8)
    places = [*range(0, len(whole), len(whole) // 40), *range(len(whole) - 20, len(whole))]
    for place in places:
        broken = bytearray(whole)
        broken[place] ^= 1 << numbers.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(DamagedError) as caught:
            store.read("north", "image", Window(60, 70, 60, 70))
        assert (caught.value.tile, caught.value.stage) == ("1_1", "ingest")
    path.write_bytes(whole)
    assert np.array_equal(store.read("north", "image", Window(60, 70, 60, 70)), pixels[60:70, 60:70])


def test_a_shard_made_again_is_read_by_a_store_that_knew_the_old_one(store, pixels):
    commit_image(store, pixels)
    other = ReleaseStore.open(store.out)
    other.read("north", "image", Window(0, 150, 0, 100))
    tile = list_tiles(make_field())["0_0"]
    unit = Unit("north", "ingest", "0_0")
    flat = np.zeros(tile.core.shape, dtype=np.float32)
    write_commit(store, unit, "b" * 64, made_by={}, tile=tile, arrays={"image": flat})
    assert np.array_equal(other.read("north", "image", tile.core), flat)


# Layout


@pytest.mark.parametrize(
    ("core", "chunk"), [(1024, 512), (512, 512), (64, 64), (1000, 500), (768, 384), (1021, 1021), (1536, 512)]
)
def test_a_chunk_divides_its_shard(core, chunk):
    layout = Layout("float32", core)
    assert layout.chunk == chunk
    assert core % layout.chunk == 0
    assert layout.chunk <= CHUNK or layout.chunk == core


def test_the_same_pixels_give_the_same_bytes():
    values = np.random.default_rng(2).standard_normal((50, 64)).astype(np.float32)
    assert encode_shard(values, Layout("float32", 64)) == encode_shard(values.copy(), Layout("float32", 64))


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int32", "int64"])
@pytest.mark.parametrize("shape", [(1024, 1024), (1000, 700), (300, 300), (512, 513), (1, 1)])
def test_a_shard_is_what_zarr_itself_would_write(dtype, shape):
    """Zarr decodes it to the same pixels, and its chunks are byte for byte those of Zarr's encoder."""
    layout = Layout(dtype, 1024)
    values = (100 * np.random.default_rng(5).standard_normal(shape)).astype(dtype)
    data = encode_shard(values, layout)
    memory = MemoryStore()
    array = create_array(memory, (1024, 1024), layout)
    array[: shape[0], : shape[1]] = values
    theirs = memory._store_dict["c/0/0"].to_bytes()
    assert find_chunks(data) == find_chunks(theirs)
    memory._store_dict["c/0/0"] = default_buffer_prototype().buffer.from_bytes(data)
    found = array[:]
    assert np.array_equal(found[: shape[0], : shape[1]], values)
    rest = np.ones((1024, 1024), dtype=bool)
    rest[: shape[0], : shape[1]] = False
    assert np.isnan(found[rest]).all() if dtype.startswith("float") else not found[rest].any()


def find_chunks(shard: bytes) -> dict[int, bytes]:
    """Return the encoded chunks of a shard of 2 x 2 by their number."""
    index = np.frombuffer(shard[-68:-4], "<u8").reshape(4, 2)
    missing = np.iinfo(np.uint64).max
    return {
        number: shard[offset : offset + size]
        for number, (offset, size) in enumerate(index.tolist())
        if offset != missing
    }


def test_pixels_of_any_byte_order_are_stored_alike():
    values = np.random.default_rng(2).standard_normal((64, 64)).astype(np.float32)
    assert encode_shard(values.astype(">f4"), Layout("float32", 64)) == encode_shard(
        values, Layout("float32", 64)
    )
