"""`survey-ml deploy`."""

from __future__ import annotations

from typing import Any

import click

from survey_ml.cli.group import debug_option
from survey_ml.cli.output import json_option, json_output
from survey_ml.cli.schedule import deployment_options, make_registration, print_deployment


@click.command()
@deployment_options
@click.option("--pool", required=True, metavar="NAME", help="Work pool whose workers do the runs.")
@click.option("--image", metavar="IMAGE", help="Container image, for a pool that starts containers.")
@click.option("--there", metavar="PATH", help="Path of the YAML where the runs are, if it is another.")
@json_option
@debug_option
def deploy(pool: str, image: str | None, there: str | None, as_json: bool, **options: Any) -> None:
    """Create a Prefect deployment of a release, or bring it up to date; needs PREFECT_API_URL.

    A run of it does what `survey-ml run RELEASE.yaml` does. One run of a deployment works at a time.
    """
    with json_output(as_json) as emit:
        from survey_ml.engine.operation import deploy as deploy_release

        registration = make_registration(there=there, **options)
        found = deploy_release(registration, pool, image=image)
        emit(found)
    if not as_json:
        print_deployment(found)
        click.echo(f"pool        {pool}\nrun it now: survey-ml trigger {found['deployment']}")
