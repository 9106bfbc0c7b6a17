"""A release whose driver, workers and raylets are killed ends as one that was left alone.

Run: ``python -m benchmarks.kills [--size 768] [--fields 3] [--seed 1]``.

The demo release runs once undisturbed on Prefect and Ray. Then the same command runs into another
folder, and six times SIGKILL hits a part of it: the driver twice, a worker twice, the raylet twice,
in random order but for the last, at random numbers of commits. A run that died is started again;
one that survives (it replaces its workers and its Ray) goes on until the next kill or its end. The
catalogues must be the same row for row, each unit committed once, and nothing that was committed
before a kill made again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from benchmarks.reporting import Report, make_parser
from survey_ml.data.sample import make_demo_release

TABLES = ("components", "sources", "islands")
VICTIMS = {"driver": "", "worker": "ray::UnitActor", "raylet": "raylet/raylet"}
"""What is killed, to the word in the command line of its process."""

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")

LIMIT = 420.0
"""Seconds one run may take."""

Markers = dict[str, tuple[int, int]]
"""Path of each commit to the inode and time of its marker."""


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--size", type=int, default=768, help="side of a field in pixels")
    parser.add_argument("--fields", type=int, default=3)
    parser.add_argument("--core", type=int, default=128, help="side of a tile in pixels")
    parser.add_argument("--seed", type=int, default=1, help="of the sky, the order and the moments")
    options = parser.parse_args()
    report = Report("Kills", {k: getattr(options, k) for k in ("size", "fields", "core", "seed")})
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        base = Path(folder)
        yaml = make_demo_release(base, options.seed, options.size, options.fields)
        calm = Trial(yaml, base / "calm", options.core, base / "calm.log")
        start = time.monotonic()
        code = calm.wait()
        seconds = time.monotonic() - start
        kept = calm.read_markers()
        if code:
            raise RuntimeError(f"the undisturbed run ended with {code}:\n{calm.explain()}")
        trial = Trial(yaml, base / "killed", options.core, base / "killed.log")
        rows = disturb(trial, len(kept), random.Random(options.seed))
        code = trial.wait()
        report.add_table("kills", rows)
        summary = {"units": len(kept), "undisturbed s": seconds, "starts of the command": trial.starts}
        report.add_table("runs", [summary])
        judge(report, calm, trial, code)
    return report.finish(options.json)


@dataclass
class Trial:
    """A release folder and the runs of one command into it."""

    yaml: Path
    out: Path
    core: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    seen: list[Markers] = field(default_factory=list)
    below: list[psutil.Process] = field(default_factory=list)

    def start(self) -> None:
        """Start the command."""
        command = [sys.executable, "-m", "survey_ml.cli", "run", str(self.yaml), "--engine", "ray", "--json"]
        command += ["--out", str(self.out), "--set", f"tiling.core_px={self.core}"]
        environment = {k: v for k, v in os.environ.items() if k not in ("PREFECT_API_URL", "RAY_ADDRESS")}
        environment["PREFECT_HOME"] = str(self.out.parent / "prefect")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        self.starts += 1

    def wait(self) -> int:
        """Wait for the command to end, started first if it is not running; return its exit code."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        assert self.process is not None
        try:
            return self.process.wait(LIMIT)
        finally:
            self.process.kill()

    def explain(self) -> str:
        """Return the end of what the last run said."""
        return self.log.read_text(errors="replace")[-2000:]

    def read_markers(self) -> Markers:
        """Return each commit's inode and time."""
        found: Markers = {}
        for path in self.out.glob("units/*/*/*/[!.]*/_COMMIT.json"):
            # A commit whose key is being replaced may go between the listing and the look.
            with suppress(FileNotFoundError):
                state = path.stat()
                found[str(path.relative_to(self.out))] = state.st_ino, state.st_mtime_ns
        return found

    def find(self, victim: str) -> list[psutil.Process]:
        """Return the live processes of a kind below the running command."""
        assert self.process is not None
        if victim == "driver":
            return [psutil.Process(self.process.pid)]
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if VICTIMS[victim] in " ".join(child.cmdline()):
                    found.append(child)
        return sorted(found, key=lambda child: child.pid)

    def kill(self, victim: str, rng: random.Random) -> int:
        """Kill one process of a kind; return the number of commits there were, or -1 if none was there."""
        assert self.process is not None
        found = self.find(victim)
        if not found:
            return -1
        if victim == "driver":
            self.below += psutil.Process(self.process.pid).children(recursive=True)
        self.seen.append(self.read_markers())
        rng.choice(found).send_signal(signal.SIGKILL)
        if victim == "driver":
            self.process.wait(30)
        return len(self.seen[-1])

    def left_over(self) -> list[str]:
        """Return the commands of processes that outlived their killed driver by more than 20 s."""
        _, alive = psutil.wait_procs(self.below, timeout=20)
        left = []
        for process in alive:
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    left.append(" ".join(process.cmdline())[:80])
        return left


def disturb(trial: Trial, units: int, rng: random.Random) -> list[dict[str, Any]]:
    """Kill two of each kind at moments spread over the run, and tell when and what."""
    # Workers that lost their raylet go on for seconds and may do all that is left. So that every kill
    # finds its victim, what follows a raylet is the driver, or nothing.
    blocks = [["driver"], ["worker"], ["worker"], ["raylet", "driver"]]
    rng.shuffle(blocks)
    order = [*(victim for block in blocks for victim in block), "raylet"]
    rows = []
    for k, victim in enumerate(order):
        # The last part is left alone: what runs on after a kill must not end before the next one.
        moment = int((k + rng.random()) / len(order) * 0.75 * units)
        delay = rng.uniform(0.0, 0.1)
        if trial.process is None or trial.process.poll() is not None:
            trial.start()
        end = time.monotonic() + LIMIT
        hit = -1
        while hit < 0 and time.monotonic() < end and trial.process and trial.process.poll() is None:
            if len(trial.read_markers()) >= moment:
                time.sleep(delay)
                with suppress(psutil.NoSuchProcess):
                    hit = trial.kill(victim, rng)
            time.sleep(0.02)
        rows.append({"kill": k + 1, "victim": victim, "wanted at": moment, "commits then": hit, "of": units})
    return rows


def judge(report: Report, calm: Trial, trial: Trial, code: int) -> None:
    """Hold the disturbed release against the undisturbed one."""
    hits = [row["commits then"] for row in report.tables["kills"]]
    report.add_bar("kills that hit a running part", sum(hit >= 0 for hit in hits), "6", min(hits) >= 0)
    report.add_bar("exit code of the last run", code, "0", code == 0)
    if code:
        report.notes.append(trial.explain())
    for name in TABLES:
        one, other = (pq.read_table(t.out / "catalogue" / f"{name}.parquet") for t in (calm, trial))
        # As text, in which every float is exact and not-a-number equals itself.
        rows, others = ([repr(row) for row in table.to_pylist()] for table in (one, other))
        same = bool(rows) and rows == others and one.schema.equals(other.schema)
        differ = sum(a != b for a, b in zip_longest(rows, others))
        report.add_bar(
            f"{name}: rows of {len(rows)} that differ from the undisturbed run's", differ, "0", same
        )
    wanted, found = (set(t.read_markers()) for t in (calm, trial))
    units = len({path.rsplit("/", 2)[0] for path in found})
    report.add_bar("units lost or with another key", len(wanted ^ found), "0", wanted == found)
    report.add_bar("commits a unit", len(found) / max(1, units), "1", len(found) == units)
    final = trial.read_markers()
    again = sum(final.get(path) != mark for seen in trial.seen for path, mark in seen.items())
    report.add_bar("commits before a kill that were made again", again, "0", again == 0)
    left = [str(path) for path in trial.out.rglob(".tmp-*")]
    report.add_bar("files left aside", len(left), "0", not left)
    alive = trial.left_over()
    # Ray's agents serve its dashboard and environments; they outlive a killed driver by a minute.
    agents = [name for name in alive if name.startswith(AGENTS)]
    report.add_bar(
        "workers and servers that outlived their driver", len(alive) - len(agents), "0", alive == agents
    )
    if agents:
        report.notes.append(f"Still there 20 s after their driver: {', '.join(n.strip() for n in agents)}.")
    code = trial.wait()
    said = json.loads(trial.log.read_text()) if code == 0 else {"done": -1}
    report.add_bar("units done by the same command once more", said["done"], "0", said["done"] == 0)


if __name__ == "__main__":
    sys.exit(main())
