"""Ingest and reading do not grow with the field."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ingest_memory.py"


def run(*arguments: str) -> float:
    answer = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=600
    )
    assert answer.returncode == 0, answer.stderr
    return float(re.search(r"([\d.]+) times the memory", answer.stdout)[1])


@pytest.mark.slow
def test_nine_times_the_pixels_need_no_more_memory(tmp_path):
    assert run("--sizes", "2048", "6144", "--folder", str(tmp_path)) < 1.15


@pytest.mark.slow
def test_a_field_of_20000_pixels_a_side_needs_no_more_memory(tmp_path):
    assert run("--sizes", "2048", "20000", "--folder", str(tmp_path)) < 1.15
