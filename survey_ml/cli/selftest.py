"""`survey-ml selftest`."""

from __future__ import annotations

from typing import Any

import click

from survey_ml.cli.group import debug_option
from survey_ml.cli.output import format_seconds, format_table, json_option, json_output
from survey_ml.cli.version import find_versions


@click.command()
@click.argument("names", metavar="[FAULT]...", nargs=-1)
@click.option("--faults", is_flag=True, help="Try what a release must bear: all faults, or those named.")
@click.option("--list", "listed", is_flag=True, help="List the faults, and which can be tried here.")
@click.option("--runs", type=click.IntRange(min=1), help="Runs under a fault; one for each unless given.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of the first run.")
@click.option(
    "--out", metavar="DIR", help="Folder for all of it, on the disk to be tried; temporary unless given."
)
@click.option("--keep", is_flag=True, help="Leave the releases there; those that failed are left anyway.")
@click.option("--engine", type=click.Choice(["ray", "local"]), help="Run everything on this engine.")
@click.option("--bucket", default="", metavar="NAME", help="Bucket at AWS_ENDPOINT_URL for the s3 faults.")
@json_option
@debug_option
@click.pass_context
def selftest(
    ctx: click.Context,
    names: tuple[str, ...],
    faults: bool,
    listed: bool,
    runs: int | None,
    seed: int,
    out: str | None,
    keep: bool,
    engine: str | None,
    bucket: str,
    as_json: bool,
) -> None:
    """Check that this installation works; with --faults, that a release survives what breaks.

    A small release is simulated and processed. With --faults it is processed again and again, each
    time with a fault at a random moment, the same command is started again until it ends well, and
    the release must then be that of an undisturbed run, byte for byte.

    Exit code 0: all is as it should be; 1: something is not; 2: nothing was tried.
    """
    from survey_ml.errors import ConfigError
    from survey_ml.selftest.fault import Means
    from survey_ml.selftest.session import Session

    if (names or runs) and not faults and not listed:
        raise ConfigError("names of faults and --runs go with --faults", "survey-ml selftest --faults")
    say = (lambda text: None) if as_json else click.echo
    with json_output(as_json) as emit, Session(Means(engine, bucket), out, keep=keep, say=say) as session:
        if listed:
            found = session.list_faults(names)
        elif faults:
            found = session.try_faults(names, runs, seed)
        else:
            found = session.check() | {"versions": find_versions()}
        emit(found)
    if not as_json:
        _print(found, session.seconds)
    ctx.exit(0 if found.get("passed", True) else 1)


def _print(found: dict[str, Any], seconds: float) -> None:
    if "faults" in found:
        rows = [(f["fault"], f["engine"], f["summary"], f["not_here"] or "yes") for f in found["faults"]]
        click.echo(format_table(("fault", "engine", "what", "can be tried here"), rows))
        return
    if "engines" in found:
        _print_check(found)
    else:
        _print_runs(found)
    click.echo(
        f"\n{'all is as it should be' if found['passed'] else 'not all is well'}; {format_seconds(seconds)}"
    )


def _print_check(found: dict[str, Any]) -> None:
    rows = [
        (
            e["engine"],
            e["units"],
            format_seconds(e["seconds"]),
            ", ".join(f"{n} {k}" for k, n in e["tables"].items()),
        )
        for e in found["engines"]
    ]
    click.echo("\n" + format_table(("engine", "units", "time", "rows"), rows))
    for text in found["wrong"]:
        click.echo(f"wrong: {text}", err=True)
    click.echo(
        "\n" + format_table(("package", "version"), [(k, v or "-") for k, v in found["versions"].items()])
    )


def _print_runs(found: dict[str, Any]) -> None:
    rows = [
        (
            run["fault"],
            run["seed"],
            run["moment"],
            (run["seen"][0] if run["seen"] else "")[:70],
            run["starts"],
            "passed" if run["passed"] else "FAILED",
        )
        for run in found["runs"]
    ]
    click.echo(
        "\n" + format_table(("fault", "seed", "struck at", "what was seen", "starts", "verdict"), rows)
    )
    for run in found["runs"]:
        for text in run["wrong"]:
            click.echo(f"wrong: {run['fault']}, seed {run['seed']}: {text}", err=True)
    failed = [run for run in found["runs"] if not run["passed"]]
    passed = len(found["runs"]) - len(failed)
    click.echo(f"\n{passed} of {len(found['runs'])} runs passed")
    for run in failed:
        click.echo(f"again: survey-ml selftest --faults {run['fault']} --seed {run['seed']} --runs 1 --keep")
