from __future__ import annotations

import numpy as np
import pytest
import zarr

from survey_ml.data.shards import Layout, create_array, encode_shard, read_shard

SHAPE = (190, 230)


def store_array(folder, dtype, core):
    """Write an array shard by shard; return what was written."""
    values = (np.random.default_rng(1).standard_normal(SHAPE) * 50).astype(dtype)
    array = create_array(zarr.storage.LocalStore(folder), SHAPE, Layout(dtype, core))
    for row in range(-(-SHAPE[0] // core)):
        for column in range(-(-SHAPE[1] // core)):
            path = folder / "c" / str(row) / str(column)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = values[row * core : (row + 1) * core, column * core : (column + 1) * core]
            path.write_bytes(encode_shard(part, Layout(dtype, core)))
    np.testing.assert_array_equal(array[:], values)
    return values


@pytest.mark.parametrize(
    ("dtype", "core"), [("float32", 32), ("float32", 128), ("uint8", 97), ("int32", 1024), ("bool", 64)]
)
def test_a_window_of_a_shard_is_what_zarr_reads(tmp_path, dtype, core):
    values, rng = store_array(tmp_path, dtype, core), np.random.default_rng(2)
    for row in range(-(-SHAPE[0] // core)):
        for column in range(-(-SHAPE[1] // core)):
            whole = values[row * core : (row + 1) * core, column * core : (column + 1) * core]
            y0, x0 = (int(rng.integers(0, side)) for side in whole.shape)
            y1, x1 = int(rng.integers(y0, whole.shape[0])) + 1, int(rng.integers(x0, whole.shape[1])) + 1
            path = str(tmp_path / "c" / str(row) / str(column))
            found = read_shard(path, Layout(dtype, core), slice(y0, y1), slice(x0, x1))
            assert found.dtype == values.dtype
            np.testing.assert_array_equal(found, whole[y0:y1, x0:x1])


def test_beyond_the_edge_of_the_field_is_fill_value(tmp_path):
    layout = Layout("float32", 1024)
    (tmp_path / "shard").write_bytes(encode_shard(np.ones((10, 600), np.float32), layout))
    found = read_shard(str(tmp_path / "shard"), layout, slice(0, 1024), slice(0, 1024))
    assert (found[:10, :600] == 1).all() and np.isnan(found).sum() == found.size - 6000


def test_no_flipped_bit_and_no_lost_end_goes_unseen(tmp_path):
    layout, path = Layout("float32", 64), tmp_path / "shard"
    data = encode_shard(np.random.default_rng(3).standard_normal((64, 64)).astype(np.float32), layout)
    everything = slice(0, 64)
    for place in range(0, len(data), 37):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(ValueError, match="checksum"):
            read_shard(str(path), layout, everything, everything)
    for length in (0, 3, 20, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises((ValueError, OSError)):
            read_shard(str(path), layout, everything, everything)
