"""A release as an astronomer reads it."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from hypothesis import given, settings
from hypothesis import strategies as st
from small_release import commit_image, list_tiles, make_field, make_store

import survey_ml
from survey_ml.columns import columns_of, part_columns
from survey_ml.data.commit import Unit, write_commit
from survey_ml.data.quicklook import bin_block, choose_factor, join_cells, measure_block, merge_moments
from survey_ml.data.release import Release
from survey_ml.data.tables import to_arrow, write_parquet_bytes
from survey_ml.errors import DamagedError, StoreError
from survey_ml.field import split_tiles
from survey_ml.products import Column, array, table


@pytest.fixture
def release(store, pixels):
    pixels[:70, :10] = np.nan
    commit_image(store, pixels)
    return survey_ml.Release.open(store.out)


def test_it_tells_what_it_holds(release, store):
    assert isinstance(release, Release)
    assert (release.name, release.fields, release.out) == ("small", ["north"], store.out)
    assert release.config.tiling.core_px == 64
    assert "small" in repr(release) and "1 fields" in repr(release)
    view = release.field("north")
    assert view.products == ["image"] and "image" in dir(view)
    assert view.info == make_field()
    assert view.wcs.wcs.crval[1] == 2.0
    assert len(release.commits()) == 6


def test_arrays_are_dask_arrays_with_a_chunk_a_tile(release, pixels):
    image = release.field("north").image
    assert image.chunks == ((64, 64, 22), (64, 36))
    assert image.dtype == np.float32
    assert np.array_equal(image.compute(), pixels, equal_nan=True)
    assert np.array_equal(image[100:110, 50:70].compute(), pixels[100:110, 50:70])
    view = pickle.loads(pickle.dumps(release.field("north")))
    assert np.array_equal(view.image[-5:].compute(), pixels[-5:])


def test_what_is_not_there_is_said_so(release, tmp_path):
    with pytest.raises(AttributeError, match="no array 'rms'"):
        _ = release.field("north").rms
    with pytest.raises(StoreError, match="south"):
        release.field("south")
    with pytest.raises(StoreError, match="no survey_ml release"):
        Release.open(tmp_path)
    with pytest.raises(StoreError, match="no table 'sources'"):
        release.catalogue()


def test_a_lost_or_damaged_tile_is_an_error_not_blank_sky(release, store):
    path = Path(store.out) / "store.zarr/north/image/c/2/1"
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes([data[100] ^ 8]) + data[101:])
    view = release.field("north")
    assert view.image[:100].compute().shape == (100, 100)
    for use in (view.image.compute, view.statistics, view.quicklook):
        with pytest.raises(DamagedError, match="checksum") as caught:
            use()
        assert caught.value.tile == "2_1"
    path.unlink()
    with pytest.raises(DamagedError, match="is missing"):
        view.image.mean().compute()


def test_statistics_are_those_of_the_whole_array(release, pixels):
    found = release.field("north").statistics("image")
    finite = pixels[np.isfinite(pixels)].astype(np.float64)
    assert (found.n_pixels, found.n_finite) == (15000, finite.size)
    assert (found.minimum, found.maximum) == (finite.min(), finite.max())
    assert found.mean == pytest.approx(finite.mean(), rel=1e-9)
    assert found.std == pytest.approx(finite.std(), rel=1e-9)


@pytest.mark.parametrize("max_px", [1, 7, 40, 64, 150, 1000])
def test_a_quicklook_is_the_mean_of_blocks(release, pixels, max_px):
    picture = release.field("north").quicklook("image", max_px)
    factor = choose_factor((150, 100), max_px)
    assert max(picture.shape) <= max_px
    for row in range(picture.shape[0]):
        for column in range(picture.shape[1]):
            block = pixels[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            known = block[np.isfinite(block)]
            expected = known.mean(dtype=np.float64) if known.size else np.nan
            np.testing.assert_allclose(picture[row, column], expected, rtol=1e-6, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 17), st.integers(1, 9), st.integers(0, 99))
def test_pictures_and_moments_do_not_depend_on_the_tiling(ny, nx, core, factor, seed):
    values = np.random.default_rng(seed).standard_normal((ny, nx))
    values[values > 1.5] = np.nan
    tiles = split_tiles((ny, nx), core, 0)
    parts = [bin_block(values[tile.core.slices], tile.core, factor) for tile in tiles]
    whole = [bin_block(values, split_tiles((ny, nx), 99, 0)[0].core, factor)]
    np.testing.assert_allclose(
        join_cells((ny, nx), factor, parts), join_cells((ny, nx), factor, whole), rtol=1e-5, atol=1e-6
    )
    merged = merge_moments(measure_block(values[tile.core.slices]) for tile in tiles)
    single = measure_block(values)
    assert (merged.n_pixels, merged.n_finite) == (single.n_pixels, single.n_finite)
    np.testing.assert_allclose(
        [merged.mean, merged.std, merged.minimum, merged.maximum],
        [single.mean, single.std, single.minimum, single.maximum],
        rtol=1e-9,
        atol=1e-12,
    )


def test_statistics_and_pictures_do_not_load_the_field(tmp_path):
    """64 tiles of 1 MB are measured in far less than their 64 MB."""
    field = make_field((4096, 4096))
    store = make_store(tmp_path / "out", field, core=512)
    values = np.random.default_rng(1).standard_normal((512, 512)).astype(np.float32)
    for tile in split_tiles(field.shape, 512, 0):
        unit = Unit("north", "ingest", tile.name)
        write_commit(store, unit, "k", made_by={}, tile=tile, arrays={"image": values})
    view = Release.open(store.out).field("north")
    view.quicklook("image", 64)
    tracemalloc.start()
    found, picture = view.statistics(), view.quicklook("image", 256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.n_finite == 4096**2 and picture.shape == (256, 256)
    assert peak < 40e6


# Catalogues


def write_part(store, tile, name, rows, columns=()):
    unit = Unit("north", "mine", tile)
    write_commit(store, unit, "k", made_by={"a": 1}, tables={name: (rows, table(name, columns=columns))})


def make_rows(n, start):
    dtypes = {column.name: column.dtype for column in part_columns("sources")}
    return {name: (start + np.arange(n)).astype(dtype) for name, dtype in dtypes.items()}


def test_parts_make_a_catalogue_with_units_and_descriptions(release, store):
    write_part(store, "0_0", "sources", make_rows(3, 10))
    write_part(store, "0_1", "sources", make_rows(0, 0))
    write_part(store, "1_0", "sources", make_rows(2, 50))
    found = release.catalogue()
    assert list(found["source_id"]) == [10, 11, 12, 50, 51]
    assert list(found["tile"]) == ["0_0"] * 3 + ["1_0"] * 2
    assert set(found["field"]) == {"north"}
    for column in columns_of("sources"):
        if column.name in found.colnames:
            assert found[column.name].description == column.description
            assert (found[column.name].unit or "") == (u.Unit(column.unit) if column.unit else "")
            assert found[column.name].meta["ucd"] == column.ucd


def test_the_assembled_catalogue_is_preferred(release, store):
    rows = {column.name: np.zeros(2, dtype=column.dtype) for column in part_columns("peaks")}
    rows["label"] = np.array(["a", "b"])
    columns = (*part_columns("peaks"), Column("label", "string", "", "meta.code", "Made up"))
    data = write_parquet_bytes(to_arrow(rows, columns))
    store.medium.replace("catalogue/peaks.parquet", data)
    found = release.catalogue("peaks")
    assert list(found["label"]) == ["a", "b"]
    assert found["label"].description == "Made up" and found["label"].meta["ucd"] == "meta.code"
    assert found["ra"].unit == u.deg


def test_tables_of_others_keep_the_words_they_declared(release, store):
    columns = (Column("score", "float32", "Jy", "stat.likelihood", "How good"), Column("v", "float32[3]"))
    write_part(
        store, "0_0", "mine", {"score": np.ones(2, np.float32), "v": np.ones((2, 3), np.float32)}, columns
    )
    found = release.catalogue("mine")
    assert found["v"].shape == (2, 3)
    assert found["score"].unit == u.Jy and found["score"].description == "How good"


def test_provenance_names_what_made_each_unit(release):
    found = release.provenance()
    assert found["name"] == "small" and found["config"]["tiling"]["core_px"] == 64
    assert len(found["units"]) == len(list_tiles(make_field()))
    assert found["units"][0]["made_by"] == {"stage": "ingest"} and len(found["units"][0]["key"]) == 64


def test_a_declared_but_unwritten_array_is_damage_when_read(release, store):
    store.declare("north", array("rms"))
    with pytest.raises(DamagedError, match="no commit"):
        release.field("north").rms.compute()
