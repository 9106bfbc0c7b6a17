"""Start a local Ray, or attach to one that runs; with `pool` and `team` the only files that import ray."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from survey_ml.data.lease import process_exists
from survey_ml.errors import SurveyMLError

logger = logging.getLogger(__name__)

THREADS = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "BLOSC_NTHREADS",
        "TORCH_NUM_THREADS",
    ),
    "1",
)
"""One thread a worker: workers are the parallelism, and sums come out the same on any machine."""

_STORE_BYTES = 100 << 20
"""Object store of a local Ray. Addresses and windows travel, not arrays, so it stays near empty."""

_MEMORY_THRESHOLD = "0.95"
"""Share of the machine's (or its control group's) memory in use at which Ray ends the worker begun
last, before the kernel ends a process of its own choice, such as the driver. The user's value of
``RAY_memory_usage_threshold`` wins."""


class EngineError(SurveyMLError):
    """The engine itself cannot go on: Ray is missing, cannot be reached, or cannot start workers."""


def require_engine() -> None:
    """Check that Ray and Prefect are installed.

    Raises
    ------
    EngineError
        Names the extra to install, and the engine that does without.
    """
    missing = [name for name in ("prefect", "ray") if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineError(
            f"the ray engine needs {' and '.join(missing)}, not installed here",
            "pip install 'survey-ml[ray]', or run with --engine local",
        )


def limit_threads() -> None:
    """Ask numerical libraries that are loaded from now on for one thread, in this process too.

    A sum split over threads rounds differently; the engines must agree to the last bit.
    """
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)


class Cluster:
    """A Ray cluster for the length of a run.

    ``RAY_ADDRESS`` names one to attach to, which is left running; otherwise one is started on this
    machine and ended with the run.

    Parameters
    ----------
    spill : str
        Folder for what does not fit into the object store of a cluster started here; in that of its
        session unless given.
    """

    def __init__(self, spill: str = "") -> None:
        require_engine()
        self._spill = spill
        self.address = os.environ.get("RAY_ADDRESS", "").strip()
        self.owned = False
        self._folder = ""
        self.ray: ModuleType = _import_ray()

    def start(self) -> None:
        """Start or attach.

        Raises
        ------
        EngineError
            When the address does not answer or a local cluster does not come up.
        """
        if self.ray.is_initialized():
            return
        common: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": "critical",
            "configure_logging": False,
        }
        try:
            if self.address and self.address != "local":
                with _keep_handler():
                    self.ray.init(address=self.address, **common)
                return
            _sweep()
            if self._spill:
                Path(self._spill).mkdir(parents=True, exist_ok=True)
                common["object_spilling_directory"] = self._spill
            os.environ.setdefault("RAY_memory_usage_threshold", _MEMORY_THRESHOLD)
            self._folder = tempfile.mkdtemp(prefix=_prefix(os.getpid()), dir=_short_folder())
            cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            with _keep_handler():
                self.ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    object_store_memory=_STORE_BYTES,
                    _temp_dir=self._folder,
                    **common,
                )
            self.owned = True
        except Exception as error:
            self._drop_folder()
            attached = self.address not in ("", "local")
            where = f"at {self.address}" if attached else "on this machine"
            # Ray raises plain exceptions, whose type says nothing.
            kind = "" if type(error) is Exception else f"{type(error).__name__}: "
            raise EngineError(
                f"Ray {where} does not start: {kind}{error}",
                "check RAY_ADDRESS and, where the cluster asks for a token, RAY_AUTH_MODE=token and its "
                "RAY_AUTH_TOKEN; or run with --engine local"
                if attached
                else "the machine may be too busy: run the same command again, or with --engine local",
            ) from error

    def alive(self) -> bool:
        """Tell whether any node of the cluster still answers."""
        try:
            return any(node["Alive"] for node in self.ray.nodes())
        except Exception:
            return False

    def resources(self) -> dict[str, float]:
        """Return what the cluster has in all: CPU, GPU, memory."""
        return dict(self.ray.cluster_resources())

    def restart(self) -> None:
        """End a local cluster that lost its only node and start another.

        Raises
        ------
        EngineError
            For a cluster that is not ours to start.
        """
        if not self.owned:
            raise EngineError(
                f"the Ray cluster at {self.address} has no live node left",
                "start it again and run the same command: it goes on from what is committed",
            )
        logger.warning("Ray was lost; starting it again and going on")
        self.stop()
        self.start()

    def stop(self) -> None:
        """End what was started here; leave alone what was not."""
        if self.ray.is_initialized() and (self.owned or self.address):
            with contextlib.suppress(Exception):
                self.ray.shutdown()
        self.owned = False
        self._drop_folder()

    def _drop_folder(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""


def _import_ray() -> ModuleType:
    """Import ray, quiet and without usage reports."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    # Its hints on start-up are for those who type `ray.init`; errors reach us as exceptions.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    return ray


@contextlib.contextmanager
def _keep_handler() -> Iterator[None]:
    """Put back what is done on SIGTERM, if somebody has set it: Ray would leave without a word to Prefect."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _prefix(pid: int) -> str:
    return f"sml-{os.getuid() if hasattr(os, 'getuid') else 0}-{pid}-"


def _short_folder() -> str:
    """Return a folder for Ray's sockets, whose paths may have 107 characters in all."""
    folder = tempfile.gettempdir()
    return folder if len(folder) < 24 or not Path("/tmp").is_dir() else "/tmp"  # noqa: S108


def _sweep() -> None:
    """Remove the session folders of runs that were killed."""
    mine = _prefix(0).rsplit("-", 2)[0]
    for folder in Path(_short_folder()).glob(f"{mine}-*-*"):
        pid = folder.name.split("-")[2]
        if pid.isdigit() and not process_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
