"""What is printed for people and for machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from survey_ml.cli.output import format_bytes, format_seconds, format_table, to_plain


def test_a_table_lines_up_numbers_to_the_right():
    text = format_table(("name", "n"), [("a", 5), ("long name", 1234)])
    assert text.splitlines() == ["name          n", "---------  ----", "a             5", "long name  1234"]


def test_a_table_without_rows_is_its_header():
    assert format_table(("a", "b"), []) == "a  b\n-  -"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e8, "250 MB"), (3e12, "3.0 TB"), (9e15, "9000 TB")],
)
def test_bytes(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (12.4, "12 s"), (200, "3 min 20 s"), (18600, "5 h 10 min")]
)
def test_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_values_become_plain():
    @dataclass
    class Row:
        path: Path
        values: np.ndarray

    row = Row(Path("a"), np.array([1.0, np.nan]))
    assert to_plain({"row": row, "n": np.int64(3), "inf": float("inf"), "t": (True, None)}) == {
        "row": {"path": "a", "values": [1.0, None]},
        "n": 3,
        "inf": None,
        "t": [True, None],
    }
