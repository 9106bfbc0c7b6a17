"""What is on disk, read once: commits and quarantine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from survey_ml.data.commit import Commit, Unit, check_commit, list_commits, list_quarantine
from survey_ml.errors import SetAside
from survey_ml.graph import INGEST

if TYPE_CHECKING:
    from survey_ml.data.store import ReleaseStore


@dataclass
class Ledger:
    """A picture of a release's commits at one moment; empty for a release that is not there yet."""

    store: ReleaseStore | None = None
    commits: Mapping[Unit, Commit] = field(default_factory=dict)
    quarantined: Mapping[Unit, Mapping[str, Any]] = field(default_factory=dict)
    _sound: set[tuple[Unit, str]] = field(default_factory=set)
    """Commits whose files were looked at in this run; a run plans many times."""

    @classmethod
    def read(cls, store: ReleaseStore | None) -> Ledger:
        """Read all markers of a release."""
        if store is None:
            return cls()
        return cls(store, list_commits(store), list_quarantine(store))

    def check(self, commit: Commit) -> str:
        """Say what is wrong with the files of a commit by name and size; empty when all is well."""
        if self.store is None or (commit.unit, commit.key) in self._sound:
            return ""
        wrong = check_commit(self.store, commit)
        if not wrong:
            self._sound.add((commit.unit, commit.key))
        return wrong

    def check_field(self, name: str, units: Sequence[Unit]) -> SetAside | None:
        """Judge an ingested field by the pixel counts of its tiles."""
        from survey_ml.data.ingest import check_field

        return check_field(name, [dict(self.commits[unit].summaries[INGEST]) for unit in units])

    def reread(self, stage: str) -> Ledger:
        """Return a newer picture, in which the commits of one stage and the quarantine are read again."""
        if self.store is None:
            return self
        kept = {unit: commit for unit, commit in self.commits.items() if unit.stage != stage}
        kept.update(list_commits(self.store, stage=stage))
        return Ledger(self.store, kept, list_quarantine(self.store), self._sound)
