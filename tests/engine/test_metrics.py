"""The metrics of a run, as Prometheus reads them."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from releases import make_config

from survey_ml.data.commit import Unit
from survey_ml.engine.exposition import MetricsFile, MetricsServer
from survey_ml.engine.metrics import Metrics, _format_metric, parse_gpus
from survey_ml.engine.run import RunResult, run_release
from survey_ml.engine.work import Result
from survey_ml.errors import ConfigError

ROOT = Path(__file__).parents[2]


def parse(text: str) -> dict[tuple, float]:
    """Return the value of each name and label values; the parser refuses what Prometheus would."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, *sample.labels.values())
            assert key not in found
            found[key] = sample.value
    return found


def make_metrics() -> Metrics:
    metrics = Metrics('a "release"\\', "run\n1")
    metrics.begin("smooth", 4)
    metrics.take(Result(Unit("a", "smooth", "0_0"), "done", 1.5, written=1000, peak=5 << 30))
    metrics.take(Result(Unit("a", "smooth", "0_1"), "failed", 0.25))
    metrics.lose("host:1", "gone", [])
    metrics.count(2, 7)
    return metrics


def test_text_is_what_prometheus_reads():
    text = make_metrics().render()
    found = parse(text)
    assert found["survey_ml_run_info", 'a "release"\\', "run\n1"] == 1
    assert found["survey_ml_tiles_wanted", "smooth"] == 4
    assert found["survey_ml_tiles_total", "smooth", "done"] == 1
    assert found["survey_ml_tiles_total", "smooth", "quarantined"] == 0
    assert found["survey_ml_tile_seconds_total", "smooth"] == 1.75
    assert found["survey_ml_written_bytes_total", "smooth"] == 1000
    assert found["survey_ml_tiles_per_second", "smooth"] == 2
    assert found["survey_ml_workers",] == 2
    assert found["survey_ml_tiles_in_flight",] == 7
    assert found["survey_ml_workers_lost_total",] == 1
    assert found["survey_ml_worker_peak_memory_bytes",] == 5 << 30
    assert found["survey_ml_driver_memory_bytes",] > 1 << 20
    assert 0 <= time.time() - found["survey_ml_run_start_time_seconds",] < 60
    assert ("survey_ml_run_exit_code",) not in found
    assert text.endswith("\n")


def test_a_stage_that_is_gone_through_twice_wants_what_it_did_and_more():
    metrics = make_metrics()
    metrics.begin("smooth", 1)
    assert parse(metrics.render())["survey_ml_tiles_wanted", "smooth"] == 3


def test_the_end_is_a_figure():
    metrics = make_metrics()
    metrics.conclude(RunResult("out", exit_code=1))
    found = parse(metrics.render())
    assert (found["survey_ml_run_exit_code",], found["survey_ml_workers",]) == (1, 0)
    metrics.fail(KeyboardInterrupt())
    assert parse(metrics.render())["survey_ml_run_exit_code",] == 130


def test_gpus_are_read_where_there_are_some():
    text = "".join(map(_format_metric, parse_gpus("0, 55, 1024, 81559\n1, [N/A], 0, 81559\n")))
    found = parse(text)
    assert found["survey_ml_gpu_utilization_ratio", "0"] == pytest.approx(0.55)
    assert ("survey_ml_gpu_utilization_ratio", "1") not in found
    assert found["survey_ml_gpu_memory_used_bytes", "0"] == 1 << 30
    assert found["survey_ml_gpu_memory_total_bytes", "1"] == 81559 << 20


def test_a_run_leaves_its_metrics_in_a_file(release_folder, registry):
    options = {"metrics_file": "metrics/run.prom"}
    config = make_config(release_folder, stages={"smooth": {"fail": "1_1"}}, engine_options=options)
    run_release(config, registry=registry, assemble=False)
    (path,) = (release_folder / "metrics").iterdir()
    found = parse(path.read_text())
    assert found["survey_ml_tiles_total", "ingest", "done"] == 18
    assert found["survey_ml_tiles_total", "smooth", "failed"] == 2
    assert found["survey_ml_written_bytes_total", "smooth"] > 1000
    assert found["survey_ml_worker_peak_memory_bytes",] > 1 << 20
    assert found["survey_ml_run_exit_code",] == 1
    assert found["survey_ml_set_aside",] == 2


def test_a_run_that_fails_says_so(release_folder, registry, monkeypatch):
    def interrupt(*rest, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("survey_ml.engine.worker.write_commit", interrupt)
    config = make_config(release_folder, engine_options={"metrics_file": "run.prom"})
    with pytest.raises(KeyboardInterrupt):
        run_release(config, registry=registry, assemble=False)
    assert parse((release_folder / "run.prom").read_text())["survey_ml_run_exit_code",] == 130


def test_the_file_is_never_seen_in_part(tmp_path):
    path, ends = tmp_path / "run.prom", []
    metrics = MetricsFile(path, lambda: "x 1\n" * 20_000)
    reader = threading.Thread(target=lambda: ends.extend(path.read_text()[-4:] for _ in range(200)))
    reader.start()
    while reader.is_alive():
        metrics._write()
    reader.join()
    metrics.close()
    assert set(ends) == {"x 1\n"}
    assert [p.name for p in tmp_path.iterdir()] == ["run.prom"]


def test_a_port_of_this_machine(release_folder):
    metrics = make_metrics()
    server = MetricsServer(0, metrics.render)
    try:
        url = f"http://127.0.0.1:{server.port}"
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert parse(answer.read().decode())["survey_ml_workers",] == 2
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            urllib.request.urlopen(f"{url}/else", timeout=10)
        caught.value.close()
        assert server._server.server_address[0] == "127.0.0.1"
        with pytest.raises(ConfigError, match="cannot be listened on"):
            MetricsServer(server.port, metrics.render)
    finally:
        server.close()


def test_a_place_that_cannot_be_written_is_an_error_before_any_work(release_folder, registry):
    (release_folder / "file").write_text("")
    config = make_config(release_folder, engine_options={"metrics_file": "file/run.prom"})
    with pytest.raises(ConfigError, match="the metrics cannot be written"):
        run_release(config, registry=registry, assemble=False)


def test_every_metric_is_documented():
    text = (ROOT / "docs" / "monitoring.md").read_text()
    metrics = make_metrics()
    metrics.conclude(RunResult("out"))
    shown = metrics.render() + "".join(map(_format_metric, parse_gpus("0, 1, 2, 3\n")))
    for family in text_string_to_metric_families(shown):
        name = family.samples[0].name
        assert f"| `{name}` |" in text, name
