"""All faults, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from survey_ml.errors import ConfigError
from survey_ml.selftest.damage import DAMAGES
from survey_ml.selftest.disks import FileLimit, FullDisk, ReadOnly
from survey_ml.selftest.fault import Fault
from survey_ml.selftest.kills import (
    KillControl,
    KillDriver,
    KillLocal,
    KillPrefect,
    KillRaylet,
    KillWorker,
    Suspend,
)
from survey_ml.selftest.oddities import ClockJump, Exits, Hangs, Leaks, Raises
from survey_ml.selftest.stores import Applied, Errors, Outage, Slow

_ALL: tuple[type[Fault], ...] = (
    KillDriver,
    KillLocal,
    KillWorker,
    KillRaylet,
    KillPrefect,
    KillControl,
    Suspend,
    FullDisk,
    FileLimit,
    ReadOnly,
    Errors,
    Applied,
    Slow,
    Outage,
    *DAMAGES,
    ClockJump,
    Raises,
    Hangs,
    Exits,
    Leaks,
)
FAULTS = {kind.name: kind for kind in _ALL}
"""Name to fault."""


def choose(names: Sequence[str]) -> list[type[Fault]]:
    """Return faults by name, or all of them.

    Raises
    ------
    ConfigError
        For a name that there is not.
    """
    for name in names:
        if name not in FAULTS:
            near = get_close_matches(name, FAULTS, n=1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(f"there is no fault {name!r}", f"{meant}there are {', '.join(FAULTS)}")
    return [FAULTS[name] for name in names or FAULTS]
