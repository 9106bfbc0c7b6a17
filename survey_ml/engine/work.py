"""What travels between the driver and its workers: jobs, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from survey_ml import __version__
from survey_ml.data.commit import Unit
from survey_ml.errors import SetAside
from survey_ml.stage import Scope, StageSpec

Outcome = Literal["done", "skipped", "failed", "damaged", "quarantined", "stopped"]

RELEASE = "_release"
"""Field part of a unit at release scope; no field may have this name."""
FIELD_TILE = "field"
"""Tile part of a unit at field scope."""
RELEASE_TILE = "release"
"""Tile part of a unit at release scope."""


@dataclass(frozen=True)
class Job:
    """One unit to do now, with its key and what makes it."""

    unit: Unit
    key: str
    made_by: Mapping[str, Any]


@dataclass(frozen=True)
class StageWork:
    """All that a worker must know of a stage; small and picklable.

    Attributes
    ----------
    out : str
        Folder or URL of the release.
    spec : StageSpec
        The stage.
    options : mapping
        Its options as plain values: their class is of the plugin, which only `worker` imports.
    reads : mapping
        Product read here to the name and scope of the stage that writes it.
    core, halo : int
        The tiling, in pixels.
    seed : int
        Of the release.
    retries : int
        Further attempts after a failed read or write.
    provider : tuple of str
        Distribution, its version and the plugin that the stage comes from; empty for a built-in one.
    allow : tuple of str or None
        Plugins that the release allows.
    limit : float or None
        Seconds that `Stage.run` may take for one unit.
    lease : str
        The run that this is done for; a worker writes nothing once another has taken over.
    lease_seconds : float
        How long a lease holds.
    """

    out: str
    spec: StageSpec
    options: Mapping[str, Any]
    reads: Mapping[str, tuple[str, Scope]]
    core: int
    halo: int
    seed: int
    retries: int
    provider: tuple[str, str, str] | tuple[()] = ()
    allow: tuple[str, ...] | None = None
    limit: float | None = None
    lease: str = ""
    lease_seconds: float = 60.0

    @property
    def distribution(self) -> tuple[str, str]:
        """Name and version of the distribution whose code the stage is."""
        return self.provider[:2] if self.provider else ("survey-ml", __version__)


@dataclass(frozen=True)
class Result:
    """What became of one unit.

    Attributes
    ----------
    outcome : str
        ``done`` (committed now), ``skipped`` (was committed already), ``failed`` (set aside),
        ``damaged`` (an input is damaged: `culprit` must be made again first), ``quarantined``, or
        ``stopped`` (the store takes no more: the run must end).
    seconds : float
        Wall time in the worker.
    timings : mapping
        The same split in ``read``, ``run`` and ``commit``.
    logs : tuple of mapping
        What the unit logged, warned and printed; see `survey_ml.engine.records`.
    worker : str
        Host and process id of the worker, as ``host:pid``.
    written : int
        Bytes committed now.
    memory, peak : int
        Bytes that the worker held when the unit ended, and at most so far.
    whole : bool
        The whole field must be set aside, not this unit alone.
    """

    unit: Unit
    outcome: Outcome
    seconds: float = 0.0
    cause: str = ""
    hint: str = ""
    culprit: Unit | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    logs: tuple[Mapping[str, Any], ...] = ()
    worker: str = ""
    written: int = 0
    memory: int = 0
    peak: int = 0
    whole: bool = False

    def set_aside(self) -> SetAside:
        """Describe a unit that was not done."""
        where = "" if self.unit.field == RELEASE else self.unit.field
        return SetAside(where, self.cause, self.hint, self.unit.tile, self.unit.stage)


Report = Callable[[Result], None]
"""Called once for every unit, as soon as it is known what became of it; from any thread."""


class Executor(Protocol):
    """Something that does the units of one stage; returns when all are reported."""

    name: str

    def prepare(self, work: StageWork, count: int) -> None:
        """Get ready for ``count`` units of a stage; called before `run`, from one thread."""

    def run(self, work: StageWork, jobs: Sequence[Job], report: Report) -> None:
        """Do the jobs.

        Raises
        ------
        SurveyMLError
            When the run cannot go on at all.
        """

    def close(self) -> None:
        """Free what the executor holds; it is not used again."""
