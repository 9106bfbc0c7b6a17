"""What reproducing a paper gives: rows of figures, ours beside the published ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from survey_ml.learning.scores import Score


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes
    ----------
    quantity : str
        What was measured, on what.
    ours, low, high : float or None
        The figure and its 95 % interval; None where there is none.
    n : int
        Images that it was measured on.
    seeds : int
        Trainings behind it.
    paper : str
        The published figure, as printed; empty where there is none.
    """

    quantity: str
    ours: float | None
    low: float | None
    high: float | None
    n: int
    seeds: int
    paper: str = ""


@dataclass(frozen=True)
class Reproduction:
    """All figures of one paper, and the picture that was drawn of them."""

    paper: str
    rows: tuple[Row, ...]
    picture: Path | None = None

    def describe(self) -> dict[str, Any]:
        """Return what ``survey-ml reproduce --json`` prints."""
        return {"paper": self.paper, "rows": [asdict(row) for row in self.rows]}


def make_row(quantity: str, score: Score, *, n: int, seeds: int, paper: str = "") -> Row:
    """Return a row of a score; figures that are no number are None."""
    ours, low, high = (None if value != value else value for value in (score.value, score.low, score.high))
    return Row(quantity, ours, low, high, n, seeds, paper)
