"""A release whose driver, workers and raylets are killed ends as one that was left alone.

Run: ``python -m benchmarks.kills [--size 768] [--fields 3] [--seed 1]``.

The demo release runs once undisturbed on Prefect and Ray. Then the same command runs into another
folder, and six times SIGKILL hits a part of it: the driver twice, a worker twice, the raylet twice,
in random order but for the last, at random numbers of commits. A run that died is started again;
one that survives (it replaces its workers and its Ray) goes on until the next kill or its end. The
catalogues must be the same row for row, each unit committed once, and nothing that was committed
before a kill made again.

`survey-ml selftest --faults` tries one fault a run, and many more kinds; this tries six in one run.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

from benchmarks.reporting import Report, make_parser
from survey_ml.data.sample import make_demo_release
from survey_ml.selftest.command import Command, Ended
from survey_ml.selftest.content import compare, find_remade, read_content
from survey_ml.selftest.disturbed import list_leftovers
from survey_ml.selftest.kills import Kill, KillDriver, KillRaylet, KillWorker
from survey_ml.selftest.processes import Herd
from survey_ml.selftest.release import TrialRelease

VICTIMS: dict[str, type[Kill]] = {"driver": KillDriver, "worker": KillWorker, "raylet": KillRaylet}


class Demo(TrialRelease):
    """The demo release in place of the trial release."""

    @property
    def yaml(self) -> Path:
        """The configuration."""
        return self.folder / "release.yaml"


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--size", type=int, default=768, help="side of a field in pixels")
    parser.add_argument("--fields", type=int, default=3)
    parser.add_argument("--core", type=int, default=128, help="side of a tile in pixels")
    parser.add_argument("--seed", type=int, default=1, help="of the sky, the order and the moments")
    options = parser.parse_args()
    report = Report("Kills", {k: getattr(options, k) for k in ("size", "fields", "core", "seed")})
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, Herd() as herd:
        base = Path(folder)
        make_demo_release(base, options.seed, options.size, options.fields)
        calm, killed = (start_in(base, name, options.core, herd) for name in ("calm", "killed"))
        start = time.monotonic()
        ended = calm.run()
        seconds = time.monotonic() - start
        if ended.code:
            raise RuntimeError(f"the undisturbed run ended with {ended.code}:\n{ended.errors[-2000:]}")
        units = len(calm.read_markers())
        rows, seen = disturb(killed, units, random.Random(options.seed))
        last = killed.wait() if killed.running else killed.run()
        report.add_table("kills", rows)
        summary = {"units": units, "undisturbed s": seconds, "starts of the command": killed.starts}
        report.add_table("runs", [summary])
        judge(report, calm, killed, last, seen)
    return report.finish(options.json)


def start_in(base: Path, name: str, core: int, herd: Herd) -> Command:
    """Return the command into a folder of its own."""
    (base / name).mkdir()
    settings = [f"tiling.core_px={core}"]
    return Command(Demo(base), base / name, str(base / name / "out"), "ray", herd, settings)


def disturb(
    command: Command, units: int, rng: random.Random
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Kill two of each kind at moments spread over the run; return when and what, and what was there."""
    # Workers that lost their raylet go on for seconds and may do all that is left. So that every kill
    # finds its victim, what follows a raylet is the driver, or nothing.
    blocks = [["driver"], ["worker"], ["worker"], ["raylet", "driver"]]
    rng.shuffle(blocks)
    order = [*(victim for block in blocks for victim in block), "raylet"]
    rows, seen = [], []
    for k, victim in enumerate(order):
        # The last part is left alone: what runs on after a kill must not end before the next one.
        moment = int((k + rng.random()) / len(order) * 0.75 * units)
        delay = rng.uniform(0.0, 0.1)
        if not command.running:
            command.start()
        hit = False
        while not hit and command.running:
            command.wait_for_commits(moment)
            time.sleep(delay)
            seen.append(command.read_markers())
            hit = bool(VICTIMS[victim]().strike(command, rng))
        there = len(seen[-1]) if hit else -1
        rows.append(
            {"kill": k + 1, "victim": victim, "wanted at": moment, "commits then": there, "of": units}
        )
    return rows, seen


def judge(report: Report, calm: Command, killed: Command, last: Ended, seen: list[dict[str, str]]) -> None:
    """Hold the disturbed release against the undisturbed one."""
    hits = [row["commits then"] for row in report.tables["kills"]]
    report.add_bar("kills that hit a running part", sum(hit >= 0 for hit in hits), "6", min(hits) >= 0)
    report.add_bar("exit code of the last run", last.code, "0", last.code == 0)
    if last.code:
        report.notes.append(last.errors[-2000:])
    wanted, found = read_content(calm.out), read_content(killed.out)
    for name, rows in wanted.tables.items():
        differ = sum(a != b for a, b in zip_longest(rows, found.tables.get(name, [])))
        label = f"{name}: rows of {len(rows) - 1} that differ from the undisturbed run's"
        report.add_bar(label, differ, "0", len(rows) > 1 and not differ)
    lost = wanted.markers.keys() ^ found.markers.keys()
    units = len({path.rpartition("/")[0] for path in found.markers})
    report.add_bar("units lost or with another key", len(lost), "0", not lost)
    report.add_bar("commits a unit", len(found.markers) / max(1, units), "1", len(found.markers) == units)
    again = {path for before in seen for path in find_remade(before, found.markers, set())}
    report.add_bar("commits before a kill that were made again", len(again), "0", not again)
    differences = compare(wanted, found)
    report.add_bar("any other difference in content or checksums", len(differences), "0", not differences)
    report.notes.extend(differences)
    left = [str(path) for path in Path(killed.out).rglob(".tmp-*")]
    report.add_bar("files left aside", len(left), "0", not left)
    # Ray's agents serve its dashboard and environments; they outlive a killed driver by a minute.
    alive = list_leftovers(killed.herd)
    report.add_bar("processes and sessions that outlived their driver", len(alive), "0", not alive)
    report.notes.extend(alive)
    done = killed.run().said.get("done", -1)
    report.add_bar("units done by the same command once more", done, "0", done == 0)


if __name__ == "__main__":
    sys.exit(main())
