"""Where the metrics of a run can be read: a file for node_exporter, or a port of this machine."""

from __future__ import annotations

import contextlib
import http.server
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from survey_ml.errors import ConfigError

logger = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = 5.0
"""Time between two writings of the file."""


class MetricsFile:
    """Writes the metrics to a file every few seconds, whole or not at all, until closed.

    Parameters
    ----------
    path : Path
        Must end in ``.prom`` for node_exporter to read it.
    render : callable
        Returns the text.

    Raises
    ------
    ConfigError
        When the file cannot be written now. Later on, a failure is no more than a gap.
    """

    def __init__(self, path: Path, render: Callable[[], str]) -> None:
        self._path, self._render = path, render
        self._ending = threading.Event()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write()
        except OSError as error:
            raise ConfigError(
                f"the metrics cannot be written to {path}: {error.strerror}", "set engine.metrics_file"
            ) from error
        self._thread = threading.Thread(target=self._write_often, name="survey-ml-metrics", daemon=True)
        self._thread.start()

    def _write(self) -> None:
        # node_exporter reads all that ends in .prom, so the name aside must not.
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        try:
            aside.write_text(self._render(), encoding="utf-8")
            aside.replace(self._path)
        finally:
            aside.unlink(missing_ok=True)

    def _write_often(self) -> None:
        while not self._ending.wait(_SECONDS):
            with contextlib.suppress(OSError):
                self._write()

    def close(self) -> None:
        """Write the last state, with the exit code, and end."""
        self._ending.set()
        self._thread.join(timeout=_SECONDS)
        with contextlib.suppress(OSError):
            self._write()


class MetricsServer:
    """Serves ``/metrics`` on 127.0.0.1, and nothing else to nobody else, until closed.

    Parameters
    ----------
    port : int
        0 takes a free one; see `port`.
    render : callable
        Returns the text.

    Raises
    ------
    ConfigError
        When the port is taken.
    """

    def __init__(self, port: int, render: Callable[[], str]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404, "metrics are at /metrics")
                    return
                data = render().encode()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *words: object) -> None:
                pass

        try:
            self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise ConfigError(
                f"port {port} of this machine cannot be listened on: {error.strerror}",
                "set engine.metrics_port to a free one",
            ) from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="survey-ml-metrics-server", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
