"""What watches a run: its log, and Prefect's page of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from survey_ml.config import LoadedConfig
from survey_ml.engine.forward import PrefectLog
from survey_ml.engine.runlog import RunLog, make_run_id
from survey_ml.engine.watch import Watch, Watchers


@contextlib.contextmanager
def watch_run(config: LoadedConfig) -> Iterator[Watch]:
    """Watch a run of a release that can be written, from here to the end.

    Yields
    ------
    Watch
        To be told what happens; an error that leaves the block is noted and goes on.
    """
    log, prefect = RunLog(config.out, make_run_id()), PrefectLog()
    log.sinks.append(prefect.sink)
    watch = Watchers((log, prefect))
    log.write(f"release {config.release.name}: a run begins", event="run_begins", out=config.out)
    try:
        yield watch
    except BaseException as error:
        watch.fail(error)
        raise
    finally:
        watch.close()
