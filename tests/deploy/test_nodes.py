"""A run on a Ray of several nodes, one of which is killed in mid-run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from house import count_commits, read_catalogue, survey_ml, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def nodes(environment, tmp_path):
    """Start three nodes that know each other by a token; return their environment and their process."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    mine = {**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    command = [sys.executable, str(Path(__file__).with_name("nodes.py"))]
    with subprocess.Popen(
        command, env=mine, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("127.0.0.1:")
        try:
            yield {**mine, "RAY_ADDRESS": address}, process
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def test_a_node_dies_and_the_catalogue_is_right(nodes, make_release, expected):
    environment, process = nodes
    path = make_release("spread", seconds=1.0)
    out = path.parent / "spread"
    command = [sys.executable, "-m", "survey_ml.cli", "run", str(path), "--json", "--set", "engine.workers=3"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            wait_until(lambda: count_commits(out) >= 2 or run.poll() is not None, 150, "two tiles are done")
            assert run.poll() is None, run.communicate()
            assert count_commits(out) < 9
            process.stdin.write("kill\n")
            process.stdin.flush()
            assert process.stdout.readline() == "gone\n"
            said, errors = run.communicate(timeout=180)
        finally:
            run.kill()
    assert run.returncode == 0, errors
    assert json.loads(said)["set_aside"] == []
    assert read_catalogue(out) == expected


def test_without_the_token_nobody_gets_in(nodes, make_release, tmp_path):
    environment, _ = nodes
    wrong = tmp_path / "wrong"
    wrong.write_text("f" * 64)
    path = make_release("stranger")
    stranger = {**environment, "RAY_AUTH_TOKEN_PATH": str(wrong)}
    answer = survey_ml(stranger, "run", path, "--json", seconds=200)
    assert answer.returncode == 2
    assert "does not start" in json.loads(answer.stdout)["error"]
    assert not list(path.parent.glob("stranger/units/*"))
