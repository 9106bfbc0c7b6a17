from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup

from survey_ml.errors import SetAside
from survey_ml.hookspecs import PanelSpec
from survey_ml.report.page import make_page, make_section, write_report
from survey_ml.report.panel import Panel, make_table, render
from survey_ml.report.spec import PANELS


class Reader(HTMLParser):
    """What a browser would load, run and show."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            if key in ("src", "href"):
                self.links.append(value)
            if key.startswith("on"):
                self.handlers.append(key)
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def html(run):
    return (Path(run.out) / "report.html").read_text(encoding="utf-8")


def test_every_section_is_made(html):
    anchors = re.findall(r'<section id="(\w+)">', html)
    wanted = [spec.name for spec in sorted(PANELS, key=lambda spec: spec.order)]
    # This release classifies nothing; test_morphology_panels.py and test_shift_panel.py have some that do.
    classes = {
        "morphology",
        "morphology_gallery",
        "uncertainty",
        "uncertainty_gallery",
        "shift",
        "shift_gallery",
    }
    assert anchors == [name for name in wanted if name not in classes]
    assert "could not be made" not in html


def test_the_page_loads_nothing_and_runs_nothing(html):
    reader = read(html)
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in reader.links)
    assert not reader.handlers
    assert "@import" not in html and "url(" not in html


def test_markup_in_names_is_text(html):
    assert "<script>alert" not in html
    assert "bad &lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_what_was_set_aside_is_told_with_its_cause(html):
    text = " ".join(read(html).text)
    assert "broken" in text and "Nothing was set aside" not in text


def test_figures_say_what_they_show(html):
    images = re.findall(r"<img [^>]*>", html)
    assert len(images) >= 8
    assert all(re.search(r'alt="[^"]{10,}"', image) for image in images)


def test_checksums_cover_the_report(run):
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=run.out, check=True, capture_output=True, text=True
    )
    assert "report.html: OK" in done.stdout


def test_what_the_run_set_aside_is_escaped(run):
    aside = [SetAside("<b>x</b>", "<img src=x onerror=y>", "& go on", "0_0", "noise")]
    page = write_report(run.out, run, aside).read_text(encoding="utf-8")
    reader = read(page)
    assert not reader.handlers and "x" not in reader.links
    assert "<img src=x onerror=y>" in "".join(reader.text)


def broken(context):
    raise ValueError("<i>no data</i>")


def text_only(context):
    return Panel("A title with <tags>", "<script>text, not markup</script>")


def wrong_type(context):
    return "a string"


def nothing(context):
    return None


def spec(name: str) -> PanelSpec:
    return PanelSpec(name, f"{__name__}:{name}")


def test_a_failing_panel_is_replaced_by_its_error(context):
    section = make_section(spec("broken"), context)
    assert section.failed
    assert "ValueError: &lt;i&gt;no data&lt;/i&gt;" in section.body
    page = make_page(context, [spec("broken"), spec("text_only")])
    assert "&lt;i&gt;no data" in page and "A title with &lt;tags&gt;" in page


def test_a_panel_may_be_missing_or_return_the_wrong_thing(context):
    gone = make_section(PanelSpec("gone", "no_such_module:panel"), context)
    assert gone.failed and "no_such_module" in gone.body
    assert "str" in make_section(spec("wrong_type"), context).body
    assert make_section(spec("nothing"), context) is None


def test_plain_text_of_a_panel_is_not_markup(context):
    assert "<script>" not in make_section(spec("text_only"), context).body


def test_templates_escape_values_and_keep_markup():
    assert render("<p>{{ a }}{{ b }}</p>", a="<x>", b=Markup("<b>y</b>")) == "<p>&lt;x&gt;<b>y</b></p>"
    table = make_table(("<h>",), [("<td>",), (3,)], numeric=(0,))
    assert "&lt;h&gt;" in table and "&lt;td&gt;" in table and 'class="number"' in table
