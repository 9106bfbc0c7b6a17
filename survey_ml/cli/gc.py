"""`survey-ml gc`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from survey_ml.cli.configuration import configuration_options, load
from survey_ml.cli.group import debug_option
from survey_ml.cli.output import format_bytes, json_option, json_output

if TYPE_CHECKING:
    from survey_ml.data.residue import Item


@click.command()
@configuration_options
@click.option("--yes", is_flag=True, help="Remove what is listed.")
@click.option("--dry-run", is_flag=True, help="List only; this is what happens without --yes.")
@json_option
@debug_option
def gc(
    paths: tuple[str, ...],
    out: str | None,
    engine: str | None,
    settings: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """List what a release holds that its configuration no longer reaches; remove it with --yes.

    Outputs of other options, code or inputs than a run would use now; units and arrays of fields and
    stages that are no longer named; quarantine records of units that are no longer there.
    Catalogue and report stay as they are until the next run.
    """
    config = load(paths, out, engine, settings)
    remove = yes and not dry_run
    with json_output(as_json) as emit:
        from survey_ml.engine.garbage import collect_garbage, find_garbage

        if remove:
            found = collect_garbage(config, (lambda items: None) if as_json else print_items)
        else:
            found = find_garbage(config)
        emit({"items": found, "bytes": sum(item.size for item in found), "removed": remove})
    if as_json:
        return
    if not remove:
        print_items(found)
    if found:
        click.echo("removed" if remove else "nothing was removed; --yes removes it")


def print_items(items: Sequence[Item]) -> None:
    """List items with their sizes, and the sum by reason."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for item in items:
        click.echo(f"{format_bytes(item.size):>8}  {item.path}: {item.what}")
        counts[item.what] += 1
        sizes[item.what] += item.size
    if not items:
        click.echo("nothing to remove")
    elif len(items) > 1:
        click.echo()
        for what, count in counts.items():
            click.echo(f"{format_bytes(sizes[what]):>8}  {count} x {what}")
