"""Faults of a plugin, and of the clock."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar

from survey_ml.data.lease import LEASE
from survey_ml.selftest.command import Command, Ended
from survey_ml.selftest.fault import Fault
from survey_ml.selftest.release import list_units

_LEAK, _RECYCLE = 60, 100
"""MB that a tile leaks, and the growth after which a worker is replaced."""


class _Plugin(Fault):
    """A stage that goes wrong on one tile until its author has mended it."""

    how: ClassVar[str] = ""
    window = (0.0, 0.0)

    def prepare(self, command: Command, rng: Random) -> None:
        """Ask the trial stage for it."""
        self.unit = rng.choice(list_units())
        command.trial.ask(self.how, self.unit)

    def strike(self, command: Command, rng: Random) -> str:
        """Say where: the stage strikes by itself."""
        return f"stage trial on {self.unit}"

    def judge(self, command: Command, ends: list[Ended]) -> str:
        """See whether the run named the tile, and no other."""
        named = [(a["field"], a["tile"]) for a in ends[0].said.get("set_aside", ()) if a["stage"] == "trial"]
        if ends[0].code == 1 and named == [tuple(self.unit.split("/"))]:
            return ""
        return f"the first run ended with {ends[0].code} and named {named}"

    def mend(self, command: Command) -> None:
        """Mend the plugin."""
        command.trial.forgive()

    def clear(self, command: Command) -> None:
        """See `Fault.clear`."""
        command.trial.forgive()


class Raises(_Plugin):
    """A stage that raises."""

    name, summary, how = "plugin-raises", "a stage raises on one tile", "raise"


class Hangs(_Plugin):
    """A stage that does not return."""

    name, summary, how = "plugin-hangs", "a stage does not return; engine.unit_seconds is 12", "hang"
    settings = ("engine.unit_seconds=12",)


class _OnRay(Fault):
    """Needs a worker of its own to take down."""

    engine = "ray"

    def miss(self) -> str:
        """See `Fault.miss`."""
        if any(importlib.util.find_spec(name) is None for name in ("ray", "prefect")):
            return "Ray and Prefect are not installed"
        return super().miss()


class Exits(_Plugin, _OnRay):
    """A stage that ends its process."""

    name, summary, how = "plugin-exits", "a stage calls os._exit on one tile", "exit"
    extra = ("--retry-quarantined",)


class Leaks(_OnRay):
    """A stage that keeps memory with every tile."""

    name, summary = (
        "plugin-leaks",
        f"a stage keeps {_LEAK} MB with every tile; engine.recycle_mb is {_RECYCLE}",
    )
    settings = (f"engine.recycle_mb={_RECYCLE}",)
    window = (0.0, 0.0)

    def prepare(self, command: Command, rng: Random) -> None:
        """Ask the trial stage for it."""
        command.trial.ask("leak", megabytes=_LEAK)

    def strike(self, command: Command, rng: Random) -> str:
        """Say where: the stage strikes by itself."""
        return "stage trial on every tile"

    def judge(self, command: Command, ends: list[Ended]) -> str:
        """See whether workers were replaced."""
        events = [
            json.loads(line)
            for log in Path(command.out).glob("logs/*.jsonl")
            for line in log.open(encoding="utf-8")
        ]
        if ends[0].code == 0 and any(event.get("event") == "recycle" for event in events):
            return ""
        return f"no worker was replaced, the run ended with {ends[0].code}"

    def clear(self, command: Command) -> None:
        """See `Fault.clear`."""
        command.trial.forgive()


@dataclass
class ClockJump(Fault):
    """The wall clock of the command jumps by hours, and so do the times of all files."""

    name: ClassVar[str] = "clock-jump"
    summary: ClassVar[str] = "the command's clock jumps by hours, it is killed, all files have other times"
    engine: ClassVar = "local"
    settings: ClassVar = ("engine.lease_seconds=2",)
    window: ClassVar = (0.75, 0.9)
    hours: float = 0.0

    def prepare(self, command: Command, rng: Random) -> None:
        """Ask for a jump at the first tile of the trial stage."""
        self.hours = rng.choice((-1, 1)) * rng.uniform(1.0, 30.0)
        command.trial.ask("clock", hours=self.hours)

    def strike(self, command: Command, rng: Random) -> str:
        """Kill the command, and move the times of all that it wrote and read."""
        if command.process is None or not command.running:
            return ""
        command.process.kill()
        command.process.wait()
        lease = json.loads((Path(command.out) / LEASE).read_text())
        moved = 0
        for folder in (Path(command.out), command.trial.folder / "fields"):
            for path in folder.rglob("*"):
                state = path.stat()
                at = int((state.st_mtime + 3600.0 * self.hours) * 1e9)
                os.utime(path, ns=(at, at))
                moved += 1
        return f"{self.hours:+.1f} h (lease renewed {lease['renewed']}), SIGKILL, {moved} files moved as far"

    def mend(self, command: Command) -> None:
        """Set the clock right."""
        command.trial.forgive()

    def clear(self, command: Command) -> None:
        """See `Fault.clear`."""
        command.trial.forgive()
