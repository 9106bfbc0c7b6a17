"""What watches a run: its log, Prefect's page of it, and its metrics where they are asked for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from survey_ml.config import LoadedConfig
from survey_ml.engine.forward import PrefectLog
from survey_ml.engine.hearing import Watch, Watchers
from survey_ml.engine.runlog import RunLog, make_run_id
from survey_ml.engine.stop import Stop

_LOOK_SECONDS = 0.5
"""Between looks for a request to stop."""


@contextlib.contextmanager
def watch_run(config: LoadedConfig, stop: Stop) -> Iterator[Watch]:
    """Watch a run of a release that can be written, from here to the end.

    Parameters
    ----------
    config : LoadedConfig
        The release.
    stop : Stop
        The log tells when it is requested, for a run that is killed before it can tell its end.

    Yields
    ------
    Watch
        To be told what happens; an error that leaves the block is noted and goes on.

    Raises
    ------
    ConfigError
        When the metrics cannot be written or served where the configuration says.
    """
    engine, run = config.release.engine, make_run_id()
    with contextlib.ExitStack() as stack:
        watches: list[Watch] = []
        url = ""
        if engine.metrics_file or engine.metrics_port is not None:
            from survey_ml.engine.exposition import MetricsFile, MetricsServer
            from survey_ml.engine.metrics import Metrics

            metrics = Metrics(config.release.name, run)
            watches.append(metrics)
            if engine.metrics_file:
                path = config.base / Path(engine.metrics_file).expanduser()
                stack.callback(MetricsFile(path, metrics.render).close)
            if engine.metrics_port is not None:
                server = MetricsServer(engine.metrics_port, metrics.render)
                stack.callback(server.close)
                url = f"http://127.0.0.1:{server.port}/metrics"
        log, prefect = RunLog(config.out, run), PrefectLog()
        log.sinks.append(prefect.sink)
        watch = Watchers([*watches, log, prefect])
        stack.callback(watch.close)
        log.write(
            f"release {config.release.name}: a run begins", event="run_begins", out=config.out, metrics=url
        )
        log.put()
        stack.enter_context(_noting(stop, log))
        try:
            yield watch
        except BaseException as error:
            watch.fail(error)
            raise


@contextlib.contextmanager
def _noting(stop: Stop, log: RunLog) -> Iterator[None]:
    """Write it down when the run is asked to end; who asks may be a signal handler, which must not write."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_SECONDS):
            if stop.requested:
                said = f"the run is asked to end: {stop.reason}"
                log.write(said, level="WARNING", event="run_stops", reason=stop.reason)
                log.put()
                return

    thread = threading.Thread(target=look, name="survey-ml-stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=_LOOK_SECONDS + 30.0)
