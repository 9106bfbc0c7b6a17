"""The options that `deploy` and `serve` share, and the deployment that follows from them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from survey_ml.cli.configuration import YAML_SUFFIXES, load
from survey_ml.errors import ConfigError

if TYPE_CHECKING:
    from survey_ml.engine.operation import Registration

Command = TypeVar("Command", bound=Callable[..., Any])

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType):
    """A time such as 90, 90s, 15m, 6h or 1d; in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(value).strip().lower())
        if match is None or float(match[1]) == 0:
            self.fail(f"{value!r} is no time; write 90, 90s, 15m, 6h or 1d", param, ctx)
        return float(match[1]) * _SECONDS[match[2] or "s"]


def deployment_options(command: Command) -> Command:
    """Add RELEASE.yaml, the schedule, and the parameters of a run to a command."""
    for option in (
        click.option(
            "--strict",
            is_flag=True,
            help="Let a run fail when anything was set aside, or the stage shift finds a field red.",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="STAGE.KEY=VALUE",
            help="Set an option of a stage or a section; may be repeated.",
        ),
        click.option("--engine", type=click.Choice(["ray", "local"]), help="Instead of the YAML's."),
        click.option("--out", metavar="DIR", help="Output folder or URL, instead of the YAML's."),
        click.option("--only", metavar="STAGE", help="Run this stage and those that it needs."),
        click.option(
            "--timezone", metavar="ZONE", help="Of --cron, such as Europe/Berlin; UTC unless given."
        ),
        click.option("--interval", type=Duration(), metavar="TIME", help="Run every 90s, 15m, 6h or 1d."),
        click.option("--cron", metavar="'M H D M W'", help="Run at these times, as in cron."),
        click.option("--name", metavar="NAME", help="Of the deployment; that of the release unless given."),
        click.argument("release", metavar="RELEASE.yaml"),
    ):
        command = option(command)
    return command


def require_yaml(release: str) -> None:
    """Refuse what is no release YAML.

    Raises
    ------
    ConfigError
        With what to do instead.
    """
    if not release.lower().endswith(YAML_SUFFIXES):
        raise ConfigError(f"{release} is no release YAML", "`survey-ml init` writes one to start from")


def make_registration(
    release: str,
    name: str | None,
    cron: str | None,
    interval: float | None,
    timezone: str | None,
    only: str | None,
    out: str | None,
    engine: str | None,
    settings: tuple[str, ...],
    strict: bool,
    there: str | None = None,
) -> Registration:
    """Check the release here and say what its deployment is.

    Parameters
    ----------
    there : str, optional
        Path of the YAML where the runs are, when it is not the same.

    Raises
    ------
    ConfigError
        When the release could not be run, or the options exclude each other.
    """
    from survey_ml.engine.operation import Registration, Schedule
    from survey_ml.graph import build_graph
    from survey_ml.loader import is_url
    from survey_ml.plugins import get_manager

    require_yaml(release)
    config = load([release], out, engine, settings)
    if cron and interval:
        raise ConfigError("--cron and --interval exclude each other", "give one of them")
    parameters: dict[str, Any] = {"config": there or str(Path(release).expanduser().absolute())}
    stages = [spec.name for spec in build_graph(config, get_manager()).order]
    if only:
        if only not in stages:
            raise ConfigError(
                f"--only {only}: this release has no such stage", f"its stages: {', '.join(stages)}"
            )
        parameters["only"] = only
    if out:
        parameters["out"] = out if is_url(out) or there else config.out
    if engine:
        parameters["engine"] = engine
    if settings:
        parameters["settings"] = list(settings)
    if strict:
        parameters["strict"] = True
    return Registration(name or config.release.name, parameters, Schedule(cron, interval, timezone))


def print_deployment(found: dict[str, Any]) -> None:
    """Print name, schedule and page of a deployment."""
    when = f"cron {found['cron']}" if found["cron"] else "when asked for"
    if found["interval"]:
        when = f"every {found['interval']:g} s"
    click.echo(f"deployment  {found['deployment']}\nruns        {when}\npage        {found['url']}")
