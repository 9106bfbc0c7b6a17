"""What a stage returns is held against what it declared."""

from __future__ import annotations

import numpy as np
import pytest
import trial

from survey_ml.engine.outputs import check_outputs
from survey_ml.errors import PluginError
from survey_ml.field import Tile, Window
from survey_ml.products import Column, Kind, Product, summary, table

CORE = Window(0, 4, 0, 6)
TILE = Tile("0_0", CORE, CORE)


def outputs(**changed):
    good = {
        "smooth": np.zeros((4, 6), np.float32),
        "bright": {
            "row": np.array([1, 2]),
            "column": np.array([3, 4], np.int32),
            "value": np.array([1.0, 2.0]),
            "word": np.array(["a", "b"], dtype=object),
        },
        "looks": {"mean": np.float32(1.5), "list": (1, 2), "grid": np.eye(2)},
    }
    return good | changed


def check(values):
    return check_outputs("smooth", trial.SMOOTH.writes, values, TILE)


def test_good_outputs_come_in_their_declared_types():
    arrays, tables, summaries = check(outputs())
    assert arrays["smooth"].dtype == np.float32
    rows, product = tables["bright"]
    assert product.name == "bright"
    assert [rows[name].dtype for name in ("row", "column", "value")] == [np.int64, np.int64, np.float32]
    assert summaries["looks"] == {"mean": 1.5, "list": [1, 2], "grid": [[1.0, 0.0], [0.0, 1.0]]}


def test_empty_table_of_lists():
    _, tables, _ = check(outputs(bright={"row": [], "column": [], "value": [], "word": np.array([], object)}))
    assert tables["bright"][0]["row"].dtype == np.int64


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"more": 1}, "returned more, which it does not declare"),
        ({"smooth": [[0.0]]}, "returned list for array smooth"),
        ({"smooth": np.zeros((3, 6), np.float32)}, "smooth with shape (3, 6), the core has (4, 6)"),
        ({"smooth": np.zeros((4, 6))}, "smooth as float64, declared as float32"),
        ({"bright": 3}, "returned int for table bright"),
        ({"bright": {"row": np.zeros(1, int)}}, "without column column, value, word"),
        ({"looks": {"a": object()}}, "summary looks that is not JSON"),
    ],
)
def test_broken_contract_names_stage_and_product(changed, words):
    with pytest.raises(PluginError) as caught:
        check(outputs(**changed))
    assert words in caught.value.message
    assert caught.value.message.startswith("stage smooth")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("row", np.array([1, 2, 3]), "columns of lengths"),
        ("row", np.array([1.5, 2.0]), "as float64, declared as int64"),
        ("row", np.zeros((2, 2), int), "with shape (2, 2), declared (n,)"),
        ("word", np.array([1, 2]), "as int64, declared as string"),
    ],
)
def test_wrong_column(column, values, words):
    rows = outputs()["bright"] | {column: values}
    with pytest.raises(PluginError, match="bright") as caught:
        check(outputs(bright=rows))
    assert words in caught.value.message


def test_missing_product():
    values = outputs()
    del values["looks"]
    with pytest.raises(PluginError, match="did not return looks"):
        check(values)


def test_vectors_and_undeclared_columns():
    vector = table("features", columns=(Column("f", "float32[3]"),))
    arrays = check_outputs("s", (vector,), {"features": {"f": np.zeros((5, 3))}}, TILE)[1]
    assert arrays["features"][0]["f"].dtype == np.float32
    with pytest.raises(PluginError, match="declared \\(n, 3\\)"):
        check_outputs("s", (vector,), {"features": {"f": np.zeros((5, 2))}}, TILE)
    with pytest.raises(PluginError, match="writes table nowhere, which has no columns"):
        check_outputs("s", (table("nowhere"),), {"nowhere": {}}, TILE)


def test_array_needs_a_tile():
    product = Product("map", Kind.ARRAY, "float32", ("y", "x"))
    with pytest.raises(PluginError, match="without a tile"):
        check_outputs("s", (product,), {"map": np.zeros((4, 6), np.float32)}, None)
    assert check_outputs("s", (summary("a"),), {"a": None}, None)[2] == {"a": None}


FAMILY = table(
    "scores",
    "source",
    columns=(Column("source_id", "int64"), Column("p_*", "float32"), Column("seen", "float32[*]")),
)


def score(**more):
    return {"scores": {"source_id": np.arange(2), "seen": np.zeros((2, 3)), **more}}


def test_a_family_of_columns_is_checked_like_any():
    rows = check_outputs("s", (FAMILY,), score(p_a=np.ones(2), p_b=np.zeros(2)), TILE)[1]["scores"][0]
    assert list(rows) == ["source_id", "p_a", "p_b", "seen"]
    assert rows["p_a"].dtype == np.float32 and rows["seen"].shape == (2, 3)
    empty = {"scores": {n: v[:0] for n, v in score(p_a=np.ones(2))["scores"].items()}}
    assert check_outputs("s", (FAMILY,), empty, TILE)[1]["scores"][0]["seen"].shape == (0, 3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"q_a": np.ones(2)}, "with undeclared column q_a"),
        ({"p_a": np.ones((2, 2))}, "column p_a of scores with shape"),
        ({"p_a": np.array(["x", "y"])}, "column p_a of scores as <U1"),
        ({"p_A b": np.ones(2)}, "'p_A b' of scores, which is no name of a column"),
        ({"seen": np.ones(2)}, "scores whose column 'seen' has shape (2,)"),
        ({"seen": np.ones((3, 4))}, "with columns of lengths"),
    ],
)
def test_a_wrong_member_of_a_family_is_named(more, words):
    with pytest.raises(PluginError) as caught:
        check_outputs("s", (FAMILY,), score(**more), TILE)
    assert words in caught.value.message
    assert caught.value.hint
