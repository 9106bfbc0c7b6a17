"""Figures of a run for Prometheus: counted here, and written as text exposition format 0.0.4.

Every name, with its unit, is in ``docs/monitoring.md``.
"""

from __future__ import annotations

import math
import subprocess
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from shutil import which
from typing import TYPE_CHECKING

from survey_ml.data.commit import Unit
from survey_ml.engine.hearing import Watch
from survey_ml.engine.memory import peak_memory, resident_memory
from survey_ml.engine.work import Result

if TYPE_CHECKING:
    from survey_ml.engine.run import RunResult

OUTCOMES = ("done", "skipped", "failed", "damaged", "quarantined", "stopped")
_RATE_SECONDS = 60.0
"""Time over which the rate is taken."""
_GPU_SECONDS = 15.0
"""Time between questions to nvidia-smi, each of which takes a tenth of a second."""

Labels = Mapping[str, str]


@dataclass
class _Metric:
    """One name with its samples."""

    name: str
    kind: str
    words: str
    samples: list[tuple[Labels, float]] = field(default_factory=list)


class Metrics(Watch):
    """Counts what happens in a run; `render` may be called from any thread.

    Parameters
    ----------
    release, run : str
        Names of the release and of the run: labels of ``survey_ml_run_info``.
    """

    def __init__(self, release: str, run: str) -> None:
        self._release, self._run = release, run
        self._lock = threading.Lock()
        self._start = self._progress = time.time()
        self._wanted: dict[str, int] = {}
        self._begun: dict[str, float] = {}
        self._units: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._written: Counter[str] = Counter()
        self._recent: dict[str, deque[float]] = {}
        self._workers = self._in_flight = self._lost = self._peak = 0
        self._aside = 0
        self._exit_code: int | None = None
        self._gpus = _Gpus()

    # ---- hearing

    def begin(self, stage: str, total: int) -> None:
        """Count what a stage has to do."""
        with self._lock:
            done = sum(count for (name, _), count in self._units.items() if name == stage)
            self._wanted[stage] = done + total
            self._begun.setdefault(stage, time.monotonic())
            self._recent.setdefault(stage, deque())

    def take(self, result: Result) -> None:
        """Count a unit."""
        stage = result.unit.stage
        with self._lock:
            self._units[stage, result.outcome] += 1
            self._seconds[stage] += result.seconds
            self._written[stage] += result.written
            self._peak = max(self._peak, result.peak)
            self._progress = time.time()
            self._recent.setdefault(stage, deque()).append(time.monotonic())
            self._forget(stage)

    def lose(self, worker: str, cause: str, units: Sequence[Unit]) -> None:
        """Count a lost worker."""
        with self._lock:
            self._lost += 1

    def count(self, workers: int, in_flight: int) -> None:
        """Note how many workers there are and what they hold."""
        self._workers, self._in_flight = workers, in_flight

    def conclude(self, result: RunResult) -> None:
        """Note the exit code."""
        with self._lock:
            self._exit_code, self._aside = result.exit_code, len(result.set_aside)
            self._workers = self._in_flight = 0

    def fail(self, error: BaseException) -> None:
        """Note that the run failed, or was interrupted."""
        with self._lock:
            self._exit_code = 130 if isinstance(error, KeyboardInterrupt) else 2
            self._workers = self._in_flight = 0

    # ---- telling

    def render(self) -> str:
        """Return all metrics as text exposition format 0.0.4."""
        gpus = self._gpus.look()
        with self._lock:
            return "".join(_format_metric(metric) for metric in (*self._collect(), *gpus) if metric.samples)

    def _collect(self) -> Iterable[_Metric]:
        stages = list(self._wanted)
        info = {"release": self._release, "run": self._run}
        yield _Metric("run_info", "gauge", "Names of the release and of the run.", [(info, 1.0)])
        yield _Metric(
            "tiles_wanted", "gauge", "Tiles that the run has to do.",
            [({"stage": stage}, float(self._wanted[stage])) for stage in stages],
        )  # fmt: skip
        yield _Metric(
            "tiles_total", "counter", "Tiles accounted for, by what became of them.",
            [({"stage": s, "outcome": o}, float(self._units[s, o])) for s in stages for o in OUTCOMES],
        )  # fmt: skip
        yield _Metric(
            "tile_seconds_total", "counter", "Time that workers spent on tiles, in seconds.",
            [({"stage": stage}, self._seconds[stage]) for stage in stages],
        )  # fmt: skip
        yield _Metric(
            "written_bytes_total", "counter", "Bytes committed to the release.",
            [({"stage": stage}, float(self._written[stage])) for stage in stages],
        )  # fmt: skip
        yield _Metric(
            "tiles_per_second", "gauge", "Tiles accounted for a second, over the last minute.",
            [({"stage": stage}, self._rate(stage)) for stage in stages],
        )  # fmt: skip
        for name, kind, words, value in (
            ("tiles_in_flight", "gauge", "Tiles that workers hold.", self._in_flight),
            ("workers", "gauge", "Workers that are ready.", self._workers),
            ("workers_lost_total", "counter", "Workers that died or were ended.", self._lost),
            ("set_aside", "gauge", "Entries set aside at the end of the run.", self._aside),
            ("driver_memory_bytes", "gauge", "Resident memory of the driver.", resident_memory()),
            ("driver_peak_memory_bytes", "gauge", "Most resident memory of the driver.", peak_memory()),
            ("worker_peak_memory_bytes", "gauge", "Most resident memory of any worker.", self._peak),
            ("run_start_time_seconds", "gauge", "When the run began, in Unix time.", self._start),
            ("last_progress_time_seconds", "gauge", "When a tile was last done, in Unix time.",
             self._progress),
        ):  # fmt: skip
            yield _Metric(name, kind, words, [({}, float(value))])
        if self._exit_code is not None:
            yield _Metric(
                "run_exit_code", "gauge", "Exit code of the run; absent until it ends.",
                [({}, float(self._exit_code))],
            )  # fmt: skip

    def _rate(self, stage: str) -> float:
        self._forget(stage)
        lasted = time.monotonic() - self._begun[stage]
        return len(self._recent[stage]) / max(1.0, min(_RATE_SECONDS, lasted))

    def _forget(self, stage: str) -> None:
        """Drop the tiles that are too long ago to count for the rate, also where nobody asks for it."""
        recent, oldest = self._recent[stage], time.monotonic() - _RATE_SECONDS
        while recent and recent[0] < oldest:
            recent.popleft()


class _Gpus:
    """What nvidia-smi says of the GPUs of this machine; nothing where there is none."""

    _QUERY = (
        "nvidia-smi",
        "--query-gpu=index,utilization.gpu,memory.used,memory.total",
        "--format=csv,noheader,nounits",
    )

    def __init__(self) -> None:
        self._there = which("nvidia-smi") is not None
        self._next = 0.0
        self._found: list[_Metric] = []

    def look(self) -> list[_Metric]:
        """Return what was last found, asking again when that is some time ago."""
        if not self._there or time.monotonic() < self._next:
            return self._found
        self._next = time.monotonic() + _GPU_SECONDS
        try:
            said = subprocess.run(self._QUERY, capture_output=True, text=True, timeout=5, check=True).stdout
            self._found = parse_gpus(said)
        except (OSError, subprocess.SubprocessError, ValueError):
            self._found, self._there = [], False
        return self._found


def parse_gpus(said: str) -> list[_Metric]:
    """Read the answer of nvidia-smi: a line a GPU with index, use in percent, and MiB used and in all."""
    use = _Metric("gpu_utilization_ratio", "gauge", "Share of time in which the GPU was at work.")
    used = _Metric("gpu_memory_used_bytes", "gauge", "Memory of the GPU in use.")
    total = _Metric("gpu_memory_total_bytes", "gauge", "Memory of the GPU.")
    for line in said.splitlines():
        index, *values = [part.strip() for part in line.split(",")]
        for metric, value, scale in zip((use, used, total), values, (0.01, 1 << 20, 1 << 20), strict=True):
            # A GPU in slices says [N/A] of its use.
            if value.replace(".", "", 1).isdigit():
                metric.samples.append(({"gpu": index}, float(value) * scale))
    return [use, used, total]


def _format_metric(metric: _Metric) -> str:
    name = f"survey_ml_{metric.name}"
    lines = [f"# HELP {name} {metric.words}", f"# TYPE {name} {metric.kind}"]
    for labels, value in metric.samples:
        inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        lines.append(f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)
