"""The column tables of a page: ``python -m survey_ml.export.columns_page docs/outputs.md``."""

from __future__ import annotations

import sys
from pathlib import Path

from survey_ml.columns import columns_of, table_names

BEGIN, END = "<!-- columns: begin -->", "<!-- columns: end -->"
_SAME = {
    "inverted": (
        "components",
        "What extraction with its option `inverted` finds in the image with its sign changed. All of it is "
        "false; where noise is symmetric, `components` holds about as many false ones. Absent when nothing "
        "was found.",
    )
}
_ABOUT = {
    "morphology": "Of the stage `morphology`; all but the first three are columns of `sources`. There is one "
    "`morph_p_` a class of the model, such as `morph_p_fri`.",
    "uncertainty": "Of the stage `uncertainty`; all but the first three are columns of `sources`. There is "
    "one `unc_p_` a class of the model.",
    "shift": "Of the stage `shift`, a file of its own with one row a field. There is one column of each "
    "`shift_share_`, `shift_low_` and `shift_high_` a class of the model.",
    "shift_sources": "Of the stage `shift`; its last column is one of `sources`.",
    "shift_objects": "Of the stage `shift`, a file of its own: at most 500 sources of a field that it "
    "judged, one of each object. `shift_release` reads it. There is one `shift_p_` a class of the model.",
    "morphology_features": "Of the stage `morphology`, a file of its own; its vectors are the model's.",
}


def format_columns() -> str:
    """Return one Markdown table for each built-in table."""
    pieces = []
    for name in table_names():
        if name in _SAME:
            other, text = _SAME[name]
            pieces.append(f"### {name}\n\n{text} The columns of `{other}`.")
            continue
        rows = [
            f"| `{c.name}` | {c.dtype} | {c.unit} | `{c.ucd}` | {c.description} |" for c in columns_of(name)
        ]
        head = "| column | type | unit | UCD | what it is |\n|---|---|---|---|---|"
        about = [f"{_ABOUT[name]}\n"] if name in _ABOUT else []
        pieces.append("\n".join([f"### {name}\n", *about, head, *rows]))
    return "\n\n".join(pieces)


def fill_page(text: str) -> str:
    """Return a page with the tables put between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{format_columns()}\n\n{END}{after}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(fill_page(page.read_text(encoding="utf-8")), encoding="utf-8")
