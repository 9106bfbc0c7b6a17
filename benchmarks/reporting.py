"""Tables, bars and the JSON that every benchmark prints."""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from survey_ml.validation.completeness import Share
from survey_ml.validation.pulls import Spread


@dataclass
class Report:
    """What one benchmark found.

    Parameters
    ----------
    title : str
    settings : dict
        Sizes, seeds, thresholds: all that the figures depend on.
    """

    title: str
    settings: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    bars: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_table(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows with the same keys; `Share` and `Spread` values show their intervals."""
        self.tables[name] = list(rows)

    def add_bar(self, what: str, value: Any, bar: str, passed: bool) -> None:
        """Add a figure with the bar it must meet."""
        self.bars.append({"what": what, "value": value, "bar": bar, "passed": bool(passed)})

    def finish(self, as_json: bool) -> int:
        """Print everything; return 0 if all bars are met, else 1."""
        if as_json:
            content = {
                "title": self.title,
                "settings": self.settings,
                "machine": f"{platform.machine()} Python {platform.python_version()}",
                "tables": self.tables,
                "bars": self.bars,
                "notes": self.notes,
            }
            print(json.dumps(_plain(content), indent=1))
        else:
            print(self.title)
            print("  " + ", ".join(f"{key} {_show(value)}" for key, value in self.settings.items()))
            for name, rows in self.tables.items():
                print(f"\n{name}")
                _print_rows(rows)
            for note in self.notes:
                print(f"\n{note}")
            if self.bars:
                print()
            for bar in self.bars:
                verdict = "PASS" if bar["passed"] else "FAIL"
                print(f"{verdict}  {bar['what']}: {_show(bar['value'])}  (bar: {bar['bar']})")
        return 0 if all(bar["passed"] for bar in self.bars) else 1


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        print("  (none)")
        return
    cells = [list(rows[0])] + [[_show(value) for value in row.values()] for row in rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    for row in cells:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _show(value: Any) -> str:
    if isinstance(value, Share):
        return f"{value.value:.4f} [{value.low:.4f}, {value.high:.4f}]" if value.n else "-"
    if isinstance(value, Spread):
        return f"{value.width:.3f} [{value.width_low:.3f}, {value.width_high:.3f}]"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    if isinstance(value, (list, tuple)):
        return " ".join(_show(v) for v in value)
    return str(value)


def _plain(value: Any) -> Any:
    """Return only what JSON knows; not-a-number and infinities become null."""
    if isinstance(value, (Share, Spread)):
        return _plain(vars(value))
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
