"""The column table is complete and well formed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from astropy import units as u

from survey_ml.columns import (
    assembled_columns,
    columns_of,
    columns_written,
    expand_columns,
    part_columns,
    table_names,
)
from survey_ml.errors import PluginError
from survey_ml.products import Column, table

DTYPES = {"float64", "float32", "int64", "int32", "bool", "string"}


@pytest.mark.parametrize("name", table_names())
def test_every_column_is_described(name):
    columns = columns_of(name)
    names = [column.name for column in columns]
    assert len(set(names)) == len(names)
    for column in columns:
        assert column.dtype.removesuffix("[*]") in DTYPES, column
        assert column.description and not column.description.endswith("."), column
        assert re.fullmatch(r"[a-zA-Z.;]+", column.ucd), column
        if column.unit:
            u.Unit(column.unit, parse_strict="raise")


@pytest.mark.parametrize("name", table_names())
def test_parts_and_assembled_columns_make_the_table(name):
    parts, added = part_columns(name), assembled_columns(name)
    assert set(parts).isdisjoint(added)
    assert set(parts) | set(added) == set(columns_of(name))
    assert added, "a part never knows its field"


def test_every_measured_quantity_has_an_error():
    names = {column.name for column in columns_of("sources")}
    for quantity in ("ra", "dec", "peak_flux", "total_flux", "major", "minor", "pa", "dc_major", "dc_minor"):
        assert {quantity, f"{quantity}_err"} <= names


def test_inverted_sources_have_the_columns_of_components():
    assert columns_of("inverted") == columns_of("components")


def test_unknown_table_is_a_key_error():
    with pytest.raises(KeyError):
        columns_of("nonsense")


def test_columns_written_prefers_what_the_product_declares():
    mine = (Column("score", "float32"),)
    assert columns_written(table("sources", columns=mine), {}) == mine
    assert columns_written(table("sources"), {}) == part_columns("sources")


def test_columns_written_follows_the_rows_of_an_unknown_table():
    rows = {
        "name": np.array(["a", "b"]),
        "n": np.array([1, 2], dtype=np.int32),
        "big": np.array([1, 2], dtype=np.uint32),
        "good": np.array([True, False]),
        "vector": np.zeros((2, 5), dtype=np.float32),
    }
    found = {column.name: column.dtype for column in columns_written(table("other"), rows)}
    assert found == {
        "name": "string",
        "n": "int32",
        "big": "int64",
        "good": "bool",
        "vector": "float32[5]",
    }
    with pytest.raises(PluginError, match="complex"):
        columns_written(table("other"), {"z": np.zeros(2, dtype=complex)})


@pytest.mark.parametrize("name", table_names())
def test_a_table_has_one_main_column_of_a_kind(name):
    """Readers take the one identifier, position and flux marked as main; two of a kind confuse them."""
    main = [column.ucd for column in columns_of(name) if column.ucd.endswith("meta.main")]
    assert main.count("meta.id;meta.main") == 1
    assert len(set(main)) == len(main)


FAMILY = (
    Column("n", "int32"),
    Column("p_*", "float32", "", "stat.probability", "Probability of *"),
    Column("p_own", "string", "", "", "Declared by its own name"),
    Column("p_x_*", "float64", "", "", "The longer beginning"),
    Column("v", "float32[*]"),
)


def test_a_family_stands_for_what_the_rows_hold():
    rows = {
        "p_b": np.zeros(2),
        "n": np.zeros(2, int),
        "p_own": np.array(["", ""]),
        "p_a": np.zeros(2),
        "p_x_y": np.zeros(2),
        "v": np.zeros((2, 7)),
        "other": np.zeros(2),
    }
    found = expand_columns(FAMILY, rows)
    assert [(c.name, c.dtype) for c in found] == [
        ("n", "int32"), ("p_b", "float32"), ("p_a", "float32"), ("p_own", "string"),
        ("p_x_y", "float64"), ("v", "float32[7]"),
    ]  # fmt: skip
    assert found[1] == Column("p_b", "float32", "", "stat.probability", "Probability of b")
    product = table("trial", columns=FAMILY)
    assert columns_written(product, rows) == found
    # Without rows there are columns all the same.
    assert expand_columns(FAMILY, {name: values[:0] for name, values in rows.items()}) == found


def test_a_family_needs_more_than_its_beginning():
    assert expand_columns((Column("p_*", "float32"),), {"p_": np.zeros(1), "q": np.zeros(1)}) == ()
    assert expand_columns((Column("p_*", "float32"),), {}) == ()


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((0, 0)), np.zeros((2, 2, 2))])
def test_a_vector_needs_a_length(values):
    with pytest.raises(PluginError, match="vectors of one length"):
        expand_columns((Column("v", "float32[*]"),), {"v": values})
