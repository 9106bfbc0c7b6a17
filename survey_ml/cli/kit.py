"""`survey-ml plugins new` and `survey-ml plugins check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from survey_ml.cli.group import debug_option
from survey_ml.cli.output import format_seconds, json_option, json_output, tell_at_terminal

if TYPE_CHECKING:
    from survey_ml.conformance.result import Report

_MARKS = {True: "ok", False: "FAILED", None: "-"}


@click.command()
@click.argument("name")
@click.option("--into", default=".", show_default=True, metavar="DIR", help="Folder to make it in.")
@debug_option
def new(name: str, into: str) -> None:
    """Write a plugin to start from: a distribution of its own with one stage, its tests and a README.

    It passes its tests and `survey-ml plugins check` as it is. Nothing is ever overwritten.
    """
    from survey_ml.cli.starter import make_plugin

    folder = make_plugin(name, Path(into).expanduser())
    click.echo(
        f"{folder}\n\nnext:"
        f"\n  cd {folder} && python -m pytest      its own tests"
        f"\n  survey-ml plugins check {folder}     whether it keeps the contract"
        f"\n  pip install -e {folder}              then name its stage in a release YAML"
    )


@click.command()
@click.argument("target", metavar="PATH|NAME")
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0.5),
    help="Seconds that one process of the plugin may take.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="STAGE.KEY=VALUE",
    help="Set an option of a stage for the trial; may be repeated.",
)
@json_option
@debug_option
@click.pass_context
def check(ctx: click.Context, target: str, timeout: float, settings: tuple[str, ...], as_json: bool) -> None:
    """Check whether a plugin keeps the contract, by running it on a small simulated release.

    PATH is the folder of a distribution, which need not be installed; NAME an installed plugin. All
    code of the plugin runs in processes of their own. Exit code 0: all checks passed; 1: some did
    not; 2: there is nothing to check.
    """
    from survey_ml.conformance import check_plugin

    with json_output(as_json) as emit:
        tell = (lambda text: None) if as_json else tell_at_terminal
        report = check_plugin(target, timeout=timeout, settings=settings, tell=tell)
        emit(report.to_dict())
    if not as_json:
        _print(report)
    ctx.exit(0 if report.passed else 1)


def _print(report: Report) -> None:
    click.echo(f"{report.distribution} {report.version}  ({report.target})\n")
    width = max(len(check.name) for check in report.checks)
    about = None
    for check in report.checks:
        if check.about != about:
            about = check.about
            click.echo(about)
        click.echo(f"  {_MARKS[check.passed]:<6}  {check.name:<{width}}  {check.detail}".rstrip())
        if check.hint and check.passed is not True:
            click.echo(f"  {'':6}  {'':{width}}  hint: {check.hint}")
    failed = len(report.failed)
    said = "all checks passed" if report.passed else f"{failed} of {len(report.checks)} checks failed"
    click.echo(f"\n{said}; {format_seconds(report.seconds)}")
