"""The flow that Prefect deploys: ``survey_ml.engine.deployment.process_release``.

Prefect imports this file in the process of a flow run; nothing else imports it before it is needed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Literal

from prefect import State, flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.context import FlowRunContext
from prefect.exceptions import Abort
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from survey_ml.data.verdicts import find_red
from survey_ml.engine.flow import AT_ONCE
from survey_ml.engine.link import RunLink
from survey_ml.engine.progress import QuietProgress
from survey_ml.engine.run import RunResult, run_release
from survey_ml.engine.stop import ending_on_signal
from survey_ml.errors import SurveyMLError
from survey_ml.loader import load_config

logger = logging.getLogger(__name__)

SET_ASIDE = "SetAside"
"""Name of the completed state of a run that left something out: exit code 1 of ``survey-ml run``."""


@flow(
    name="process-release",
    task_runner=ThreadPoolTaskRunner(max_workers=AT_ONCE),
    retries=0,
    persist_result=False,
    log_prints=False,
)
def process_release(
    config: str,
    only: str | None = None,
    out: str | None = None,
    engine: Literal["ray", "local"] | None = None,
    settings: list[str] | None = None,
    retry_quarantined: bool = False,
    strict: bool = False,
) -> Any:
    """Bring a release up to date, as ``survey-ml run`` does, and show it in this flow run.

    Parameters
    ----------
    config : str
        Path of the release YAML where the run is.
    only : str, optional
        Do only this stage and those that it needs; ``ingest`` takes new fields in.
    out : str, optional
        Output folder or URL, instead of the YAML's.
    engine : str, optional
        ``ray`` or ``local``, instead of the YAML's.
    settings : list of str, optional
        ``stage.key=value`` or ``section.key=value``, which win over the YAML.
    retry_quarantined : bool
        Try units again that killed their worker.
    strict : bool
        Fail when anything was set aside, instead of completing with state `SET_ASIDE`, and when the stage
        shift finds a field red.

    Returns
    -------
    prefect.states.State
        Completed (exit code 0), Completed with name ``SetAside`` (1), Cancelled, or Failed (2, or
        the run ended early).
    """
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    url = str(getattr(context.client, "api_url", "")).rstrip("/") or os.environ.get("PREFECT_API_URL", "")
    # The engine reports to the API that started this run, even one that only a profile names.
    os.environ["PREFECT_API_URL"] = url
    link = RunLink(joined=True)
    try:
        loaded = load_config(config, settings=settings or (), out=out, engine=engine)
        with ending_on_signal(link.stop), link.working(url, str(context.flow_run.id), loaded.release.name):
            result = run_release(
                loaded,
                only=only,
                progress=QuietProgress(),
                retry_quarantined=retry_quarantined,
                link=link,
            )
            link.listen()
        red = find_red(result.out) if strict and result.exit_code != 2 else {}
    except SurveyMLError as error:
        return Failed(message=str(error))
    state = judge_run(result, strict, red, cancelled=link.cancelled)
    if state.is_cancelled():
        _leave_cancelled(context, state)
    return state


def _leave_cancelled(context: FlowRunContext, state: State) -> None:
    """Tell the API that this run is cancelled, and end its process in peace.

    From a state that is returned Prefect would make an exception, and show its traceback to the operator.
    Where Prefect did not start this process, or the API does not take the state, this returns.
    """
    run, client = context.flow_run, context.client
    if run is None or not isinstance(client, SyncPrefectClient) or not os.environ.get("PREFECT__FLOW_RUN_ID"):
        return
    try:
        taken = client.set_flow_run_state(run.id, state, force=True).state
    except Exception as error:
        logger.warning("the Prefect API did not take the state %s (%s)", state.name, type(error).__name__)
        return
    leave = Abort(state.message)
    leave.state = taken  # what Prefect's engine looks for
    raise leave


def judge_run(result: RunResult, strict: bool, red: Mapping[str, str], *, cancelled: bool) -> State:
    """Return the state that says what the exit code says; ``red`` are fields, and why."""
    account = f"{result.done} units done, {result.skipped} done already, {len(result.set_aside)} set aside"
    if result.cancelled and cancelled:
        return Cancelled(message=f"{account}; a later run goes on from here")
    if result.stopped is not None or result.exit_code == 2:
        return Failed(message=f"{account}; {result.stopped or 'nothing could be done'}")
    if red:
        fields = ", ".join(f"{name} ({cause})" for name, cause in red.items())
        return Failed(message=f"{account}; sources unlike those that the model was made for: {fields}")
    if result.exit_code == 0:
        return Completed(message=account)
    first = result.set_aside[0]
    message = f"{account}; the first: {first.field} {first.tile} {first.stage}: {first.cause}"
    return Failed(message=message) if strict else Completed(name=SET_ASIDE, message=message)
