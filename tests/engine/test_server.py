"""An API that goes away while a run works, and one that comes back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from survey_ml.engine import server as server_module
from survey_ml.engine.server import PrefectServer


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None: ...


@contextmanager
def serve(port: int = 0) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", port), Healthy) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        yield http.server_port
        http.shutdown()
        thread.join()


def wait_for(caplog: pytest.LogCaptureFixture, text: str) -> None:
    end = time.monotonic() + 20
    while text not in caplog.text:
        assert time.monotonic() < end, caplog.text
        time.sleep(0.02)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(server_module, "SILENT_SECONDS", 0.2)


def test_an_operator_is_told_within_half_a_minute():
    # The look before the silence, the look after it, and the longest that a look may take.
    assert server_module.SILENT_SECONDS + 2 * server_module.LOOK_SECONDS + 3.0 < 30.0


def test_an_api_that_goes_and_comes_back_is_told_once_each(soon, monkeypatch, caplog):
    with serve() as port:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
        api = PrefectServer()
        watch = api.watched()
        watch.__enter__()
        time.sleep(0.5)
    assert caplog.text == ""
    wait_for(caplog, "has not answered for")
    time.sleep(0.3)
    with caplog.at_level(logging.WARNING), serve(port):
        wait_for(caplog, "answers again")
        watch.__exit__(None, None, None)
    assert caplog.text.count("the run goes on") == caplog.text.count("answers again") == 1


def test_nothing_is_said_of_one_that_nobody_waits_for(soon, monkeypatch, caplog):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with PrefectServer().watched(lambda: True):
        time.sleep(0.5)
    assert caplog.text == ""


def test_an_api_that_is_silent_for_a_moment_is_not_lost(monkeypatch):
    with serve() as port:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
        api = PrefectServer()
        assert not api.lost()
    monkeypatch.setattr(server_module, "SILENT_SECONDS", 10.0)
    answers: list[bool] = []
    asker = threading.Thread(target=lambda: answers.append(api.lost()))
    asker.start()
    time.sleep(0.5)
    assert not answers
    with serve(port):
        asker.join(timeout=20)
    assert answers == [False]


def test_an_api_that_stays_away_is_lost(soon, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert PrefectServer().lost()
