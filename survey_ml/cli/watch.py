"""`survey-ml watch`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from survey_ml.cli.configuration import configuration_options, load
from survey_ml.cli.group import debug_option
from survey_ml.cli.output import print_set_aside

if TYPE_CHECKING:
    from survey_ml.engine.run import RunResult

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def read_duration(ctx: click.Context, parameter: click.Parameter, text: str) -> float:
    """Return seconds for ``60``, ``60s``, ``5min`` or ``1h``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not found or found.group(2) not in _UNITS or not float(found.group(1)):
        raise click.BadParameter(f"{text!r} is no duration; write 60s, 5min or 1h")
    return float(found.group(1)) * _UNITS[found.group(2)]


@click.command()
@configuration_options
@click.option(
    "--every", default="60s", show_default=True, callback=read_duration, help="Time between two looks."
)
@click.option("--once", is_flag=True, help="Look, process what is whole, and end.")
@debug_option
@click.pass_context
def watch(
    ctx: click.Context,
    paths: tuple[str, ...],
    out: str | None,
    engine: str | None,
    settings: tuple[str, ...],
    every: float,
    once: bool,
) -> None:
    """Process images as they arrive where the release's `fields` look for them, once each.

    Files that are still being written are waited for. taken.json in the release tells what was
    taken, with checksums; the same content under another name is told and not processed twice.
    Ends on Ctrl-C; the same command goes on.
    """
    config = load(paths, out, engine, settings)
    from survey_ml.cli.run import print_result
    from survey_ml.engine.watch import Watch, watch_release

    codes = [0]

    def tell(result: RunResult) -> None:
        print_set_aside(result.set_aside)
        print_result(result)
        codes.append(result.exit_code)

    looker = Watch(config)
    if not once:
        click.echo(f"watching for {', '.join(_name_places(config.release.fields))}; Ctrl-C ends it", err=True)
    watch_release(looker, tell, every=every, once=once)
    for path in looker.waiting:
        click.echo(f"not whole yet: {path}", err=True)
    # The engine says of each what it is, once; here it counts as for `run`.
    ctx.exit(max(codes[-1], 1 if looker.aside else 0))


def _name_places(fields: tuple[object, ...]) -> list[str]:
    return [field if isinstance(field, str) else str(getattr(field, "path", field)) for field in fields]
