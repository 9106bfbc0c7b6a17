"""The Prefect API of a run: the one that PREFECT_API_URL names, or one of our own that ends with us.

``python -m survey_ml.engine.server`` is the process of the latter: it prints its port, serves the
API on loopback, and ends as soon as its standard input closes, which the system does even when the
run is killed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from survey_ml.engine.cluster import EngineError

logger = logging.getLogger(__name__)

START_SECONDS = 180.0
"""Longest wait for the API: the first start on a busy machine prepares a database."""

SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_SETTINGS_PATH": str(Path(__file__).with_name("prefect_logging.yml")),
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    # Prefect only shows; a server that is gone must not hold a run up for minutes.
    "PREFECT_CLIENT_MAX_RETRIES": "2",
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500,502,503",
}
"""Environment of Prefect in the driver and its server, where the user has not set it."""

_SERVER_ONLY = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_SERVER_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
}

LOOK_SECONDS = 5.0
"""Between two looks at the API during a run."""

SILENT_SECONDS = 15.0
"""Without an answer for so long, an API is called lost; with two looks, that is told within 30 s."""


class PrefectServer:
    """The API that a run reports to.

    Attributes
    ----------
    url : str
        Its address once `wait` has returned.
    owned : bool
        Started here, and ended by `stop`.
    secret : str or None
        What the API that is started here asks for, where the operator's settings of servers name a password.
    """

    def __init__(self) -> None:
        self.url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
        self.owned = not self.url
        self.secret = (os.environ.get("PREFECT_SERVER_API_AUTH_STRING") or None) if self.owned else None
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._heard = time.monotonic()

    def launch(self) -> None:
        """Begin to start the API, if it is ours to start; `wait` sees the end of it."""
        if not self.owned or self._process is not None:
            return
        environment = {name: v for name, v in os.environ.items() if name != "PREFECT_API_URL"}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "survey_ml.engine.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={
                **environment,
                **{k: v for k, v in SETTINGS.items() if k not in environment},
                **_SERVER_ONLY,
            },
            # An interrupt at the terminal is for the run; the run ends its server.
            start_new_session=True,
        )

    def wait(self, seconds: float = START_SECONDS) -> str:
        """Return the address of the API once it answers.

        Raises
        ------
        EngineError
            When it does not answer in time or ends.
        """
        end = time.monotonic() + seconds
        if self.owned and not self.url:
            port = self._read_port(end)
            self.url = f"http://127.0.0.1:{port}/api"
        while time.monotonic() < end:
            if self.healthy():
                return self.url
            if self._has_ended():
                raise self._describe_end()
            if not self.owned:
                break
            time.sleep(0.1)
        raise EngineError(
            f"the Prefect API at {self.url or 'loopback'} does not answer",
            "start it, or unset PREFECT_API_URL; --engine local runs without Prefect",
        )

    def _read_port(self, end: float) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        line = b""
        while time.monotonic() < end and not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], 0.2)
            if ready:
                part = os.read(self._process.stdout.fileno(), 64)
                if not part:
                    self._process.wait(timeout=10)
                    raise self._describe_end()
                line += part
        try:
            return int(json.loads(line)["port"])
        except (ValueError, KeyError, TypeError):
            raise self._describe_end() from None

    def _describe_end(self) -> EngineError:
        text = ""
        if self._errors is not None:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            text = f": {lines[-1]}" if lines else ""
        return EngineError(
            f"the local Prefect API does not start{text}",
            "set PREFECT_API_URL to a running one, or run with --engine local",
        )

    def healthy(self, seconds: float = 3.0) -> bool:
        """Tell whether the API answers now."""
        if not self.url:
            return False
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=seconds) as answer:  # noqa: S310
                well = bool(answer.status == 200)
        except (OSError, urllib.error.URLError, ValueError):
            return False
        if well:
            self._heard = time.monotonic()
        return well

    def lost(self) -> bool:
        """Tell whether the API has gone; one that was silent for a moment only is waited for.

        On a busy machine an API may take longer over an answer than anybody waits for one.
        """
        while not self.healthy():
            if self._has_ended() or time.monotonic() - self._heard >= SILENT_SECONDS:
                return True
            time.sleep(min(1.0, SILENT_SECONDS / 4))
        return False

    @contextlib.contextmanager
    def watched(self, lost: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Say it in the log when the API stops answering, within 30 s, and when it is back.

        Parameters
        ----------
        lost : callable
            True once nobody waits for the API any more; nothing is said then.
        """
        ended = threading.Event()
        thread = threading.Thread(target=self._watch, args=(ended, lost), name="survey-ml-api", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _watch(self, ended: threading.Event, lost: Callable[[], bool]) -> None:
        told = False
        while not ended.wait(LOOK_SECONDS) and not lost():
            silent = time.monotonic() - self._heard
            if self.healthy():
                if told:
                    logger.warning("the Prefect API answers again, after %.0f s", silent)
                told = False
            elif not told and (silent >= SILENT_SECONDS or self._has_ended()) and not lost():
                told = True
                logger.warning(
                    "the Prefect API at %s has not answered for %.0f s; the run goes on, "
                    "and what Prefect shows of it is out of date",
                    self.url,
                    silent,
                )

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        """End the API if it was started here."""
        process, self._process = self._process, None
        if process is not None:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._errors is not None:
            self._errors.close()
            self._errors = None


@contextlib.contextmanager
def prefect_environment(url: str, secret: str | None = None) -> Iterator[None]:
    """Set Prefect up in this process for a while; imported for the first time in it, it obeys."""
    before = dict(os.environ)
    os.environ.update({name: value for name, value in SETTINGS.items() if name not in before})
    os.environ["PREFECT_API_URL"] = url
    if secret:
        os.environ["PREFECT_API_AUTH_STRING"] = secret
    try:
        yield
    finally:
        for name in (*SETTINGS, "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _end_with_parent() -> None:
    """End this process at once when nobody holds the other end of standard input."""
    with contextlib.suppress(OSError):
        while sys.stdin.buffer.read(1):
            pass
    os._exit(0)


def main() -> None:
    """Serve the Prefect API on a free loopback port until standard input closes."""
    import socket

    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    config = uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on", access_log=False)
    print(json.dumps({"port": port}), flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
