"""`survey-ml cancel`."""

from __future__ import annotations

import click

from survey_ml.cli.group import debug_option
from survey_ml.cli.output import json_option, json_output
from survey_ml.cli.schedule import Duration
from survey_ml.cli.trigger import name_deployment, print_run


@click.command()
@click.argument("run", metavar="RUN | RELEASE.yaml | DEPLOYMENT")
@click.option("--wait", is_flag=True, help="Wait until the runs have ended.")
@click.option("--timeout", type=Duration(), metavar="TIME", help="With --wait: at most 90s, 15m, 6h.")
@json_option
@debug_option
def cancel(run: str, wait: bool, timeout: float | None, as_json: bool) -> None:
    """Cancel a run, or the runs of a release or deployment that are at work; needs PREFECT_API_URL.

    Nothing new is begun 5 s later; what is committed stays, and the next run goes on from there.
    """
    with json_output(as_json) as emit:
        from survey_ml.engine.api import PrefectAPI
        from survey_ml.engine.operation import cancel as cancel_runs
        from survey_ml.engine.operation import wait_for_run

        api = PrefectAPI.from_environment()
        runs = cancel_runs(api, name_deployment(run))
        if wait:
            runs = [wait_for_run(api, entry["run"], seconds=timeout) for entry in runs]
        emit({"runs": runs})
    if not as_json:
        for entry in runs:
            print_run(entry)
