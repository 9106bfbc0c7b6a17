"""A real server, pool, worker and deployment: schedules fire, runs start, cancel and go on."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time

import pytest
from browser import CHROMIUM, start_browser
from house import PASSWORD, count_commits, read_catalogue, read_guide, start_house, wait_until

pytestmark = pytest.mark.slow
POOL = "one-node"


@pytest.fixture(scope="module")
def house(environment, tmp_path_factory):
    with start_house(environment, tmp_path_factory.mktemp("house")) as found:
        yield found


def list_runs(house, deployment, **more):
    where = {"deployment_id": {"any_": [deployment]}, **more}
    return house.ask("/flow_runs/filter", {"flow_runs": where, "sort": "EXPECTED_START_TIME_ASC"})


@pytest.fixture(scope="module")
def scheduled(house, make_release):
    """Deploy and trigger as the guide says; return the release and the run that the schedule brought."""
    path = make_release("release")
    deploy, daily = read_guide("One node")[2:4]
    answer = subprocess.run(
        house.shell(deploy),
        cwd=path.parent,
        env=house.environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert answer.returncode == 0, f"{answer.stdout}\n{answer.stderr}\n{house.read_logs()}"
    found = house.ask("/deployments/name/process-release/release")
    assert found["schedules"][0]["schedule"]["interval"] == 60

    def fired():
        runs = list_runs(house, found["id"], state={"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}})
        return next((run for run in runs if run["auto_scheduled"]), None)

    run = wait_until(fired, 120, "a scheduled run ends")
    # The same command changes the schedule. None is due in what follows.
    subprocess.run(house.shell(daily), cwd=path.parent, env=house.environment, timeout=120, check=True)
    changed = house.ask(f"/deployments/{found['id']}")
    assert [entry["schedule"]["cron"] for entry in changed["schedules"]] == ["30 2 * * *"]
    again = house.call("deploy", path, "--pool", POOL)
    assert again["id"] == found["id"]
    assert house.ask(f"/deployments/{found['id']}")["schedules"] == []
    return path, found, run


def test_a_schedule_fires_and_makes_the_same_catalogue(house, scheduled, expected):
    path, _, run = scheduled
    assert run["state"]["type"] == "COMPLETED", house.read_logs()
    assert run["state"]["name"] == "Completed"
    assert run["state"]["message"].endswith("0 set aside")
    states = [state["type"] for state in house.ask(f"/flow_run_states/?flow_run_id={run['id']}")]
    assert states[0] == "SCHEDULED"
    assert states[-1] == "COMPLETED"
    assert "RUNNING" in states
    assert len(expected["ratios.parquet"]["ratio"]) > 5
    assert read_catalogue(path.parent / "release") == expected


def test_a_run_leaves_artifacts(house, scheduled):
    path, deployment, _ = scheduled
    # The first did the work; the others found it done.
    run = list_runs(house, deployment["id"], state={"type": {"any_": ["COMPLETED"]}})[0]
    where = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    artifacts = {entry["key"]: entry for entry in house.ask("/artifacts/filter", where)}
    rows = {row["stage"]: row for row in json.loads(artifacts["release-stages"]["data"])}
    assert list(rows) == ["ingest", "smooth", "total", "ratio", "census"]
    assert rows["smooth"]["units"] == rows["smooth"]["done"] == 9
    assert rows["smooth"]["set aside"] == 0
    report = path.parent / "release" / "report.html"
    assert artifacts["release-report"]["data"] == f"Report of release, on {platform.node()}:\n\n    {report}"
    assert artifacts["release-progress-smooth"]["type"] == "progress"
    assert artifacts["release-progress-smooth"]["data"] == 100


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH (Debian: apt-get install chromium)")
def test_the_pages_of_a_run_show_what_an_operator_needs(house, scheduled, tmp_path):
    path, deployment, _ = scheduled
    for_docs = os.environ.get("SURVEY_ML_PICTURES")
    run = list_runs(house, deployment["id"], state={"type": {"any_": ["COMPLETED"]}})[0]
    artifacts = house.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    identifiers = {entry["key"]: entry["id"] for entry in artifacts}
    tasks = house.ask("/task_runs/count", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    # The address that the commands print.
    url = house.call("trigger", "release", "--key", "night-1")["url"].rpartition("/runs/")[0]
    with start_browser(tmp_path / "profile") as page:
        page.open(f"{url}/runs/flow-run/{run['id']}")
        page.wait_for("Login")
        page.fill("input[type=password]", PASSWORD)
        page.wait_for(run["name"], "Completed", "process-release", f"{tasks} Task runs")
        page.wait_for("Deployment\nrelease", "Work Pool\none-node")
        page.wait_for("stage smooth: units to do: 9", "29 done, 0 done before, 0 set aside")
        page.click("Task Runs")
        page.wait_for(f"({tasks} Completed)", "ingest 0", "smooth 1", "total 0", "ratio 0", "census 0")
        page.click("Artifacts")
        page.wait_for("release-stages", "release-report", "Stage smooth, percent done")
        # No text tells when the timeline is drawn.
        time.sleep(5 if for_docs else 0)
        page.picture(tmp_path / "run.png")
        page.open(f"{url}/artifacts/artifact/{identifiers['release-stages']}")
        shown = page.wait_for("stage\tunits\tdone\tset aside\tseconds", "census", "29 units done")
        assert re.search(r"smooth\s+9\s+9\s+0\s+[\d.]+\s+total\s+1\s+1\s+0\s", shown)
        page.picture(tmp_path / "stages.png")
        page.open(f"{url}/artifacts/artifact/{identifiers['release-report']}")
        page.wait_for("Report of release", str(path.parent / "release" / "report.html"))
        page.picture(tmp_path / "report.png")
        page.open(f"{url}/artifacts/artifact/{identifiers['release-progress-smooth']}")
        page.wait_for("Stage smooth, percent done", "Progress: 100%")
    for name in ("run", "stages", "report"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    if for_docs:
        shutil.copy(tmp_path / "run.png", for_docs)


def test_a_key_makes_one_run_of_two_requests(house, scheduled):
    path, _, _ = scheduled
    first = house.call("trigger", path, "--key", "night-1")
    second = house.call("trigger", "process-release/release", "--key", "night-1", "--wait", "--timeout", "3m")
    assert second["run"] == first["run"]
    assert second["state"] == "Completed"
    assert second["message"].startswith("0 units done, ")
    assert house.call("trigger", "release", "--key", "night-1")["run"] == first["run"]


def test_cancel_in_mid_run_and_go_on(house, make_release, expected):
    path = make_release("slow", seconds=1.5)
    out = path.parent / "slow"
    house.call("deploy", path, "--pool", POOL)
    run = house.call("trigger", path)["run"]
    wait_until(lambda: count_commits(out) >= 2, 120, "two tiles are done")
    answer = house.call("cancel", run)
    assert [entry["run"] for entry in answer["runs"]] == [run]
    time.sleep(5)
    after = count_commits(out)
    ended = wait_until(lambda: find_final(house, run), 90, "the run has ended")
    assert ended["name"] == "Cancelled"
    assert count_commits(out) == after < 9
    of_run = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200}
    said = "\n".join(line["message"] for line in house.ask("/logs/filter", of_run))
    assert "the run is asked to end" in said
    assert "Traceback" not in said and "Finished in state Cancelled" not in said, said
    status = house.call("status", path)
    assert status["stages"]["smooth"]["done"] == after
    assert status["damaged"] == status["quarantined"] == []
    assert status["last_run"]["state"] == "cancelled"
    assert status["stages"]["smooth"]["todo"] == 9 - after
    assert "unfinished" in house.call("cancel", run, code=2)["error"]
    resumed = house.call("trigger", path, "--wait", "--timeout", "3m")
    assert resumed["state"] == "Completed"
    assert f"{9 + after} done already" in resumed["message"]
    assert read_catalogue(out) == expected
    assert house.call("status", path)["last_run"]["state"] == "completed"


def find_final(house, run):
    state = house.ask(f"/flow_runs/{run}")["state"]
    return state if state["type"] in ("CANCELLED", "CRASHED", "FAILED", "COMPLETED") else None


def test_what_cannot_be_run_fails_with_a_hint(house, scheduled):
    path, _, _ = scheduled
    text = path.read_text()
    path.write_text(text.replace("seconds:", "secconds:"))
    try:
        answer = house.call("trigger", "release", "--wait", "--timeout", "3m", code=2)
    finally:
        path.write_text(text)
    assert answer["state"] == "Failed"
    assert "secconds" in answer["message"]


def test_serve_runs_it_from_one_process(house, scheduled):
    path, _, _ = scheduled
    command = [sys.executable, "-m", "survey_ml.cli", "serve", str(path), "--name", "served", "--json"]
    with subprocess.Popen(
        [*command, "--interval", "1h", "--engine", "local"],
        env=house.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            found = json.loads(process.stdout.readline())
            assert found["deployment"] == "process-release/served"
            ran = house.call("trigger", "served", "--wait", "--timeout", "2m")
            assert ran["state"] == "Completed"
        finally:
            process.terminate()
            process.wait(timeout=60)
    deployment = house.ask(f"/deployments/{found['id']}")
    assert deployment["paused"] or not any(entry["active"] for entry in deployment["schedules"])


def test_names_that_are_not_there(house):
    answer = house.call("trigger", "no-such", code=2)
    assert "no deployment 'no-such'" in answer["error"]
    assert "survey-ml deploy" in answer["hint"]


def test_a_wrong_password_is_named(house):
    wrong = {**house.environment, "PREFECT_API_AUTH_STRING": "nobody:nothing"}
    from house import survey_ml

    answer = survey_ml(wrong, "trigger", "release")
    assert answer.returncode == 2
    assert "PREFECT_API_AUTH_STRING" in answer.stderr
