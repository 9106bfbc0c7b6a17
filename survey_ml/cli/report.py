"""`survey-ml report`."""

from __future__ import annotations

import click

from survey_ml.cli.configuration import find_release, load, reopen
from survey_ml.cli.group import debug_option
from survey_ml.cli.output import json_option, json_output


@click.command()
@click.argument("release", metavar="RELEASE.yaml | OUT")
@click.option("--out", metavar="DIR", help="Output folder or URL, instead of the YAML's.")
@json_option
@debug_option
def report(release: str, out: str | None, as_json: bool) -> None:
    """Write report.html of a release again from what is in it."""
    with json_output(as_json) as emit:
        from survey_ml.data.inputs import find_sources
        from survey_ml.data.lease import hold_lease
        from survey_ml.data.store import ReleaseStore
        from survey_ml.plugins import get_manager
        from survey_ml.report.page import write_report

        config = reopen(find_release(release, out))
        if release.lower().endswith((".yaml", ".yml")):
            config = load([release], out)  # a reference or truth may have been added since the run
        _, aside = find_sources(config, get_manager().readers())
        with hold_lease(ReleaseStore.open(config.out).medium):
            page = write_report(config.out, config, aside)
        emit({"out": config.out, "report": page})
    if not as_json:
        click.echo(page)
