from __future__ import annotations

from pathlib import Path

from survey_ml.export.columns_page import fill_page, format_columns
from survey_ml.export.spec import EXPORTERS

PAGE = Path(__file__).parents[2] / "docs/outputs.md"


def test_the_page_has_the_columns_of_the_code():
    text = PAGE.read_text(encoding="utf-8")
    assert fill_page(text) == text, "run: python -m survey_ml.export.columns_page docs/outputs.md"
    assert "| `total_flux` | float64 | Jy |" in format_columns()


def test_the_page_names_every_format():
    line = next(line for line in PAGE.read_text().splitlines() if line.strip().startswith("formats:"))
    assert all(spec.name in line for spec in EXPORTERS if spec.name != "maps")
