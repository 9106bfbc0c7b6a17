"""A Prefect server, a work pool and a worker as processes on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from releases import write_fields

GUIDE = Path(__file__).parents[2] / "deploy" / "README.md"

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without it Ray takes loopback for the first network interface, which it leaves alone otherwise.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    # A run that is due waits for the worker to look, ten seconds otherwise.
    "PREFECT_WORKER_QUERY_SECONDS": "2",
}
PASSWORD = "admin:change-me"
"""The one of the guide."""


def write_release(folder: Path) -> Path:
    return write_fields(folder, names=("north",))


def survey_ml(
    environment: Mapping[str, str], *args: object, seconds: float = 240
) -> subprocess.CompletedProcess[str]:
    """Call the command line in a process of its own."""
    command = [sys.executable, "-m", "survey_ml.cli", *map(str, args)]
    return subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, timeout=seconds, check=False
    )


def read_catalogue(out: Path) -> dict[str, dict[str, list[Any]]]:
    """Return every table of the catalogue by column, without the header that names the release."""
    from pyarrow.parquet import read_table

    return {path.name: read_table(path).to_pydict() for path in sorted((out / "catalogue").glob("*.parquet"))}


def count_commits(out: Path, stage: str = "smooth") -> int:
    return len(list(out.glob(f"units/*/{stage}/*/[!.]*/_COMMIT.json")))


def read_guide(heading: str) -> list[str]:
    """Return the blocks of commands below a heading of the guide, word for word."""
    section = GUIDE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks: list[list[str]] = [[]]
    for line in section.splitlines():
        if line.startswith("    "):
            blocks[-1].append(line[4:])
        elif blocks[-1]:
            blocks.append([])
    return ["\n".join(block) for block in blocks if block]


def wait_until(found: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return what is found as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:g} s: {what}")


class House:
    """What `start_house` started, and how to talk to it."""

    def __init__(self, environment: dict[str, str], url: str, folder: Path, port: int) -> None:
        self.environment, self.url, self.folder, self.port = environment, url, folder, port
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("wb")
        with log:
            process = subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def shell(self, block: str) -> list[str]:
        """Return the command that runs a block of the guide in a shell that ends at the first failure.

        The port is another, since the one of the guide may be in use.
        """
        return ["bash", "-ec", block.replace("4200", str(self.port))]

    def call(self, *args: object, code: int | None = 0, seconds: float = 240) -> Any:
        """Call a command with ``--json`` and return its object."""
        answer = survey_ml(self.environment, *args, "--json", seconds=seconds)
        assert code is None or answer.returncode == code, (
            f"{answer.stdout}\n{answer.stderr}\n{self.read_logs()}"
        )
        return json.loads(answer.stdout.splitlines()[0])

    def ask(self, path: str, body: Any = None) -> Any:
        """Ask the API itself."""
        import base64

        pair = base64.b64encode(PASSWORD.encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {pair}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def read_logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text()[-3000:]}" for p in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        """End all that was started and what that started, the newest first."""
        for process in reversed(self._processes):
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=15)
                for child in children:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=15)


@contextlib.contextmanager
def start_house(environment: Mapping[str, str], folder: Path) -> Iterator[House]:
    """Do what the guide says for one node: a server behind basic authentication, a pool and its worker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    mine = {**environment, "PREFECT_HOME": str(folder / "home")}
    theirs = {**mine, "PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": PASSWORD}
    house = House(mine, url, folder, port)
    first, second = read_guide("One node")[:2]
    try:
        server = house.start("server", *house.shell(first))

        def answers(path: str, body: Any = None) -> Any:
            assert server.poll() is None, house.read_logs()
            with contextlib.suppress(OSError):
                return house.ask(path, body)
            return None

        wait_until(lambda: answers("/health"), 120, "the server answers")
        house.start("worker", *house.shell(second))
        wait_until(lambda: answers("/work_pools/one-node/workers/filter", {}), 120, "the worker is known")
        house.environment = theirs
        yield house
    finally:
        house.stop()
