"""`survey-ml reproduce`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from survey_ml.cli.group import debug_option
from survey_ml.cli.output import format_table, json_option, json_output

if TYPE_CHECKING:
    from survey_ml.papers.result import Row

PAPERS = {
    "bowles2020": "survey_ml.papers.bowles2020_attention",
    "bowles2021": "survey_ml.papers.bowles2021_equivariance",
    "mohan2022": "survey_ml.papers.mohan2022_uncertainty",
    "slijepcevic2022": "survey_ml.papers.slijepcevic2022_shift",
}
"""Paper to the module that runs its headline experiment."""


@click.command()
@click.argument("paper", type=click.Choice(sorted(PAPERS)))
@click.option("--quick", is_flag=True, help="Minutes instead of hours: shows that it runs, and no more.")
@click.option("--out", metavar="DIR", help="Folder of trainings and picture: reproduce-PAPER unless given.")
@json_option
@debug_option
def reproduce(paper: str, quick: bool, out: str | None, as_json: bool) -> None:
    """Run the headline experiment of a paper and print its figures beside ours.

    Trainings are kept: the same command goes on where it was interrupted. The data are looked for in
    the folder that SURVEY_ML_DATA names.
    """
    with json_output(as_json) as emit:
        folder = Path(out or f"reproduce-{paper}") / ("quick" if quick else "full")
        say = (lambda text: None) if as_json else (lambda text: click.echo(text, err=True))
        found = import_module(PAPERS[paper]).reproduce(folder, quick=quick, report=say)
        emit(found.describe())
    if as_json:
        return
    lines = [
        (row.quantity, _show(row.ours), _show_interval(row), row.n, row.seeds, row.paper)
        for row in found.rows
    ]
    click.echo(format_table(("quantity", "ours", "95 %", "n", "seeds", "paper"), lines))
    click.echo(f"\npicture: {found.picture}")
    if quick:
        click.echo("this was a quick run: it shows that the experiment runs, and its figures mean no more")


def _show_interval(row: Row) -> str:
    return "" if row.low is None else f"[{_show(row.low)}, {_show(row.high)}]"


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
