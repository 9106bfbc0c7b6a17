"""What is printed for people and for machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from survey_ml.cli.output import (
    format_bytes,
    format_count,
    format_seconds,
    format_table,
    print_set_aside,
    to_plain,
)
from survey_ml.errors import SetAside


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


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "field", "1 field"), (0, "field", "0 fields"), (1, "unit of work", "1 unit of work"),
     (3, "unit of work", "3 units of work")],
)  # fmt: skip
def test_counts_are_singular_or_plural(number, noun, text):
    assert format_count(number, noun) == text


def test_what_is_alike_is_set_aside_on_one_line(capsys):
    lacking = [SetAside(f"f{i:03}", "no beam", "Give one.") for i in range(600)]
    tiles = [SetAside("north", "it failed", "", f"0_{i}", "noise") for i in range(5)]
    both = [SetAside(name, "worse", "", "0_0", "noise") for name in ("north", "south")]
    one = SetAside("east", "truncated", "Copy it again.", "1_1", "ingest")
    print_set_aside([*lacking, *tiles, *both, one])
    assert capsys.readouterr().err.splitlines() == [
        "set aside: 600 fields (f000, f001, f002 and 597 more): no beam",
        "  hint: Give one.",
        "set aside: field north, 5 tiles (0_0, 0_1, 0_2 and 2 more), stage noise: it failed",
        "set aside: 2 tiles of 2 fields (north, south), stage noise: worse",
        "set aside: field east, tile 1_1, stage ingest: truncated",
        "  hint: Copy it again.",
    ]
