"""The log of a run on Prefect's page of it."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path

import pytest
from releases import make_config, make_registry, write_fields

from survey_ml.engine.forward import PrefectLog
from survey_ml.engine.run import run_release
from survey_ml.engine.server import PrefectServer

RECORD = {"level": "INFO", "logger": "x", "message": "said", "time": "2026-01-01T00:00:00.000Z"}


def test_without_prefect_nothing_waits_for_it():
    log = PrefectLog()
    for _ in range(6000):
        log.sink(RECORD)
    log.sink({**RECORD, "level": "DEBUG"})
    start = time.monotonic()
    log.close()
    assert time.monotonic() - start < 1
    assert len(log._waiting) == 5000


def test_an_api_that_fails_harms_nothing(monkeypatch):
    log, calls = PrefectLog(), []

    def fail():
        calls.append(1)
        raise OSError("gone")

    monkeypatch.setattr(log, "_send", fail)
    monkeypatch.setattr("survey_ml.engine.forward._SECONDS", 0.01)
    log.sink(RECORD)
    log._send_often()
    assert len(calls) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_flow_run_shows_the_log(tmp_path, monkeypatch):
    """The whole of `run_release` on Ray with an API that is there, watched from a port as well."""
    home = tmp_path / "home"
    monkeypatch.setenv("PREFECT_HOME", str(home))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    server = PrefectServer()
    server.launch()
    try:
        monkeypatch.setenv("PREFECT_API_URL", server.wait())
        options = {"unit_seconds": 60.0, "spill_dir": "spill", "metrics_port": 0, "metrics_file": "run.prom"}
        stages = {"odd": {"how": "log"}, "smooth": {"fail": "1_1"}}
        config = make_config(write_fields(tmp_path), engine="ray", stages=stages, engine_options=options)
        result = run_release(config, registry=make_registry(), assemble=False)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with sqlite3.connect(f"file:{home}/prefect.db?mode=ro", uri=True) as database:
                rows = database.execute("select level, name, message, flow_run_id from log").fetchall()
            if any("set aside" in message and "done before" in message for _, _, message, _ in rows):
                break
            time.sleep(0.2)
    finally:
        server.stop()
    assert (result.exit_code, result.done) == (1, 52)
    said = {(level, name, message.splitlines()[0]) for level, name, message, _ in rows}
    place = "field north, tile 1_1, stage odd"
    assert (20, "trial.odd", f"{place}: for your information") in said
    assert (40, "trial.odd", f"{place}: went wrong") in said
    assert any("stage smooth: set aside: ZeroDivisionError" in message for _, _, message in said)
    assert len({flow for *_, flow in rows}) == 1
    (path,) = Path(config.out).glob("logs/*.jsonl")
    first, *_, last = [json.loads(line) for line in path.read_text().splitlines()]
    assert first["metrics"].startswith("http://127.0.0.1:")
    assert last["done"] == 52
    metrics = (tmp_path / "run.prom").read_text()
    assert "survey_ml_run_exit_code 1\n" in metrics
    assert 'survey_ml_tiles_total{stage="smooth",outcome="failed"} 2\n' in metrics
    assert os.environ["PREFECT_API_URL"] == server.url
