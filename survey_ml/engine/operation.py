"""Deployments and their runs: register, serve, start, wait for, cancel."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from survey_ml.engine.api import NotFoundError, PrefectAPI
from survey_ml.engine.cluster import EngineError, require_engine
from survey_ml.engine.server import SETTINGS, prefect_environment
from survey_ml.errors import ConfigError

FLOW = "process-release"
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_QUIET = {"DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0", "PREFECT_LOGGING_LEVEL": "WARNING"}
_CLIENT = ("PREFECT_CLIENT_MAX_RETRIES", "PREFECT_CLIENT_RETRY_EXTRA_CODES")


@dataclass(frozen=True)
class Schedule:
    """When a deployment runs by itself: at most one of the two.

    Attributes
    ----------
    cron : str or None
        Five fields, as of cron.
    interval : float or None
        Seconds between runs.
    timezone : str or None
        Of the cron fields; UTC unless given.
    """

    cron: str | None = None
    interval: float | None = None
    timezone: str | None = None

    def options(self) -> dict[str, Any]:
        """Return what Prefect wants to hear.

        Raises
        ------
        ConfigError
            When both are given, or the cron fields mean nothing.
        """
        from prefect.schedules import Cron, Interval

        if self.cron and self.interval:
            raise ConfigError("--cron and --interval exclude each other", "give one of them")
        if self.interval:
            from datetime import timedelta

            return {"schedules": [Interval(timedelta(seconds=self.interval))]}
        if self.cron:
            try:
                ZoneInfo(self.timezone or "UTC")
                return {"schedules": [Cron(self.cron, timezone=self.timezone)]}
            except (ValueError, KeyError) as error:
                where = self.timezone or "UTC"
                raise ConfigError(
                    f"--cron {self.cron!r} with timezone {where} is no schedule: {error}".splitlines()[0],
                    "minute hour day month weekday, such as '30 2 * * *' for every night at 02:30",
                ) from None
        return {}


@dataclass(frozen=True)
class Registration:
    """A deployment to be created, or brought up to date.

    Attributes
    ----------
    name : str
        Of the deployment; it is ``process-release/NAME`` in Prefect.
    parameters : mapping
        Of `survey_ml.engine.deployment.process_release`.
    """

    name: str
    parameters: Mapping[str, Any]
    schedule: Schedule = field(default_factory=Schedule)

    def prepare(self, **more: Any) -> Any:
        """Return it as an object of Prefect; within `prefect_environment`."""
        from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
        from prefect.types.entrypoint import EntrypointType

        from survey_ml.engine.deployment import process_release

        options = self.schedule.options()
        return process_release.to_deployment(
            self.name,
            parameters=dict(self.parameters),
            # One run works on a release at a time; the next one waits its turn.
            concurrency_limit=ConcurrencyLimitConfig(
                limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
            ),
            # By module: nothing is pulled, survey_ml is installed where the run is.
            entrypoint_type=EntrypointType.MODULE_PATH,
            tags=["survey-ml"],
            **options,
            **more,
        )


def deploy(registration: Registration, pool: str, *, image: str | None = None) -> dict[str, Any]:
    """Create a deployment for a work pool, or bring it up to date.

    Parameters
    ----------
    registration : Registration
        What to run and when.
    pool : str
        Work pool whose workers run it.
    image : str, optional
        Container image, for pools that start containers.

    Returns
    -------
    dict
        Name, identifier, pool and address of its page.

    Raises
    ------
    EngineError
        When there is no API, no such pool, or Prefect refuses.
    """
    require_engine()
    api = PrefectAPI.from_environment()
    try:
        kind = str(api.get(f"/work_pools/{pool}")["type"])
    except NotFoundError:
        raise EngineError(
            f"there is no work pool {pool!r} at {api.url}",
            f"prefect work-pool create {pool} --type process",
        ) from None
    variables: dict[str, Any] = {
        "env": {**_QUIET, **{name: SETTINGS[name] for name in _CLIENT}},
    }
    if image:
        variables["image"] = image
    elif kind not in ("process", "prefect-agent"):
        raise ConfigError(
            f"pool {pool!r} is of type {kind}, which starts containers", "name one with --image"
        )
    with prefect_environment(api.url):
        identifier = _apply(registration.prepare(work_pool_name=pool, job_variables=variables))
    return _describe(api, registration, identifier) | {"pool": pool}


def announce(registration: Registration) -> tuple[Any, dict[str, Any]]:
    """Create a deployment that this process is going to serve; see `serve`."""
    require_engine()
    api = PrefectAPI.from_environment()
    with prefect_environment(api.url):
        prepared = registration.prepare()
        return prepared, _describe(api, registration, _apply(prepared))


def serve(prepared: Any, identifier: str) -> None:
    """Run a deployment in processes of this one, one run at a time, until interrupted.

    Its schedule is paused when this ends.

    Parameters
    ----------
    prepared, identifier
        The deployment, and what the server calls it: see `announce`.
    """
    # These stay set: the processes of the runs inherit them.
    os.environ.update({k: v for k, v in {**SETTINGS, **_QUIET}.items() if k not in os.environ})
    from prefect import serve as serve_deployments

    try:
        serve_deployments(prepared, print_starting_message=False, limit=1)
    finally:
        # Prefect pauses it too, but not when the signal arrives while its loop is busy elsewhere.
        _pause(identifier)


def _pause(identifier: str) -> None:
    try:
        PrefectAPI.from_environment().patch(f"/deployments/{identifier}", {"paused": True})
    except EngineError as error:
        raise EngineError(
            f"the schedule is not paused: {error.message}",
            "its runs will be late; pause it in the pages of Prefect, or serve it again",
        ) from error


def _apply(prepared: Any) -> str:
    try:
        return str(prepared.apply())
    except Exception as error:
        raise EngineError(
            f"Prefect does not take the deployment: {type(error).__name__}: {error}",
            "see the log of the server; `survey-ml check` checks the release itself",
        ) from error


def _describe(api: PrefectAPI, registration: Registration, identifier: str) -> dict[str, Any]:
    schedule = registration.schedule
    return {
        "deployment": f"{FLOW}/{registration.name}",
        "id": identifier,
        "url": api.page(f"deployments/deployment/{identifier}"),
        "cron": schedule.cron,
        "interval": schedule.interval,
        "parameters": dict(registration.parameters),
    }


def find_deployment(api: PrefectAPI, name: str) -> dict[str, Any]:
    """Return a deployment by identifier, by ``FLOW/NAME`` or by its name alone.

    Raises
    ------
    EngineError
        When there is none.
    """
    try:
        if _is_id(name):
            return api.get(f"/deployments/{name}")
        full = name if "/" in name else f"{FLOW}/{name}"
        return api.get(f"/deployments/name/{full}")
    except NotFoundError:
        raise EngineError(
            f"there is no deployment {name!r} at {api.url}",
            "create it: survey-ml deploy RELEASE.yaml --pool NAME",
        ) from None


def trigger(
    api: PrefectAPI, deployment: str, *, key: str | None = None, parameters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Ask for a run of a deployment now.

    Parameters
    ----------
    key : str, optional
        A second request with the same key is answered with the run of the first.
    parameters : mapping, optional
        In addition to those of the deployment.

    Returns
    -------
    dict
        See `describe_run`.
    """
    found = find_deployment(api, deployment)
    # Always with a key: a request that has to be made again must not start two runs.
    body = {
        "state": {"type": "SCHEDULED"},
        "parameters": dict(parameters or {}),
        "idempotency_key": key or uuid.uuid4().hex,
    }
    run = api.post(f"/deployments/{found['id']}/create_flow_run", body)
    return describe_run(api, run)


def describe_run(api: PrefectAPI, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return identifier, name, state and page of a flow run."""
    state = run.get("state") or {}
    return {
        "run": run["id"],
        "name": run["name"],
        "state": state.get("name"),
        "type": state.get("type"),
        "message": state.get("message"),
        "url": api.page(f"runs/flow-run/{run['id']}"),
    }


def wait_for_run(
    api: PrefectAPI, run: str, *, seconds: float | None = None, poll: float = 2.0
) -> dict[str, Any]:
    """Return a run once it has ended.

    Raises
    ------
    EngineError
        When it has not ended after ``seconds``, or the API is away for a minute.
    """
    start = heard = time.monotonic()
    while True:
        try:
            found = describe_run(api, api.get(f"/flow_runs/{run}"))
            heard = time.monotonic()
            if found["type"] in FINAL:
                return found
        except NotFoundError:
            raise
        except EngineError:
            if time.monotonic() - heard > 60:
                raise
        if seconds is not None and time.monotonic() - start > seconds:
            raise EngineError(
                f"run {run} has not ended after {seconds:g} s",
                f"it goes on; see {api.page(f'runs/flow-run/{run}')}",
            )
        time.sleep(poll)


def cancel(api: PrefectAPI, run: str) -> list[dict[str, Any]]:
    """Cancel a run by its identifier, or all unfinished runs of a name or a deployment.

    Returns
    -------
    list of dict
        See `describe_run`; the state is Cancelling, or Cancelled where nothing had begun.

    Raises
    ------
    EngineError
        When no unfinished run is meant.
    """
    found = _find_runs(api, run)
    open_runs = [entry for entry in found if (entry.get("state") or {}).get("type") not in FINAL]
    if not open_runs:
        ended = f": it is {found[0]['state']['name']}" if found else ""
        raise EngineError(f"there is no unfinished run {run!r}{ended}", "its page in Prefect lists the runs")
    done = []
    for entry in open_runs:
        state = {"type": "CANCELLING", "name": "Cancelling", "message": "cancelled with survey-ml"}
        api.post(f"/flow_runs/{entry['id']}/set_state", {"state": state, "force": False})
        done.append(describe_run(api, api.get(f"/flow_runs/{entry['id']}")))
    return done


def _find_runs(api: PrefectAPI, run: str) -> Sequence[dict[str, Any]]:
    if _is_id(run):
        try:
            return [api.get(f"/flow_runs/{run}")]
        except NotFoundError:
            raise EngineError(
                f"there is no run {run} at {api.url}", "survey-ml trigger prints its identifier"
            ) from None
    # What is scheduled for later stays; what waits to start now, or works, is meant.
    unfinished = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    limits = {"limit": 50, "sort": "START_TIME_DESC"}
    by_name = {"flow_runs": {**unfinished, "name": {"any_": [run]}}, **limits}
    found = list(api.post("/flow_runs/filter", by_name))
    try:
        deployment = find_deployment(api, run)["id"]
    except EngineError:
        return found
    by_deployment = {"flow_runs": {**unfinished, "deployment_id": {"any_": [deployment]}}, **limits}
    known = {entry["id"] for entry in found}
    return found + [r for r in api.post("/flow_runs/filter", by_deployment) if r["id"] not in known]


def _is_id(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
