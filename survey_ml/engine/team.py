"""Workers that do one thing together, as the training of a network over several GPUs, by Ray Train."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from typing import Any

from survey_ml.engine.cluster import Cluster, EngineError
from survey_ml.errors import ConfigError, SurveyMLError

Say = Callable[[Any], None]
_LAST = "last"


def run_team(
    work: Callable[[Any, Say], None],
    payload: Any,
    hear: Callable[[Any], None],
    *,
    workers: int,
    gpus: bool,
) -> None:
    """Do the same work in several processes that torch knows as one process group.

    Parameters
    ----------
    work : callable
        Called in every worker with the payload and a function that sends something to the driver. It
        reaches the others through ``torch.distributed``, and is found again by its import path.
    payload : object
        Anything that pickles.
    hear : callable
        Called in this process with what is sent, in order.
    workers : int
    gpus : bool
        Whether each has a GPU of its own, else a CPU.

    Raises
    ------
    ConfigError
        When the cluster has not so many.
    EngineError
        When a worker is lost or Ray cannot go on.
    SurveyMLError
        What the work itself raised.
    """
    cluster = Cluster()
    cluster.start()
    try:
        kind = "GPU" if gpus else "CPU"
        there = int(cluster.resources().get(kind, 0))
        if there < workers:
            raise ConfigError(
                f"{workers} workers need a {kind} each, and there are {there}",
                f"ask for at most {there}, or name a larger cluster by RAY_ADDRESS"
                if there
                else "name a cluster that has some by RAY_ADDRESS",
            )
        with tempfile.TemporaryDirectory(prefix="sml-team-") as folder:
            _run(work, payload, hear, workers, gpus, folder)
    finally:
        cluster.stop()


def _run(
    work: Callable[[Any, Say], None],
    payload: Any,
    hear: Callable[[Any], None],
    workers: int,
    gpus: bool,
    folder: str,
) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

    queue = Queue(actor_options={"num_cpus": 0})
    failed: list[BaseException] = []

    def listen() -> None:
        while (said := queue.get()) != _LAST:
            if failed:
                continue
            try:
                if isinstance(said, SurveyMLError):
                    raise said
                hear(said)
            except BaseException as error:  # told to the caller, whose thread this is not
                failed.append(error)

    ear = threading.Thread(target=listen, name="team-ear", daemon=True)
    ear.start()
    trainer = TorchTrainer(
        _Part(work, queue),
        train_loop_config={"payload": payload},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=0)),
    )
    lost: Exception | None = None
    try:
        trainer.fit()
    except Exception as error:  # of kinds that differ between releases of Ray
        lost = error
    finally:
        queue.put(_LAST)
        ear.join()
        queue.shutdown()
    if failed:
        raise failed[0]
    if lost is not None:
        raise EngineError(
            f"a worker of the training was lost: {str(lost).strip().splitlines()[-1]}",
            "run the same command again: it goes on after the last whole epoch",
        ) from lost


class _Part:
    """What each worker runs."""

    def __init__(self, work: Callable[[Any, Say], None], queue: Any) -> None:
        self.work, self.queue = work, queue

    def __call__(self, config: dict[str, Any]) -> None:
        try:
            self.work(config["payload"], self.queue.put)
        except SurveyMLError as error:
            self.queue.put(error)
            raise
