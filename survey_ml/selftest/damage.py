"""Faults of what is stored: a byte that changes, a file that is cut off, a file that goes away."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar, Literal

from survey_ml.data.commit import Unit, list_commits
from survey_ml.data.disk import MARKER
from survey_ml.data.store import ReleaseStore
from survey_ml.selftest.command import Command, Ended
from survey_ml.selftest.fault import Fault
from survey_ml.selftest.plugin import NAME

Manner = Literal["flipped", "truncated", "missing"]
What = Literal["shard", "part", "marker"]

_WINDOWS = {"shard": (0.05, 0.85), "part": (0.45, 0.9), "marker": (0.05, 0.85)}
"""Table parts are not there before the extraction."""


@dataclass
class Damage(Fault):
    """Damage to one committed file while the run goes on.

    The command stands still for the moment it takes to choose a file and to spoil it: one that has
    yet to be read, where there is such a one.
    """

    engine: ClassVar = "local"
    what: ClassVar[What]
    manner: ClassVar[Manner]

    def strike(self, command: Command, rng: Random) -> str:
        """Spoil a file."""
        if command.process is None or not command.running:
            return ""
        os.kill(command.process.pid, signal.SIGSTOP)
        try:
            return self._spoil(command.out, rng)
        finally:
            os.kill(command.process.pid, signal.SIGCONT)

    def judge(self, command: Command, ends: list[Ended]) -> str:
        """See whether nothing else was called damaged."""
        field, stage, tile, _ = next(iter(self.spoiled)).split("/")
        place = f"field {field}, tile {tile}, stage {stage} "
        told = [line for end in ends for line in end.errors.splitlines() if " is damaged (" in line]
        return next((f"not damaged, but so called: {line}" for line in told if place not in line), "")

    def _spoil(self, out: str, rng: Random) -> str:
        commits = list_commits(ReleaseStore.open(out))
        choice: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
        for unit, commit in commits.items():
            mark = "/".join((unit.field, unit.stage, unit.tile, commit.key))
            unread = Unit(unit.field, NAME, unit.tile) not in commits
            if self.what == "marker":
                paths = [f"{commit.folder}/{MARKER}"]
            else:
                paths = [p for p in commit.files if p.endswith(".parquet") == (self.what == "part")]
            choice[unread] += [(path, mark) for path in paths]
        files = sorted(choice[True] or choice[False])
        if not files:
            return ""
        path, mark = rng.choice(files)
        self.spoiled.add(mark)
        return f"{path.replace(mark.rpartition('/')[2], 'KEY')}: {spoil(Path(out) / path, self.manner, rng)}"


def spoil(path: Path, manner: Manner, rng: Random) -> str:
    """Damage a file; say how."""
    if manner == "missing":
        path.unlink()
        return "removed"
    size = path.stat().st_size
    if manner == "truncated":
        left = rng.randrange(size)
        os.truncate(path, left)
        return f"cut from {size} to {left} bytes"
    at = rng.randrange(size)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << rng.randrange(8))]))
    return f"a bit of byte {at} of {size} changed"


def _make(what: What, manner: Manner) -> type[Damage]:
    names = {"shard": "array shard", "part": "Parquet part", "marker": "commit marker"}
    hows = {"flipped": "one bit changed", "truncated": "cut off", "missing": "removed"}
    values = {
        "name": f"{what}-{manner}",
        "summary": f"{names[what]}: {hows[manner]}",
        "window": _WINDOWS[what],
        "what": what,
        "manner": manner,
        "__doc__": f"Damage to one {names[what]}: {hows[manner]}.",
    }
    return type(f"{what.title()}{manner.title()}", (Damage,), values)


_MANNERS: tuple[Manner, ...] = ("flipped", "truncated", "missing")
_KINDS: tuple[What, ...] = ("shard", "part", "marker")
DAMAGES = tuple(_make(what, manner) for what in _KINDS for manner in _MANNERS)
"""Each kind of file in each manner."""
