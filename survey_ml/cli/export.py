"""`survey-ml export`."""

from __future__ import annotations

import click

from survey_ml.cli.configuration import find_release, reopen
from survey_ml.cli.group import debug_option
from survey_ml.cli.output import json_option, json_output


@click.command()
@click.argument("release", metavar="RELEASE.yaml | OUT")
@click.argument("formats", nargs=-1, metavar="[FORMAT]...")
@click.option("--out", metavar="DIR", help="Output folder or URL, instead of the YAML's.")
@click.option("--columns", type=click.Choice(["survey_ml", "pybdsf"]), help="Column names of the tables.")
@click.option("--map", "maps", multiple=True, metavar="PRODUCT", help="Also write an array as FITS images.")
@json_option
@debug_option
def export(
    release: str,
    formats: tuple[str, ...],
    out: str | None,
    columns: str | None,
    maps: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write the catalogue folder of a release again, in other formats or with other column names.

    Without FORMAT it has those of the configuration; `survey-ml plugins` lists all. It replaces
    what the folder held; the next run writes what the YAML says.
    """
    with json_output(as_json) as emit:
        from survey_ml.data.lease import hold_lease
        from survey_ml.data.store import ReleaseStore
        from survey_ml.export.bundle import export_release

        config = reopen(find_release(release, out))
        wanted = {"formats": formats, "columns": columns, "maps": maps}
        chosen = config.release.export.model_copy(update={k: v for k, v in wanted.items() if v})
        updated = config.release.model_copy(update={"export": chosen})
        with hold_lease(ReleaseStore.open(config.out).medium):
            files = export_release(config.out, config.model_copy(update={"release": updated}))
        emit({"out": config.out, "files": files})
    if not as_json:
        for file in files:
            click.echo(file)
