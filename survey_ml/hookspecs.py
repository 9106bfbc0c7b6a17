"""The plugin contract: what a distribution can add to survey_ml, on one page.

Announce a module with these functions under the entry-point group ``survey_ml.v1``. Hooks return
light specifications with import paths; the code behind them is imported where it runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import pluggy

from survey_ml.stage import API, StageSpec

PROJECT = "survey_ml"
GROUP = "survey_ml.v1"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class ReaderSpec:
    """An input format. ``factory`` names a class like `survey_ml.data.fits.FitsReader`."""

    name: str
    factory: str
    suffixes: tuple[str, ...]
    api: tuple[int, int] = API
    summary: str = ""


@dataclass(frozen=True)
class ExporterSpec:
    """A catalogue or map format. ``factory`` names ``export(release, folder, options) -> list[Path]``."""

    name: str
    factory: str
    api: tuple[int, int] = API
    summary: str = ""


@dataclass(frozen=True)
class PanelSpec:
    """A section of the report. ``factory`` names ``panel(context) -> Panel | None``; low order first."""

    name: str
    factory: str
    order: int = 500
    api: tuple[int, int] = API
    summary: str = ""


@dataclass(frozen=True)
class ModelSpec:
    """A trained model. ``factory`` names ``path(name) -> Path`` of a file that `save_model` wrote."""

    name: str
    factory: str
    api: tuple[int, int] = API
    summary: str = ""


@dataclass(frozen=True)
class CommandSpec:
    """A command of ``survey-ml``. ``factory`` names a ``click.Command``."""

    name: str
    factory: str
    api: tuple[int, int] = API
    summary: str = ""


@hookspec
def survey_ml_stages() -> list[StageSpec]:
    """Return the stages this plugin provides.

    Called once when a command needs the stages; import nothing heavy here.
    """
    raise NotImplementedError


@hookspec
def survey_ml_readers() -> list[ReaderSpec]:
    """Return the input formats this plugin can open.

    The reader whose suffix matches the longest end of a file name opens it.
    """
    raise NotImplementedError


@hookspec
def survey_ml_exporters() -> list[ExporterSpec]:
    """Return the formats this plugin can write.

    They run, by name, when the configuration's ``export.formats`` lists them.
    """
    raise NotImplementedError


@hookspec
def survey_ml_report_panels() -> list[PanelSpec]:
    """Return the sections this plugin adds to the report.

    A panel that fails is replaced by its error; the others are shown.
    """
    raise NotImplementedError


@hookspec
def survey_ml_models() -> list[ModelSpec]:
    """Return the trained models that this plugin brings.

    Their files are looked for when a model is used; docs/models.md says how to make one.
    """
    raise NotImplementedError


@hookspec
def survey_ml_commands() -> list[CommandSpec]:
    """Return the commands this plugin adds to ``survey-ml``.

    They are imported when called, so that ``--help`` stays fast.
    """
    raise NotImplementedError
