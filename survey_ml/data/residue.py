"""What interrupted runs leave in a release: found, told, and taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from survey_ml.data.disk import ASIDE, MARKER, Disk
from survey_ml.data.lease import LEASE, SECONDS, hold_lease, read_holder

if TYPE_CHECKING:
    from survey_ml.data.store import ReleaseStore

PROBE = ".probe"


@dataclass(frozen=True, order=True)
class Item:
    """Something that a release can do without.

    Attributes
    ----------
    path : str
        File, folder or prefix in the release.
    size : int
        Bytes of all in it.
    what : str
        Why it is not needed.
    """

    path: str
    size: int
    what: str


def list_residue(store: ReleaseStore) -> list[Item]:
    """Find what killed writers left; only what no reader ever looks at.

    On a file system that is what lies aside. On an object store nothing does: there it is the
    prefix of a unit without a marker, which its writer did not come to write.
    """
    medium = store.medium
    if isinstance(medium, Disk):
        what = "written aside by a run that was interrupted"
        return [
            Item(path, sum(size for _, size in medium.walk_files(path)), what) for path in medium.list_aside()
        ]
    sizes: dict[str, int] = {}
    marked: set[str] = set()
    for path, size in medium.walk_files("units"):
        parts = path.split("/")
        if len(parts) < 6:
            continue
        folder = "/".join(parts[:5])
        sizes[folder] = sizes.get(folder, 0) + size
        if parts[5] == MARKER:
            marked.add(folder)
    found = [Item(f, n, "a unit without its marker") for f, n in sizes.items() if f not in marked]
    probe = medium.measure([PROBE])[PROBE]
    if probe is not None:
        found.append(Item(PROBE, probe, "a trial whether the place can be written"))
    return sorted(found)


def sweep(
    store: ReleaseStore, tell: Callable[[Sequence[Item]], None], seconds: float = SECONDS
) -> list[Item]:
    """Remove what interrupted runs left, and the lease of one that is dead.

    Parameters
    ----------
    store : ReleaseStore
        The release.
    tell : callable
        Is given the list before anything is removed.
    seconds : float
        How long a lease holds.

    Returns
    -------
    list of Item
        What was removed.

    Raises
    ------
    LeaseError
        When somebody is at work on the release; then nothing is removed.
    """
    holder = read_holder(store.medium)
    with hold_lease(store.medium, seconds) as lease:
        found = list_residue(store)
        if holder is not None:
            # It was given to us, so it was nobody's.
            found.insert(0, Item(LEASE, len(holder.encode()), f"the lease of {holder}, which is gone"))
        tell(found)
        for item in found:
            lease.check()
            if item.path != LEASE:
                store.medium.remove(item.path)
    return found


def measure_folders(files: Iterable[tuple[str, int]], folders: Iterable[str]) -> dict[str, int]:
    """Sum up the sizes of files by the folder or file that each belongs to.

    Parameters
    ----------
    files : iterable of (path, size)
        What there is.
    folders : iterable of str
        None of them inside another.
    """
    sums = dict.fromkeys(folders, 0)
    for path, size in files:
        here = path
        while here and here not in sums:
            here = here.rpartition("/")[0]
        if here:
            sums[here] += size
    return sums


def is_aside(path: str) -> bool:
    """Tell whether a path lies aside: then it is none of the release's."""
    return any(part.startswith(ASIDE) for part in path.split("/"))
