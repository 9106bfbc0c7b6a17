"""`survey-ml trigger`."""

from __future__ import annotations

from typing import Any

import click

from survey_ml.cli.configuration import YAML_SUFFIXES, load
from survey_ml.cli.group import debug_option
from survey_ml.cli.output import json_option, json_output
from survey_ml.cli.schedule import Duration

_CODES = {("COMPLETED", "Completed"): 0, ("COMPLETED", "SetAside"): 1, ("CANCELLED", "Cancelled"): 1}


@click.command()
@click.argument("deployment", metavar="RELEASE.yaml | DEPLOYMENT")
@click.option("--key", metavar="KEY", help="Asked for again with the same key, it is the same run.")
@click.option("--wait", is_flag=True, help="Wait until the run has ended.")
@click.option("--timeout", type=Duration(), metavar="TIME", help="With --wait: at most 90s, 15m, 6h.")
@json_option
@debug_option
@click.pass_context
def trigger(
    ctx: click.Context, deployment: str, key: str | None, wait: bool, timeout: float | None, as_json: bool
) -> None:
    """Ask Prefect for a run of a deployment now; needs PREFECT_API_URL.

    With --wait the exit code is that of the run: 0: all well; 1: something was set aside, or it was
    cancelled; 2: it failed.
    """
    with json_output(as_json) as emit:
        from survey_ml.engine.api import PrefectAPI
        from survey_ml.engine.operation import trigger as trigger_run
        from survey_ml.engine.operation import wait_for_run

        api = PrefectAPI.from_environment()
        run = trigger_run(api, name_deployment(deployment), key=key)
        if wait:
            run = wait_for_run(api, run["run"], seconds=timeout)
        emit(run)
    if not as_json:
        print_run(run)
    ctx.exit(_CODES.get((run["type"], run["state"]), 2) if wait else 0)


def name_deployment(text: str) -> str:
    """Return the name of a deployment that is named by itself or by the YAML of its release."""
    return load([text], None).release.name if text.lower().endswith(YAML_SUFFIXES) else text


def print_run(run: dict[str, Any]) -> None:
    """Print what a run is called, how it stands and where its page is."""
    said = f": {run['message']}" if run["message"] else ""
    click.echo(f"run    {run['run']} ({run['name']})\nstate  {run['state']}{said}\npage   {run['url']}")
