"""The report: one HTML file that needs nothing else, with a section a panel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from survey_ml import __version__
from survey_ml.errors import SetAside
from survey_ml.report.panel import Panel, render
from survey_ml.report.style import RC

if TYPE_CHECKING:
    from survey_ml.config import LoadedConfig
    from survey_ml.hookspecs import PanelSpec
    from survey_ml.report.context import Context

NAME = "report.html"


@dataclass(frozen=True)
class Section:
    """A panel as it goes into the page."""

    anchor: str
    title: str
    body: Markup
    failed: bool = False


def write_report(out: str, config: LoadedConfig, set_aside: Sequence[SetAside] = ()) -> Path:
    """Write ``report.html`` of a release.

    Parameters
    ----------
    out : str
        Absolute path or URL of the release.
    config : LoadedConfig
        As run.
    set_aside : sequence of SetAside
        What the run left out, and why.

    Returns
    -------
    Path
        The file; relative to ``out`` where that is a URL.

    Raises
    ------
    StoreError
        When it cannot be written.
    """
    from survey_ml.data.release import Release
    from survey_ml.export.bundle import load_tables
    from survey_ml.export.checksums import write_checksums
    from survey_ml.plugins import get_manager
    from survey_ml.report.context import Context

    release = Release.open(out)
    tables = load_tables(release, config)
    context = Context(release, config.release, config.base, tables, tuple(set_aside), dict(release.commits()))
    html = make_page(context, get_manager().panels())
    release.store.medium.replace(NAME, html.encode("utf-8"))
    write_checksums(release.store)
    return Path(NAME) if "://" in out else Path(release.store.out) / NAME


def make_page(context: Context, panels: Sequence[PanelSpec]) -> str:
    """Return the whole page.

    Parameters
    ----------
    context : Context
        What the panels show.
    panels : sequence of PanelSpec
        In the order they are to appear.
    """
    import matplotlib

    with matplotlib.rc_context(RC):
        sections = [section for spec in panels if (section := make_section(spec, context))]
    here = files("survey_ml.report")
    return str(
        render(
            here.joinpath("page.html").read_text(encoding="utf-8"),
            # The style sheet is ours; it must not be escaped.
            css=Markup(here.joinpath("page.css").read_text(encoding="utf-8")),  # noqa: S704
            name=context.config.name,
            sections=sections,
            version=__version__,
            made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        )
    )


def make_section(spec: PanelSpec, context: Context) -> Section | None:
    """Return a panel's section; its error in place of what fails, None for a panel with nothing to show."""
    from survey_ml.plugins import load_factory

    try:
        panel: Any = load_factory(spec.factory, spec.name)(context)
        if panel is None:
            return None
        if not isinstance(panel, Panel):
            raise TypeError(f"it returned {type(panel).__name__}, not a Panel")
        # Plain text from a third party is escaped, Markup is taken as it is.
        return Section(spec.name, panel.title, Markup.escape(panel.body))
    except Exception as error:  # a panel may fail in any way; the others must be shown
        body = render(
            '<p class="failure">This section could not be made. {{ kind }}: {{ error }}</p>',
            kind=type(error).__name__,
            error=error,
        )
        return Section(spec.name, spec.name.replace("_", " ").capitalize(), body, failed=True)
