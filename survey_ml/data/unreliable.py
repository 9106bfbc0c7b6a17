"""A proxy in front of an object store that fails on purpose: what a release must bear is tried with it."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length", "date", "server"}
"""Headers that belong to one connection and are not passed on."""
_BLOCK = 1 << 20


@dataclass
class Faults:
    """What goes wrong, as fractions of all requests.

    Attributes
    ----------
    refused : float
        Answered with 500 or 503; the store never sees them.
    applied : float
        Writes that the store carries out, answered with 500 all the same.
    slow : float
        Answered after `delay`.
    delay : float
        Seconds.
    """

    refused: float = 0.0
    applied: float = 0.0
    slow: float = 0.0
    delay: float = 1.0


class UnreliableProxy:
    """Passes requests on to an object store on the loopback, and fails some of them.

    Parameters
    ----------
    upstream : str
        Address of the store, such as ``http://127.0.0.1:9000``.
    faults : Faults
        What goes wrong; may be replaced at any time.
    seed : int
        Of the choice of what fails. Requests arrive in any order: of so many writes, and of so many
        other requests, the same seed fails the same number, not the same ones.

    Attributes
    ----------
    counts : Counter
        Requests by what became of them: ``passed``, ``refused``, ``applied``, ``slow``, ``outage``.
    """

    def __init__(self, upstream: str, faults: Faults | None = None, seed: int = 0) -> None:
        self.upstream = upstream
        self.faults = faults or Faults()
        self.counts: Counter[str] = Counter()
        # Each kind of decision has numbers of its own, so that none depends on what else arrived before.
        self._writes, self._reads, self._slow, self._outage = (
            random.Random(f"{seed} {what}")  # noqa: S311 (nothing is secret here)
            for what in ("writes", "reads", "slow", "outage")
        )
        self._lock = threading.Lock()
        self._back = 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where the proxy answers."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> UnreliableProxy:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail_for(self, seconds: float) -> None:
        """Answer nothing from now on for a while: half of the requests get 503, half no answer at all."""
        with self._lock:
            self._back = time.monotonic() + seconds

    def choose(self, method: str) -> tuple[str, int]:
        """Say what becomes of the next request, and with which status; 0 closes the connection."""
        with self._lock:
            kind, status = "passed", 200
            if time.monotonic() < self._back:
                kind, status = "outage", self._outage.choice((0, 503))
            else:
                writes = method in ("PUT", "POST", "DELETE")
                source = self._writes if writes else self._reads
                chance, code = source.random(), source.choice((500, 503))
                if chance < self.faults.refused:
                    kind, status = "refused", code
                elif writes and chance < self.faults.refused + self.faults.applied:
                    kind, status = "applied", 500
                elif self._slow.random() < self.faults.slow:
                    kind = "slow"
            self.counts[kind] += 1
            return kind, status


def _make_handler(proxy: UnreliableProxy) -> type[BaseHTTPRequestHandler]:
    host = urlsplit(proxy.upstream)

    class Handler(BaseHTTPRequestHandler):
        """One connection of a client, and one to the store behind it."""

        protocol_version = "HTTP/1.1"
        # Answers in two packets would wait for the client's acknowledgement of the first.
        disable_nagle_algorithm = True
        wbufsize = -1
        timeout = 120

        def setup(self) -> None:
            super().setup()
            self._store = HTTPConnection(host.hostname or "127.0.0.1", host.port, timeout=60)

        def finish(self) -> None:
            self._store.close()
            with contextlib.suppress(OSError):
                super().finish()

        def handle(self) -> None:
            # A client that hangs up is no news.
            with contextlib.suppress(OSError):
                super().handle()

        def handle_expect_100(self) -> bool:
            # Clients wait a second for this before they send; it must not stay in our buffer.
            going = super().handle_expect_100()
            self.wfile.flush()
            return going

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def _serve(self) -> None:
            body = b"".join(self._read_body())
            kind, status = proxy.choose(self.command)
            if kind == "slow":
                time.sleep(proxy.faults.delay)
            if kind in ("passed", "slow", "applied"):
                answer, data = self._ask(body)
                if kind != "applied":
                    self._answer(answer.status, data, answer)
                    return
            if status == 0:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            code = "InternalError" if status == 500 else "SlowDown"
            self._answer(status, f"<Error><Code>{code}</Code><Message>on purpose</Message></Error>".encode())

        def _read_body(self) -> Iterator[bytes]:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                while size := int(self.rfile.readline().partition(b";")[0], 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return
            left = int(self.headers.get("Content-Length") or 0)
            while left > 0:
                block = self.rfile.read(min(left, _BLOCK))
                if not block:
                    raise ConnectionError("the client sent less than it announced")
                left -= len(block)
                yield block

        def _ask(self, body: bytes) -> tuple[HTTPResponse, bytes]:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            headers["Content-Length"] = str(len(body))
            for attempt in range(2):
                try:
                    self._store.request(self.command, self.path, body, headers)
                    answer = self._store.getresponse()
                    return answer, answer.read()
                except (HTTPException, OSError):
                    # The store closes connections that were idle; anything else is not ours to hide.
                    self._store.close()
                    if attempt:
                        raise
            raise AssertionError("unreachable")

        def _answer(self, status: int, data: bytes, answer: HTTPResponse | None = None) -> None:
            self.send_response(status)
            length = str(len(data))
            for name, value in answer.getheaders() if answer is not None else ():
                if name.lower() == "content-length" and self.command == "HEAD":
                    length = value
                elif name.lower() not in _HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)
            self.wfile.flush()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    return Handler
