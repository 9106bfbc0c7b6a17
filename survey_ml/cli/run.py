"""`survey-ml run`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from survey_ml.cli.configuration import configuration_options, load
from survey_ml.cli.group import debug_option
from survey_ml.cli.output import (
    format_count,
    format_seconds,
    format_table,
    json_option,
    json_output,
    print_set_aside,
)

if TYPE_CHECKING:
    from survey_ml.engine.run import RunResult


@click.command()
@configuration_options
@click.option("--only", metavar="STAGE", help="Run this stage and those that it needs.")
@click.option("--workers", type=click.IntRange(min=1), help="Workers a stage; the same as engine.workers.")
@click.option(
    "--metrics-file", metavar="PATH", help="Write metrics for Prometheus; the same as engine.metrics_file."
)
@click.option("--retry-quarantined", is_flag=True, help="Try units again that killed their worker.")
@click.option(
    "--strict", is_flag=True, help="Exit code 1 also when the stage shift finds a field red: see the report."
)
@click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors.")
@json_option
@debug_option
@click.pass_context
def run(
    ctx: click.Context,
    paths: tuple[str, ...],
    out: str | None,
    engine: str | None,
    settings: tuple[str, ...],
    only: str | None,
    workers: int | None,
    metrics_file: str | None,
    retry_quarantined: bool,
    strict: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Process a release: RELEASE.yaml, or images with --out DIR.

    What is done already is not done again, so the same command goes on after an interruption.

    Exit code 0: all well; 1: some fields or tiles were set aside, with reasons, or with --strict a field's
    sources are unlike those that the model was made for; 2: nothing could be begun, or no field came through.
    """
    more = [*settings, *([f"engine.workers={workers}"] if workers else [])]
    if metrics_file:
        # JSON is YAML, whatever characters the path has.
        more.append(f"engine.metrics_file={json.dumps(str(Path(metrics_file).expanduser().absolute()))}")
    config = load(paths, out, engine, more)
    with json_output(as_json) as emit:
        from survey_ml.data.verdicts import find_red
        from survey_ml.engine.progress import QuietProgress, choose_progress
        from survey_ml.engine.run import run_release

        progress = QuietProgress() if quiet or as_json else choose_progress()
        result = run_release(config, only=only, progress=progress, retry_quarantined=retry_quarantined)
        red = find_red(result.out) if strict and result.exit_code != 2 else {}
        result.exit_code = max(result.exit_code, 1 if red else 0)
        emit(describe(result) | ({"red": red} if strict else {}))
    print_set_aside(result.set_aside)
    for name, cause in red.items():
        click.echo(
            f"red: {name}: its sources are unlike those that the model was made for ({cause})", err=True
        )
    if not (quiet or as_json):
        print_result(result)
    ctx.exit(result.exit_code)


def describe(result: RunResult) -> dict[str, Any]:
    """Return what a run did as plain values."""
    return {
        "out": result.out,
        "done": result.done,
        "redone": result.redone,
        "skipped": result.skipped,
        "set_aside": result.set_aside,
        "seconds": result.seconds,
        "exit_code": result.exit_code,
        "stages": result.stages,
        "stopped": None if result.stopped is None else str(result.stopped),
        "cancelled": result.cancelled,
    }


def count_made(out: str) -> dict[str, str]:
    """Say for each stage what it made, such as ``812 sources, 930 components``."""
    from survey_ml.data.release import Release

    rows: dict[str, Counter[str]] = {}
    for unit, commit in Release.open(out).commits().items():
        count = rows.setdefault(unit.stage, Counter())
        count.update({name: number for name, number in commit.tables.items() if number})
        if unit.stage == "ingest":
            count["pixels with data"] += int(commit.summaries["ingest"]["n_finite"])
        elif not commit.tables:
            count.update({name.replace("_", " ") + "s": 1 for name in commit.summaries})
    return {
        stage: ", ".join(f"{n} {name if n != 1 else name.removesuffix('s')}" for name, n in count.items())
        for stage, count in rows.items()
    }


def tabulate_stages(result: RunResult, made: Mapping[str, str]) -> str:
    """Return a table with a line a stage: tiles, time, and what it made."""
    rows = [
        (row.name, row.tiles, row.done, format_seconds(row.seconds), made.get(row.name, ""))
        for row in result.stages
    ]
    return format_table(("stage", "tiles", "done now", "time", "result"), rows)


def print_result(result: RunResult) -> None:
    """Print a line a stage, what was made, and what to open."""
    click.echo(tabulate_stages(result, {} if result.exit_code == 2 else count_made(result.out)))
    again = f", {result.redone} of them again" if result.redone else ""
    were = "was" if result.skipped == 1 else "were"
    click.echo(
        f"\n{format_count(result.done, 'unit')} done{again}, {result.skipped} {were} done already, "
        f"{len(result.set_aside)} set aside; {format_seconds(result.seconds)}"
    )
    if result.cancelled:
        click.echo("cancelled; the same command goes on from here", err=True)
    elif result.exit_code != 2:
        click.echo(f"open {result.out}/report.html and {result.out}/catalogue/")
