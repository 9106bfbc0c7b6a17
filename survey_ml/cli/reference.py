"""``python -m survey_ml.cli.reference FILE`` rewrites the reference part of docs/configuration.md."""

from __future__ import annotations

import sys
from pathlib import Path

MARK = "<!-- what follows is written by `python -m survey_ml.cli.reference` -->\n"
STAGES = ("extraction", "forced", "baseline", "morphology", "uncertainty", "shift", "noise")


def write_reference(path: Path) -> None:
    """Replace what follows the mark by what the models say."""
    from survey_ml.cli.init import find_options
    from survey_ml.describe import render_reference

    head, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{path} has no line {MARK!r}")
    path.write_text(head + MARK + "\n" + render_reference(find_options(STAGES)), encoding="utf-8")


if __name__ == "__main__":
    write_reference(Path(sys.argv[1]))
