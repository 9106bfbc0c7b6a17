"""`survey-ml serve`."""

from __future__ import annotations

from typing import Any

import click

from survey_ml.cli.group import debug_option
from survey_ml.cli.output import json_option, json_output
from survey_ml.cli.schedule import deployment_options, make_registration, print_deployment


@click.command()
@deployment_options
@json_option
@debug_option
def serve(as_json: bool, **options: Any) -> None:
    """Create a deployment and run it from this process until interrupted; needs PREFECT_API_URL.

    For one machine without work pools. With --json the object is printed before the first run.
    """
    with json_output(as_json) as emit:
        from survey_ml.engine.operation import announce

        prepared, found = announce(make_registration(**options))
        emit(found)
    if not as_json:
        print_deployment(found)
        click.echo("serving; interrupt to end, which also pauses the schedule")
    from survey_ml.engine.operation import serve as serve_deployment

    serve_deployment(prepared, found["id"])
