"""Talking to a Prefect API that is busy, broken or not one at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from survey_ml.engine import operation
from survey_ml.engine.api import PrefectAPI
from survey_ml.engine.cluster import EngineError


class Answers(BaseHTTPRequestHandler):
    """Answer with the codes that were set, one after another, then with 200."""

    codes: ClassVar[list[int]] = []
    bodies: ClassVar[list[Any]] = []
    pages: ClassVar[dict[str, Any]] = {"default_ui": "v2", "v1_base_url": "/", "v2_base_url": "/v2"}

    def do_GET(self) -> None:
        self._answer(self.pages if self.path == "/ui-settings" else {"id": "a", "name": "b"})

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer({"id": "run", "name": "quiet-otter"})

    def _answer(self, body: Any) -> None:
        self.send_response(self.codes.pop(0) if self.codes else 200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    Answers.codes, Answers.bodies = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


def test_a_busy_server_is_asked_again(url):
    Answers.codes = [503, 429, 502]
    assert PrefectAPI(url).get("/health") == {"id": "a", "name": "b"}
    assert Answers.codes == []


def test_not_for_ever(url):
    Answers.codes = [503] * 100
    with pytest.raises(EngineError, match="answers 503"):
        PrefectAPI(url, seconds=0.6).get("/health")
    assert 95 < len(Answers.codes) < 100


def test_a_fault_of_the_server_is_told_at_once(url):
    Answers.codes = [500]
    with pytest.raises(EngineError, match="answers 500 to /health"):
        PrefectAPI(url).get("/health")


def test_a_run_that_is_asked_for_again_has_one_key(url):
    Answers.codes = [200, 503]
    found = operation.trigger(PrefectAPI(url), "nightly")
    assert found["name"] == "quiet-otter"
    first, second = (body["idempotency_key"] for body in Answers.bodies)
    assert first == second
    operation.trigger(PrefectAPI(url), "nightly")
    assert Answers.bodies[-1]["idempotency_key"] != first


def test_a_page_is_that_of_the_interface_shown_by_default(url, monkeypatch):
    base = url.removesuffix("/api")
    assert PrefectAPI(url).page("runs/flow-run/a") == f"{base}/v2/runs/flow-run/a"
    Answers.codes = [404]
    assert PrefectAPI(url).page("runs/flow-run/a") == f"{base}/runs/flow-run/a"
    monkeypatch.setattr(Answers, "pages", {**Answers.pages, "default_ui": "v1"})
    assert PrefectAPI(url).page("runs/flow-run/a") == f"{base}/runs/flow-run/a"
    monkeypatch.setenv("PREFECT_UI_URL", "https://prefect.example/v2/")
    assert PrefectAPI(url).page("runs/flow-run/a") == "https://prefect.example/v2/runs/flow-run/a"
