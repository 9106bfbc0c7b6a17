"""Every file in deploy/ is what the tool that reads it wants: by that tool where it runs here."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCRIPTS = sorted(path for path in DEPLOY.rglob("*") if path.suffix in (".sh", ".sbatch"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


@pytest.fixture(scope="module")
def deployments():
    """Return the deployments of prefect.yaml as Prefect's own loader reads them."""
    config = pytest.importorskip("prefect.cli.deploy._config")
    said: list[str] = []

    class Console:
        def print(self, text: str, **_: object) -> None:
            said.append(text)

    found, actions = config._load_deploy_configs_and_actions(DEPLOY / "prefect.yaml", console=Console())
    assert said == []
    assert actions["pull"] == []
    return {entry["name"]: entry for entry in found}


def test_prefect_reads_every_deployment(deployments):
    given = yaml.safe_load((DEPLOY / "prefect.yaml").read_text())["deployments"]
    assert list(deployments) == [entry["name"] for entry in given]
    pools = {entry["work_pool"]["name"] for entry in deployments.values()}
    assert pools == {"one-node", "slurm", "kubernetes"}
    for entry in deployments.values():
        assert entry["concurrency_limit"]["limit"] == 1
        assert entry["concurrency_limit"]["collision_strategy"] == "ENQUEUE"
        assert entry["work_pool"]["job_variables"]["env"]["DO_NOT_TRACK"] == "1"


def test_schedules_fire(deployments):
    from prefect.client.schemas.schedules import CronSchedule

    for entry in deployments.values():
        (schedule,) = entry["schedules"]
        fields = schedule.get("schedule", schedule)
        assert CronSchedule(cron=fields["cron"], timezone=fields["timezone"]).cron


def test_parameters_are_those_of_the_flow(deployments):
    for entry in deployments.values():
        module, _, name = entry["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert flow.name == "process-release"
        flow.validate_parameters(entry["parameters"])
    assert deployments["nightly-ingest"]["parameters"]["only"] == "ingest"


def test_prefect_is_the_version_that_is_installed():
    from importlib.metadata import version

    assert yaml.safe_load((DEPLOY / "prefect.yaml").read_text())["prefect-version"] == version("prefect")


def test_the_slurm_pool_submits(deployments):
    command = deployments["slurm"]["work_pool"]["job_variables"]["command"]
    script = command.removeprefix("bash ").replace("{{ $SURVEY_ML_DEPLOY }}", str(DEPLOY))
    assert Path(script) in SCRIPTS


def test_ray_takes_the_cluster_file():
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = util.prepare_config(yaml.safe_load((DEPLOY / "ray" / "cluster.yaml").read_text()))
    util.validate_config(config)
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    starts = [command for command in commands if " start " in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_have_what_their_kind_needs(path):
    for document in yaml.safe_load_all(path.read_text()):
        assert {"apiVersion", "kind", "metadata"} <= set(document)
        meta = document["metadata"]
        assert re.fullmatch(r"[a-z0-9-]+", meta.get("name") or meta["generateName"])
        assert meta["namespace"] == "survey-ml"
        spec = document.get("spec", {})
        if document["kind"] in ("RayCluster", "RayJob"):
            cluster = spec.get("rayClusterSpec", spec)
            check_ray_cluster(cluster)
        if document["kind"] == "RayJob":
            assert spec["entrypoint"].startswith("survey-ml run ")
            assert spec["shutdownAfterJobFinishes"] is True
            assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_ADDRESS"] == "auto"


def check_ray_cluster(cluster):
    from importlib.metadata import version

    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == version("ray")
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert groups[0]["serviceType"] == "ClusterIP"
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert set(container["resources"]["requests"]) == set(container["resources"]["limits"])
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    for group in groups[1:]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_image_copies_what_is_there():
    text = (DEPLOY / "Containerfile").read_text()
    joined = text.replace("\\\n", " ")
    steps = [line.split(None, 1) for line in joined.splitlines() if line and not line.startswith("#")]
    assert {step[0] for step in steps} <= {
        "ARG",
        "FROM",
        "RUN",
        "WORKDIR",
        "COPY",
        "ENV",
        "USER",
        "ENTRYPOINT",
        "CMD",
    }
    assert [step[0] for step in steps[:2]] == ["ARG", "FROM"]
    for name, rest in steps:
        if name == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)
    assert "USER survey" in text
    assert "RAY_AUTH_MODE=token" in text


def test_compose_keeps_to_loopback_and_asks_for_a_password():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(compose["services"]) == {"database", "server", "worker"}
    server = compose["services"]["server"]
    assert server["ports"] == ["127.0.0.1:4200:4200"]
    assert "ports" not in compose["services"]["database"]
    environment = server["environment"]
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"
    wanted = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    offered = {
        line.split("=")[0] for line in (DEPLOY / "env.example").read_text().splitlines() if "=" in line
    }
    assert wanted == offered
    assert "PREFECT_SERVER_API_AUTH_STRING" in environment


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_shell(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert os.access(path, os.X_OK)
    text = path.read_text()
    assert "set -euo pipefail" in text
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "--shell=bash", str(path)], check=True)


def test_every_file_is_named_in_the_guide():
    guide = (DEPLOY / "README.md").read_text()
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file() and path.name not in ("README.md", ".env"):
            assert path.relative_to(DEPLOY).as_posix() in guide, path


def test_commands_in_the_guide_exist():
    from survey_ml.cli.spec import COMMANDS

    guide = (DEPLOY / "README.md").read_text()
    known = {name for name, _, _ in COMMANDS}
    named = set(re.findall(r"survey-ml ([a-z]+) ", guide))
    assert named <= known, named - known
    assert {"deploy", "serve", "trigger", "cancel"} <= named
