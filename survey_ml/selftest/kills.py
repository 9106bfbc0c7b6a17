"""Faults of processes: killed, and suspended for longer than a lease."""

from __future__ import annotations

import importlib.util
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from survey_ml.selftest.command import Command, Ended
from survey_ml.selftest.fault import Engines, Fault


class Kill(Fault):
    """SIGKILL to one process of a kind."""

    engine: ClassVar[Engines] = "ray"
    word: ClassVar[str] = ""
    """In the command line of the process; empty for the command itself."""

    def miss(self) -> str:
        """See `Fault.miss`."""
        if any(importlib.util.find_spec(name) is None for name in ("ray", "prefect")):
            return "Ray and Prefect are not installed"
        if self.word and self.foreign():
            return f"{self.foreign()} is set: that process is not ours to kill"
        return super().miss()

    def foreign(self) -> str:
        """Name the variable that says that such processes belong to others."""
        return "RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") else ""

    def strike(self, command: Command, rng: Random) -> str:
        """Kill it."""
        assert command.process is not None
        command.herd.look()
        if not self.word:
            command.process.kill()
            command.process.wait()
            return f"SIGKILL to the command, process {command.process.pid}"
        victims = command.herd.find(self.word)
        if not victims or not command.running:
            return ""
        victim = rng.choice(victims)
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
            return f"SIGKILL to {self.word}, process {victim.pid}"
        return ""


class KillDriver(Kill):
    """The command itself."""

    name, summary = "kill-driver", "SIGKILL of the command, at work on Ray"


class KillLocal(KillDriver):
    """The command itself, without Ray."""

    name, summary, engine = "kill-local", "SIGKILL of the command, at work in its own process", "local"

    def miss(self) -> str:
        """See `Fault.miss`."""
        return Fault.miss(self)


class KillWorker(Kill):
    """A Ray worker in which stages run."""

    name, summary, word = "kill-worker", "SIGKILL of a Ray worker", "ray::UnitActor"


class KillRaylet(Kill):
    """The process that makes this machine a node of Ray."""

    name, summary, word = "kill-raylet", "SIGKILL of the raylet", "raylet/raylet"


class KillControl(Kill):
    """Ray's control service."""

    name, summary, word = "kill-control", "SIGKILL of Ray's control service", "gcs_server"


class KillPrefect(Kill):
    """The Prefect API that a run starts for itself."""

    name, summary, word = "kill-prefect", "SIGKILL of the Prefect API of the run", "survey_ml.engine.server"

    def foreign(self) -> str:
        """See `Kill.foreign`."""
        return "PREFECT_API_URL" if os.environ.get("PREFECT_API_URL") else ""

    def judge(self, command: Command, ends: list[Ended]) -> str:
        """See `Fault.judge`."""
        return "" if ends[0].code == 0 else "the run did not go on without it"


@dataclass
class Suspend(Fault):
    """The command suspended while another run takes its place."""

    name: ClassVar[str] = "suspend"
    summary: ClassVar[str] = (
        "SIGSTOP for longer than the lease; a second run takes over, then the first wakes"
    )
    engine: ClassVar = "local"
    settings: ClassVar = ("engine.lease_seconds=3",)
    window: ClassVar = (0.05, 0.7)

    def strike(self, command: Command, rng: Random) -> str:
        """Suspend it, run a second one, and wake it."""
        first, logs = command.process, command.logs
        assert first is not None
        if not command.running:
            return ""
        os.kill(first.pid, signal.SIGSTOP)
        try:
            second = command.run()
        finally:
            os.kill(first.pid, signal.SIGCONT)
        woken = command.finish(first, logs)
        command.ends.append(woken)
        return f"SIGSTOP, a second run ended with {second.code}, SIGCONT: the first with {woken.code}"

    def judge(self, command: Command, ends: list[Ended]) -> str:
        """See `Fault.judge`."""
        second, woken = ends[:2]
        if second.code != 0:
            return "the second run did not take over"
        # One that was done but for its catalogue may have nothing left to write.
        return (
            "" if woken.code == 2 and "taken over" in woken.errors else f"the first ended with {woken.code}"
        )
