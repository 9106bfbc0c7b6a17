"""The plugin in docs/plugins.md, written from the page and run word for word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
SHIMS = {
    "survey-ml": 'exec "{python}" -m survey_ml.cli "$@"',
    "python": 'exec "{python}" "$@"',
    # The word-for-word `pip install -e .`, into a folder of this test instead of its environment.
    "pip": '[ "$*" = "install -e ." ] && exec "{python}" -m pip install --quiet --no-deps '
    '--no-build-isolation --disable-pip-version-check --target "{site}" .',
}


def find_blocks() -> list[tuple[str, str]]:
    text = PAGE.read_text().partition("## One from nothing")[2]
    return [(match["kind"], match["text"]) for match in BLOCK.finditer(text)]


@pytest.mark.slow
def test_the_plugin_of_the_page_works_word_for_word(tmp_path):
    folder, site, shims = tmp_path / "sharpness-map", tmp_path / "site", tmp_path / "bin"
    shims.mkdir()
    for name, line in SHIMS.items():
        path = shims / name
        path.write_text("#!/bin/sh\n" + line.format(python=sys.executable, site=site) + "\n")
        path.chmod(0o755)
    known = {name: value for name, value in os.environ.items() if not name.startswith("SURVEY_ML_")}
    search = os.pathsep.join([str(site), *(path for path in sys.path if path)])
    known |= {"PYTHONPATH": search, "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}"}
    folder.mkdir()
    said = []
    for kind, text in find_blocks():
        if kind == "sh":
            done = subprocess.run(
                ["bash", "-e", "-c", text], cwd=folder, env=known, capture_output=True, text=True, timeout=400
            )
            assert done.returncode == 0, done.stdout + done.stderr
            said.append(done.stdout)
        else:
            head, _, body = text.partition("\n")
            path = folder / head.removeprefix("# ")
            path.parent.mkdir(exist_ok=True)
            path.write_text(body)
    checked, _, ran = said
    lines = [line.split()[0] for line in checked.splitlines() if line.startswith("  ")]
    assert set(lines) == {"ok"}
    assert re.search(r"sharpness +4 +4 ", ran)
    assert re.search(r"ingest +4 +4 ", ran)
    assert (folder / "first/catalogue/maps/sky.sharpness.fits").is_file()


def test_the_panel_of_the_page_counts_each_object_once():
    import numpy as np
    import pyarrow as pa

    from survey_ml.export.duplicates import DUPLICATE
    from survey_ml.report.context import Context
    from survey_ml.report.panel import Panel

    section = PAGE.read_text().partition("## Sections of the report")[2].partition("\n## ")[0]
    (text,) = [match["text"] for match in BLOCK.finditer(section) if match["kind"] == "python"]
    found: dict = {}
    exec(compile(text, str(PAGE), "exec"), found)
    columns = {
        "peak_flux": np.array([1.0, 1.0, 1.0, 9.0]),
        "total_flux": np.array([2.0, 2.0, 2.0, 9.0]),
        "flags": np.array([0, 0, 0, DUPLICATE]),
    }
    context = Context(None, None, PAGE.parent, {"sources": pa.table(columns)}, (), {})
    panel = found["show_compactness"](context)
    assert isinstance(panel, Panel)
    assert "<p>3 sources.</p>" in panel.body
    assert panel.body.count("0.50") == 3 and "1.00" not in panel.body
    assert found["show_compactness"](Context(None, None, PAGE.parent, {}, (), {})) is None
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)", row)]
    assert len(named) > 10
    assert all(hasattr(Context, name) or name in Context.__annotations__ for name in named)


def test_the_checks_on_the_page_are_those_that_are_made():
    from survey_ml.conformance.check import PLUGIN_CHECKS, STAGE_CHECKS

    table = PAGE.read_text().partition("| check | passes when |")[2].partition("\n\n")[0]
    listed = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    more = {"allowed", "tile_independent", "time_limit", "process"}
    assert listed == {*PLUGIN_CHECKS, *STAGE_CHECKS} | more
