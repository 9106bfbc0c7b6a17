"""Tables survive Arrow and Parquet unchanged, and the same rows give the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from survey_ml.columns import columns_of, part_columns
from survey_ml.data.tables import (
    from_arrow,
    read_parquet_bytes,
    to_arrow,
    write_parquet_bytes,
)
from survey_ml.errors import DamagedError, PluginError
from survey_ml.products import Column

COLUMNS = (
    Column("ra", "float64", "deg", "pos.eq.ra", "Right ascension"),
    Column("score", "float32"),
    Column("source_id", "int64"),
    Column("flags", "int32"),
    Column("good", "bool"),
    Column("label", "string"),
    Column("features", "float32[4]"),
    Column("corners", "int32[2]"),
)


def make_rows(n: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(n)
    return {
        "ra": random.uniform(0, 360, n),
        "score": random.standard_normal(n).astype(np.float32),
        "source_id": random.integers(-(2**62), 2**62, n),
        "flags": random.integers(0, 512, n).astype(np.int32),
        "good": random.integers(0, 2, n).astype(bool),
        "label": np.array([f"J{value:06d}+ä" for value in range(n)], dtype=np.str_),
        "features": random.standard_normal((n, 4)).astype(np.float32),
        "corners": random.integers(0, 9, (n, 2)).astype(np.int32),
    }


@pytest.mark.parametrize("n", [0, 1, 77])
def test_rows_survive_parquet(n):
    rows = make_rows(n)
    found = from_arrow(read_parquet_bytes(write_parquet_bytes(to_arrow(rows, COLUMNS))))
    assert list(found) == [column.name for column in COLUMNS]
    for name, values in rows.items():
        assert found[name].shape == values.shape, name
        assert found[name].dtype.kind == values.dtype.kind, name
        if name != "label":
            assert found[name].dtype == values.dtype, name
        assert np.array_equal(found[name], values), name
        assert found[name].flags.writeable


@settings(max_examples=30, deadline=None)
@given(nps.arrays(np.float64, st.integers(0, 20), elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_floats_survive_to_the_bit(values):
    columns = (Column("x", "float64"),)
    found = from_arrow(read_parquet_bytes(write_parquet_bytes(to_arrow({"x": values}, columns))))["x"]
    assert found.tobytes() == values.tobytes()


def test_the_same_rows_give_the_same_bytes_whatever_their_order_in_the_mapping():
    rows = make_rows(50)
    shuffled = {name: rows[name].copy() for name in reversed(rows)}
    first = write_parquet_bytes(to_arrow(rows, COLUMNS))
    assert write_parquet_bytes(to_arrow(shuffled, COLUMNS)) == first
    rows["ra"][7] = np.nextafter(rows["ra"][7], 400)
    assert write_parquet_bytes(to_arrow(rows, COLUMNS)) != first


def test_words_are_kept_with_the_fields_when_asked_for():
    described = to_arrow(make_rows(1), COLUMNS).schema.field("ra").metadata
    assert described == {b"unit": b"deg", b"ucd": b"pos.eq.ra", b"description": b"Right ascension"}
    assert to_arrow(make_rows(1), COLUMNS, described=False).schema.field("ra").metadata is None


@pytest.mark.parametrize("name", ["components", "sources", "islands", "peaks", "forced"])
def test_empty_parts_of_every_table_have_all_their_columns(name):
    rows = {column.name: np.zeros(0) for column in part_columns(name)}
    arrow = to_arrow(rows, part_columns(name))
    assert arrow.num_rows == 0
    assert arrow.column_names == [column.name for column in part_columns(name)]
    assert set(arrow.column_names) < {column.name for column in columns_of(name)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ra": None}, "lacks ra"),
        ({"extra": np.zeros(3)}, "undeclared extra"),
        ({"score": np.zeros(4, np.float32)}, "score.*shape"),
        ({"features": np.zeros((3, 5), np.float32)}, "features.*shape"),
        ({"source_id": np.zeros(3)}, "source_id.*float64"),
        ({"ra": np.zeros(3, complex)}, "ra.*complex"),
        ({"flags": np.array([1, 2, 2**40])}, "flags.*do not fit"),
        ({"good": np.zeros(3, np.int32)}, "good.*int32"),
    ],
)
def test_what_would_lose_data_is_refused(change, words):
    rows = {name: values for name, values in (make_rows(3) | change).items() if values is not None}
    with pytest.raises(PluginError, match=words):
        to_arrow(rows, COLUMNS)


@pytest.mark.parametrize("dtype", ["float16", "string[3]", "float64[", ""])
def test_unknown_dtypes_are_refused(dtype):
    with pytest.raises(PluginError, match="unknown dtype"):
        to_arrow({"x": np.zeros(1)}, (Column("x", dtype),))


def test_broken_bytes_are_damage():
    data = write_parquet_bytes(to_arrow(make_rows(5), COLUMNS))
    for broken in (b"", b"nonsense", data[:-10], data[20:]):
        with pytest.raises(DamagedError, match="table part"):
            read_parquet_bytes(broken)
