"""What is on disk, read once: commits and quarantine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import TYPE_CHECKING, Any

from survey_ml.data.commit import Commit, Unit, check_commit, list_quarantine, walk_commits
from survey_ml.errors import SetAside
from survey_ml.graph import INGEST

if TYPE_CHECKING:
    from survey_ml.data.store import ReleaseStore


@dataclass(frozen=True, slots=True)
class Entry:
    """What a run must know of a commit: a release has many, and the driver holds one of each.

    Attributes
    ----------
    key : str
        Of the commit.
    made_by : mapping
        What went into the key; one object for all tiles that were made alike.
    wrong : str
        What is wrong with its files by name and size; empty when all is well.
    seconds, cpu_seconds, peak_memory
        What it took, and the most bytes that its worker held.
    distribution : tuple of str
        Name and version of the distribution whose stage made it; empty where the commit does not tell.
    counts : mapping or None
        Pixels that ingest counted.
    """

    key: str
    made_by: Mapping[str, Any]
    wrong: str
    seconds: float
    cpu_seconds: float
    peak_memory: int
    distribution: tuple[str, str] = ("", "")
    counts: Mapping[str, int] | None = None

    @classmethod
    def of(cls, store: ReleaseStore, commit: Commit) -> Entry:
        """Look at the files of a commit, and keep the little that is needed of it."""
        info = commit.info
        return cls(
            commit.key,
            commit.made_by,
            check_commit(store, commit),
            float(info.get("seconds", 0.0)),
            float(info.get("cpu_seconds", 0.0)),
            int(info.get("peak_memory_bytes", 0)),
            # The same few names in every commit.
            (intern(info.get("distribution", "")), intern(info.get("distribution_version", ""))),
            commit.summaries.get(INGEST) if commit.unit.stage == INGEST else None,
        )


@dataclass
class Ledger:
    """A picture of a release's commits at one moment; empty for a release that is not there yet."""

    store: ReleaseStore | None = None
    commits: dict[Unit, Entry] = field(default_factory=dict)
    quarantined: Mapping[Unit, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, store: ReleaseStore | None) -> Ledger:
        """Read all markers of a release, and look whether their files are there."""
        if store is None:
            return cls()
        return cls(store, _read_entries(store), list_quarantine(store))

    def check_field(self, name: str, units: Sequence[Unit]) -> SetAside | None:
        """Judge an ingested field by the pixel counts of its tiles."""
        from survey_ml.data.ingest import check_field

        return check_field(name, [dict(self.commits[unit].counts or {}) for unit in units])

    def reread(self, stage: str) -> Ledger:
        """Return a newer picture, in which the commits of one stage and the quarantine are read again."""
        if self.store is None:
            return self
        kept = {unit: entry for unit, entry in self.commits.items() if unit.stage != stage}
        kept.update(_read_entries(self.store, stage))
        return Ledger(self.store, kept, list_quarantine(self.store))


def _read_entries(store: ReleaseStore, stage: str | None = None) -> dict[Unit, Entry]:
    return {commit.unit: Entry.of(store, commit) for commit in walk_commits(store, stage=stage)}
