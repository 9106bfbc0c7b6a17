"""What a fault is: something that goes wrong with a command at work, and what an operator does about it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar, Literal

from survey_ml.selftest.command import Command, Ended
from survey_ml.selftest.processes import can_look

Engines = Literal["ray", "local", "any"]


@dataclass(frozen=True)
class Means:
    """What a self-test may use.

    Attributes
    ----------
    engine : str or None
        Run everything on this engine; each fault on the one it is for unless given.
    bucket : str
        Of the object store that the environment names; empty to start one on the loopback.
    """

    engine: str | None = None
    bucket: str = ""


@dataclass
class Fault:
    """Base of all faults; an instance serves one run.

    Attributes
    ----------
    window : tuple of float
        Parts of all commits between which it strikes; 0 and 0 for what a stage does by itself.
    spoiled : set of str
        Commits that it damaged, as `survey_ml.selftest.content` names them: these may be made again.
    extra : tuple of str
        Options of the command when it is started again, where its hint asks for them.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    engine: ClassVar[Engines] = "any"
    window: ClassVar[tuple[float, float]] = (0.05, 0.85)
    settings: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[tuple[str, ...]] = ()

    means: Means = field(default_factory=Means)
    spoiled: set[str] = field(default_factory=set)

    def miss(self) -> str:
        """Say why this fault cannot be tried here; empty when it can."""
        if self.engine == "ray" and self.means.engine == "local":
            return "it is one of Ray's"
        return "" if can_look() else "it needs /proc"

    def choose_engine(self) -> str:
        """Return the engine to run on."""
        return self.means.engine or ("local" if self.engine == "any" else self.engine)

    def prepare(self, command: Command, rng: Random) -> None:
        """Make ready, before the command is started for the first time."""

    def strike(self, command: Command, rng: Random) -> str:
        """Do it; return what was done, or nothing when there was nothing to strike."""
        raise NotImplementedError

    def tell(self, command: Command) -> str:
        """Return what there is to say when the command has ended well; empty when there is nothing."""
        return ""

    def judge(self, command: Command, ends: list[Ended]) -> str:
        """Say why the fault was not seen to work; empty when it was."""
        return ""

    def mend(self, command: Command) -> None:
        """Do what the operator does before starting the command again."""

    def clear(self, command: Command) -> None:
        """Take away what `prepare` made; always called."""


def is_root() -> bool:
    """Tell whether permissions bind this user."""
    return hasattr(os, "geteuid") and os.geteuid() == 0
