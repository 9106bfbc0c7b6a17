"""What watches a run: its log, Prefect's page of it, and its metrics where they are asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from survey_ml.config import LoadedConfig
from survey_ml.engine.forward import PrefectLog
from survey_ml.engine.hearing import Watch, Watchers
from survey_ml.engine.runlog import RunLog, make_run_id


@contextlib.contextmanager
def watch_run(config: LoadedConfig) -> Iterator[Watch]:
    """Watch a run of a release that can be written, from here to the end.

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
        try:
            yield watch
        except BaseException as error:
            watch.fail(error)
            raise
