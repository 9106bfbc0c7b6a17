"""`survey-ml plan`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from survey_ml.cli.configuration import (
    configuration_options,
    find_release,
    load,
    may_be_release,
    reopen,
)
from survey_ml.cli.group import debug_option
from survey_ml.cli.output import format_count, format_table, json_option, json_output, print_set_aside

if TYPE_CHECKING:
    from survey_ml.engine.plan import Plan


@click.command()
@configuration_options
@click.option("--only", metavar="STAGE", help="This stage and those that it needs.")
@click.option("--tiles", is_flag=True, help="One line a tile instead of one a reason.")
@json_option
@debug_option
def plan(
    paths: tuple[str, ...],
    out: str | None,
    engine: str | None,
    settings: tuple[str, ...],
    only: str | None,
    tiles: bool,
    as_json: bool,
) -> None:
    """Show what a run would do, tile by stage, and why; nothing is done or written.

    The folder or URL of a release means its configuration as last run.

    done; todo (never done, or damaged); stale (code, option or input changed); quarantined (killed
    its worker again and again); aside (cannot be processed); waiting (needs one of these).
    """
    if out is None and len(paths) == 1 and may_be_release(paths[0]):
        config = reopen(find_release(paths[0]), settings, engine)
    else:
        config = load(paths, out, engine, settings)
    with json_output(as_json) as emit:
        from survey_ml.engine.run import plan_release

        found = plan_release(config, only=only)
        whole = _is_catalogue_whole(config.out)
        emit(_describe(found) | {"catalogue": whole})
    if not as_json:
        _print(found, tiles, whole)


def _is_catalogue_whole(out: str) -> bool:
    """Tell whether all files of the catalogue are there, and the report."""
    from survey_ml.data.store import ReleaseStore
    from survey_ml.export.checksums import is_whole, read_marker
    from survey_ml.report.page import NAME as REPORT

    store = ReleaseStore.open(out)
    marker = read_marker(store)
    return marker is not None and is_whole(store, marker) and all(store.medium.measure([REPORT]).values())


def _describe(found: Plan) -> dict[str, Any]:
    return {
        "counts": found.counts,
        "stages": {
            stage: dict(Counter(unit.state for unit in units)) for stage, units in found.by_stage().items()
        },
        "units": [
            {
                "field": unit.unit.field,
                "stage": unit.unit.stage,
                "tile": unit.unit.tile,
                "state": unit.state,
                "reason": unit.reason,
                "key": unit.key,
            }
            for unit in found
        ],
        "set_aside": list(found.set_aside),
    }


def _print(found: Plan, tiles: bool, whole: bool) -> None:
    states = [state for state, count in found.counts.items() if count]
    rows = []
    for stage, units in found.by_stage().items():
        count: Counter[str] = Counter(unit.state for unit in units)
        rows.append((stage, len(units), *(count[state] for state in states)))
    click.echo(format_table(("stage", "tiles", *states), rows))
    click.echo()
    if tiles:
        for unit in found:
            reason = f": {unit.reason}" if unit.reason else ""
            click.echo(f"{unit.state:<12}{unit.unit.field} {unit.unit.stage} {unit.unit.tile}{reason}")
    else:
        reasons = Counter((unit.unit.stage, unit.state, unit.reason) for unit in found if unit.reason)
        for (stage, state, reason), number in reasons.items():
            click.echo(f"{stage}: {number} {state}: {reason}")
    counts = found.counts
    todo = counts["todo"] + counts["stale"]
    total = format_count(len(found), "unit of work")
    click.echo(f"{todo} of {total} would be done" if todo else "nothing would be done")
    if counts["done"] and not todo and not whole:
        click.echo("catalogue or report are not whole, and would be put together again")
    print_set_aside(found.set_aside)
