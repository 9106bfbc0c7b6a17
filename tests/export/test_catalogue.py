from __future__ import annotations

import numpy as np
import pytest

from survey_ml.columns import columns_of
from survey_ml.export.catalogue import put_together
from survey_ml.export.gathering import Part
from survey_ml.export.joins import has_one_row_each, match_rows
from survey_ml.export.schema import columns_in, read_column
from survey_ml.products import Column

COLUMNS = columns_of("sources")


def split(data, size):
    n = len(data["ra"])
    for start in range(0, n, size):
        yield {name: values[start : start + size] for name, values in data.items()}


@pytest.fixture
def build(gather):
    return lambda parts, fields: put_together(gather("sources", parts, COLUMNS), fields)


def test_the_catalogue_does_not_depend_on_tiling_or_order(build, rows, field):
    fields = {name: field(name) for name in ("a", "b")}
    data = {name: rows("sources", 100, seed) for seed, name in enumerate(fields)}
    whole = build([Part(name, "0_0", data[name]) for name in fields], fields)
    tiled = [Part(n, f"{i}_0", piece) for n in fields for i, piece in enumerate(split(data[n], 7))]
    other = build(tiled[::-1], dict(reversed(fields.items())))
    assert whole.drop(["tile"]).equals(other.drop(["tile"]))
    assert not whole["tile"].equals(other["tile"])
    assert read_column(whole, "field").tolist() == ["a"] * 100 + ["b"] * 100
    assert (np.diff(read_column(whole, "source_id")[:100]) > 0).all()


def test_overlapping_fields_flag_the_worse_measurement_and_keep_it(build, rows, field):
    data = rows("sources", 50, 0)
    better = data | {"local_rms": data["local_rms"] / 2}
    table = build([Part("a", "0_0", data), Part("b", "0_0", better)], {n: field(n) for n in "ab"})
    names, field_of = read_column(table, "name"), read_column(table, "field")
    of, flags = read_column(table, "duplicate_of"), read_column(table, "flags")
    assert len(table) == 100 and len(set(names.tolist())) == 100
    # By number within each field, so row i of a is row i of b.
    assert (of[field_of == "a"] == names[field_of == "b"]).all()
    assert (of[field_of == "b"] == "").all()
    assert (flags[field_of == "a"] == 512).all() and (flags[field_of == "b"] == 0).all()


def test_no_rows_make_an_empty_table_with_all_columns(build):
    table = build([], {})
    assert len(table) == 0
    assert columns_in(table) == COLUMNS


def test_parts_without_rows_are_no_obstacle(build, rows, field):
    data = rows("sources", 3, 0)
    empty = {name: values[:0] for name, values in data.items()}
    assert len(build([Part("a", "0_0", empty), Part("a", "0_1", data)], {"a": field("a")})) == 3


EXTRA = (
    Column("field", "string"),
    Column("source_id", "int64"),
    Column("score", "float32", "", "stat.likelihood", "How sure"),
    Column("tag", "string"),
    Column("votes", "int32"),
    Column("good", "bool"),
    Column("ra", "float64", "deg"),
    Column("embedding", "float32[3]"),
)


def test_tables_over_sources_join_by_field_and_number(gather):
    sources = {"field": np.array(["a", "a", "b"]), "source_id": np.array([5, 7, 5]), "ra": np.arange(3.0)}
    extra = {
        "field": np.array(["b", "a"]),
        "source_id": np.array([5, 7]),
        "score": np.array([0.1, 0.2], np.float32),
        "tag": np.array(["x", "long one"]),
        "votes": np.array([1, 2], np.int32),
        "good": np.array([True, False]),
        "ra": np.array([10.0, 20.0]),
        "embedding": np.arange(6, dtype=np.float32).reshape(2, 3),
    }
    columns = (Column("field", "string"), Column("source_id", "int64"), Column("ra", "float64", "deg"))
    made = gather("sources", [Part("", "", sources)], columns)
    table = put_together(made, {}, joins=[gather("vote", [Part("", "", extra)], EXTRA)])
    assert table.column_names == [
        "field", "source_id", "ra", "score", "tag", "votes", "good", "vote_ra", "embedding",
    ]  # fmt: skip
    np.testing.assert_array_equal(read_column(table, "score"), np.array([np.nan, 0.2, 0.1], np.float32))
    assert table["tag"].to_pylist() == ["", "long one", "x"]
    assert table["votes"].to_pylist() == [None, 2, 1]
    assert table["good"].to_pylist() == [None, False, True]
    np.testing.assert_array_equal(read_column(table, "vote_ra"), [np.nan, 20.0, 10.0])
    np.testing.assert_array_equal(read_column(table, "embedding"), [[np.nan] * 3, [3, 4, 5], [0, 1, 2]])
    assert columns_in(table)[3].ucd == "stat.likelihood"


def test_a_join_with_an_empty_table_leaves_nothing_but_gaps(gather):
    sources = {"field": np.array(["a"]), "source_id": np.array([5])}
    columns = (Column("field", "string"), Column("source_id", "int64"))
    extra = {c.name: np.zeros((0, 3) if "[" in c.dtype else 0) for c in EXTRA}
    extra["field"] = np.zeros(0, "U1")
    made = gather("sources", [Part("", "", sources)], columns)
    table = put_together(made, {}, joins=[gather("vote", [Part("", "", extra)], EXTRA)])
    assert table["votes"].to_pylist() == [None]
    assert np.isnan(read_column(table, "embedding")).all()


def test_two_rows_for_a_source_are_seen(gather):
    fields, numbers = np.array(["a", "a", "b"]), np.array([1, 2, 1])
    for rows, single in (([0, 1, 2], True), ([0, 0], False)):
        part = Part("", "", {"field": fields[rows], "source_id": numbers[rows]})
        assert has_one_row_each(gather("vote", [part], EXTRA)) is single


@pytest.mark.parametrize("n", [0, 1, 1000])
def test_rows_are_matched_by_both_keys(n):
    rng = np.random.default_rng(n)
    field, number = rng.choice(["x", "y"], n).astype("U1"), rng.permutation(n).astype(np.int64)
    order = rng.permutation(n)[: n // 2]
    found = match_rows(field, number, field[order], number[order])
    expected = np.full(n, -1)
    expected[order] = np.arange(len(order))
    assert (found == expected).all()
    assert (match_rows(field, number, np.full(n, "z"), number) == -1).all()


def test_rows_in_blocks_are_the_rows_at_once(gather, rows, field, monkeypatch):
    fields = {name: field(name) for name in ("a", "b")}
    data = {name: rows("sources", 50, seed) for seed, name in enumerate(fields)}
    extra = {"source_id": data["a"]["source_id"][::3], "tag": np.full(17, "é or not")}
    columns = (Column("source_id", "int64"), Column("tag", "string"))

    def build():
        table = gather("sources", [Part(name, "0_0", data[name]) for name in fields], COLUMNS)
        return put_together(table, fields, joins=[gather("vote", [Part("a", "0_0", extra)], columns)])

    whole = build()
    monkeypatch.setattr("survey_ml.export.spool.BLOCK", 9)
    blocks = build()
    assert blocks.column(0).num_chunks == 12 and blocks.equals(whole)
    assert read_column(whole, "tag").tolist().count("é or not") == 17
