"""One run under a fault: until the command ends well, and whether all is as it should be then."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from survey_ml.data.lease import LEASE, read_holder
from survey_ml.data.residue import list_residue
from survey_ml.data.store import ReleaseStore
from survey_ml.errors import SurveyMLError
from survey_ml.selftest.command import Command
from survey_ml.selftest.content import Content, compare, find_remade, read_content
from survey_ml.selftest.fault import Fault
from survey_ml.selftest.processes import Herd
from survey_ml.selftest.release import TrialRelease

STARTS = 6
"""Starts of the command after which it is given up."""
PATIENCE = 90.0
"""Seconds that processes of a killed command may outlive it: Ray's agents look for it once a minute."""


@dataclass
class Outcome:
    """What became of one run.

    Attributes
    ----------
    fault, seed : str, int
        Repeat it with these.
    moment : str
        When it struck, in commits; ``its turn`` where a stage does it on one tile.
    done : str
        What was done.
    seen : list of str
        For each start of the command, its exit code and the line that tells most.
    found : list of str
        What ``survey-ml status --verify --repair --clean`` removed or repaired.
    starts : int
        Starts of the command until it ended well.
    wrong : list of str
        All that is not as it should be; empty when the run passed.
    """

    fault: str
    seed: int
    engine: str = ""
    moment: str = ""
    done: str = ""
    seen: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    starts: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether all is as it should be."""
        return not self.wrong


def disturb(fault: Fault, seed: int, trial: TrialRelease, place: Path, reference: Content) -> Outcome:
    """Run the trial release under a fault and hold the result against an undisturbed one.

    Parameters
    ----------
    fault : Fault
        What goes wrong.
    seed : int
        Of the moment and of all that is chosen.
    trial : TrialRelease
        What is processed.
    place : Path
        Folder for this run.
    reference : Content
        The release as it should be.
    """
    start = time.monotonic()
    outcome = Outcome(fault.name, seed, fault.choose_engine())
    rng = Random(f"{fault.name}/{seed}")  # noqa: S311 (nothing is secret here)
    place.mkdir(parents=True)
    with Herd() as herd:
        command = Command(trial, place, str(place / "out"), outcome.engine, herd, list(fault.settings))
        try:
            fault.prepare(command, rng)
            _run(fault, command, rng, len(reference.markers), outcome)
            _judge(fault, command, reference, outcome)
        except (SurveyMLError, OSError) as error:
            outcome.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            command.stop()
            fault.clear(command)
        outcome.starts = command.starts
        outcome.wrong += list_leftovers(herd)
    outcome.seconds = time.monotonic() - start
    return outcome


def _run(fault: Fault, command: Command, rng: Random, units: int, outcome: Outcome) -> None:
    """Strike, and start the command again until it ends well and nothing is damaged."""
    low, high = fault.window
    moment, delay = round(units * rng.uniform(low, high)), rng.uniform(0.0, 0.05)
    command.start()
    there = command.wait_for_commits(moment)
    time.sleep(delay)
    before = [command.read_markers()]
    outcome.done = fault.strike(command, rng)
    outcome.moment = f"{max(there, len(before[0]))} of {units} commits" if high else "its turn"
    if not outcome.done:
        outcome.wrong.append("nothing was there to strike: the run had ended")
    while True:
        if command.process is not None:
            command.wait()
        last = command.ends[-1]
        before.append(command.read_markers())
        well = last.code == 0
        if well:
            found = command.tidy()
            outcome.found += [item["what"] for item in found["residue"]]
            outcome.found += [item["cause"] for item in found["damaged"]]
            with command.seeing():
                well = not found["damaged"] and len(command.read_markers()) == units
        if well or command.starts >= STARTS:
            break
        fault.mend(command)
        command.start(fault.extra)
    outcome.seen = [
        f"exit code {end.code}" + (f": {end.line}" if end.line else "").replace(command.out, "OUT")
        for end in command.ends
    ]
    if told := fault.tell(command):
        outcome.seen[0] += f" ({told})"
    if command.ends[-1].code:
        outcome.wrong.append(f"after {command.starts} starts the command still ends with {last.code}")
        return
    if outcome.done and (why := fault.judge(command, command.ends)):
        outcome.wrong.append(why)
    now = command.read_markers()
    again = {path for there in before for path in find_remade(there, now, fault.spoiled)}
    outcome.wrong += [f"made again: {path}" for path in sorted(again)]


def _judge(fault: Fault, command: Command, reference: Content, outcome: Outcome) -> None:
    """Hold the release against the undisturbed one, and a last run against nothing left to do."""
    with command.seeing():
        outcome.wrong += compare(reference, read_content(command.out))
    starts = command.starts
    again = command.run()
    command.starts = starts
    if again.code or again.said.get("done") != 0:
        outcome.wrong.append(
            f"the same command once more ended with {again.code} and did {again.said.get('done')} units"
        )
    with command.seeing():
        store = ReleaseStore.open(command.out)
        left = [item.path for item in list_residue(store)]
        left += [] if read_holder(store.medium) is None else [LEASE]
    if "://" not in command.out:
        # Wherever it may be, also where nobody thinks of looking.
        left += [str(p.relative_to(command.out)) for p in Path(command.out).rglob(".tmp-*")]
    if left:
        outcome.wrong.append(f"left in the release: {', '.join(sorted(set(left)))}")


def list_leftovers(herd: Herd, seconds: float = PATIENCE) -> list[str]:
    """Name what commands left on this machine: processes, shared memory, sessions of Ray."""
    said = [f"process {p.pid} is still there: {p.command[:80]}" for p in herd.wait(seconds)]
    said += [f"{path} is still there" for path in herd.list_shared_memory()]
    user = os.getuid() if hasattr(os, "getuid") else 0
    for folder in {tempfile.gettempdir(), "/tmp"}:  # noqa: S108 (where sockets of Ray have to be)
        for pid in herd.roots:
            said += [f"{path} is still there" for path in Path(folder).glob(f"sml-{user}-{pid}-*")]
    return said
