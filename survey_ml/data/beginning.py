"""The beginning of a run: what was in its folder before, so that one that is refused leaves no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from survey_ml.data.release import SCOPE
from survey_ml.data.store import ARRAYS, INPUTS, RELEASE

if TYPE_CHECKING:
    from survey_ml.data.bucket import Bucket
    from survey_ml.data.disk import Disk

_WORK = ("units", "quarantine")
_RECORDS = (RELEASE, SCOPE, INPUTS, ARRAYS, "logs")


class Beginning:
    """What a folder or prefix held before a run wrote to it.

    Parameters
    ----------
    medium : Disk or Bucket
        The release, which can be written.
    """

    def __init__(self, medium: Disk | Bucket) -> None:
        self._medium = medium
        self._before = frozenset(medium.list_folder(""))

    @property
    def is_new(self) -> bool:
        """Whether there was no release yet."""
        return RELEASE not in self._before

    def withdraw(self) -> None:
        """Take away the records of a release that is new and has come to no work.

        Call it while the lease is held: they are nobody else's.
        """
        if not self.is_new or any(self._medium.list_folder(name) for name in _WORK):
            return
        for name in _RECORDS:
            if name not in self._before:
                self._medium.remove(name)
