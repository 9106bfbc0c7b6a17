"""`survey-ml status --watch`: how far a release is, again and again, from nothing but its store."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from survey_ml.cli.configuration import NotRunYetError, find_release
from survey_ml.cli.output import format_seconds, format_table, to_plain

if TYPE_CHECKING:
    from rich.live import Live

_MEMORY = 300.0
"""Seconds over which a rate is taken: long enough for slow tiles, short enough to follow a change."""

_SHARE = 4.0
"""Rest after a look, in times of what the look took, where that is more than was asked for."""


@dataclass
class Row:
    """One stage at one moment.

    Attributes
    ----------
    total : int or None
        Units it has in the fields that are known so far; None for a stage that is not installed.
    rate : float or None
        Units a second over the last minutes; None before anything was done.
    seconds_left : float or None
        Until the stage is done at this rate.
    """

    done: int = 0
    total: int | None = None
    quarantined: int = 0
    rate: float | None = None
    seconds_left: float | None = None

    @property
    def todo(self) -> int | None:
        """Units not done, those in quarantine left out."""
        return None if self.total is None else max(0, self.total - self.done - self.quarantined)


@dataclass
class Watcher:
    """Looks at a release and remembers how it stood, for the rates.

    Parameters
    ----------
    out : str
        Folder or URL of the release.
    """

    out: str
    _seen: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)
    _began: float = field(default_factory=time.time)

    def look(self) -> dict[str, Any]:
        """Return how the release stands, as plain values."""
        from survey_ml.cli.units import count_commits, count_units
        from survey_ml.data.commit import list_quarantine
        from survey_ml.data.store import ReleaseStore
        from survey_ml.engine.lastrun import read_last_run

        store = ReleaseStore.open(self.out)
        about = store.describe()
        rows = {name: Row(total=total) for name, total in count_units(store, about).items()}
        for name, done in count_commits(store).items():
            rows.setdefault(name, Row()).done = done
        for unit in list_quarantine(store):
            rows.setdefault(unit.stage, Row()).quarantined += 1
        now = time.monotonic()
        for name, row in rows.items():
            self._take_rate(name, row, now)
        known = [row.todo for row in rows.values() if row.todo is not None]
        return {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "name": about["name"],
            "out": self.out,
            "stages": {name: {**to_plain(row), "todo": row.todo} for name, row in rows.items()},
            "complete": bool(known) and not any(known),
            "run": to_plain(read_last_run(store)),
        }

    def _take_rate(self, name: str, row: Row, now: float) -> None:
        """Give a row its rate and the time left."""
        seen = self._seen.setdefault(name, deque())
        if seen and row.done < seen[-1][1]:
            # Made again from the beginning: what was before tells nothing.
            seen.clear()
        seen.append((now, row.done))
        while len(seen) > 2 and seen[1][0] < now - _MEMORY:
            seen.popleft()
        moved = next((i for i in range(1, len(seen)) if seen[i][1] > seen[0][1]), None)
        if moved is None or row.todo == 0:
            return
        # From the look before the first unit was done: a stage that waits for others has no rate.
        start, first = seen[moved - 1]
        row.rate = (row.done - first) / max(now - start, 1e-3)
        if row.todo and row.rate > 0:
            row.seconds_left = row.todo / row.rate

    def has_ended(self, found: Mapping[str, Any]) -> bool:
        """Tell whether all is done, or a run has ended since the watching began."""
        from survey_ml.engine.runlog import format_time

        ended = found["run"]["ended"] if found["run"] else None
        # To the millisecond: a run that ended a moment before the watching is not the one watched.
        return bool(found["complete"]) or (ended is not None and ended >= format_time(self._began))


def wait_for_release(path: str, out: str | None, every: float) -> str:
    """Return the folder or URL of a release, once it is there when it is named by its YAML.

    A run that was triggered begins when a worker takes it up. An interrupt before that is one: exit code 130.
    """
    told = False
    while True:
        try:
            return find_release(path, out)
        except NotRunYetError as error:
            if not told:
                click.echo(f"{error.message}: waiting for it to begin", err=True)
                told = True
            time.sleep(every)


def follow_release(out: str, every: float, as_json: bool) -> int:
    """Show a release until it is complete or the run that is watched ends; return the exit code.

    Parameters
    ----------
    out : str
        Folder or URL of the release.
    every : float
        Seconds between two looks.
    as_json : bool
        Print one JSON object a look.

    Returns
    -------
    int
        0 when all is done or at an interrupt, 1 when something is in quarantine or was set aside.
    """
    watcher = Watcher(out)
    live = None if as_json or not sys.stdout.isatty() else _open_live()
    try:
        while True:
            start = time.monotonic()
            found = watcher.look()
            if live is not None:
                live.update(_draw(found), refresh=True)
            elif as_json:
                click.echo(json.dumps(found, allow_nan=False))
            else:
                click.echo(_write_line(found))
            if watcher.has_ended(found):
                bad = any(row["quarantined"] for row in found["stages"].values())
                return 0 if found["complete"] and not bad else 1
            # A look reads every marker: on a large release it must not keep the disk busy.
            time.sleep(max(every, _SHARE * (time.monotonic() - start)))
    except KeyboardInterrupt:
        return 0
    finally:
        if live is not None:
            live.stop()


def _open_live() -> Live:
    from rich.live import Live

    live = Live(auto_refresh=False)
    live.start()
    return live


def _draw(found: Mapping[str, Any]) -> Any:
    """Return what a terminal shows."""
    from rich.text import Text

    rows = [
        (
            name,
            row["done"],
            row["todo"],
            row["quarantined"],
            "" if row["rate"] is None else f"{row['rate']:.2g}/s",
            "" if row["seconds_left"] is None else format_seconds(row["seconds_left"]),
        )
        for name, row in found["stages"].items()
    ]
    table = format_table(("stage", "done", "to do", "quarantined", "rate", "time left"), rows)
    return Text(f"{found['name']}  {found['time']}  {_describe_run(found['run'])}\n\n{table}\n")


def _write_line(found: Mapping[str, Any]) -> str:
    """Return one line for a file or a pipe."""
    parts = []
    for name, row in found["stages"].items():
        total = "?" if row["total"] is None else row["total"]
        rate = "" if row["rate"] is None else f" {row['rate']:.2g}/s"
        left = "" if row["seconds_left"] is None else f" {format_seconds(row['seconds_left'])} left"
        bad = f" {row['quarantined']} quarantined" if row["quarantined"] else ""
        parts.append(f"{name} {row['done']}/{total}{rate}{left}{bad}")
    return f"{found['time']}  {', '.join(parts)}"


def _describe_run(run: Mapping[str, Any] | None) -> str:
    if run is None:
        return "no run is known"
    said = f"run {run['id']} {run['state']}"
    if run["ended"]:
        return f"{said}, ended {run['ended']} with exit code {run['exit_code']}"
    return f"{said} on {run['host']}, process {run['pid']}, last heard of {run['heard']}"
