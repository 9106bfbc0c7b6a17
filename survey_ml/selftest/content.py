"""What a release holds, as text and checksums that can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from survey_ml.data.commit import list_commits
from survey_ml.data.disk import MARKER
from survey_ml.data.store import ReleaseStore
from survey_ml.data.tables import read_parquet_bytes

Markers = Mapping[str, str]
"""Path of each commit, ``FIELD/STAGE/TILE/KEY``, to a hash of its marker.

A marker tells when and by whom, to the microsecond, so that a unit made again has another hash."""


def count_markers(out: str) -> int:
    """Return the number of commits; cheap enough to be asked several times a second."""
    return sum(path.endswith(f"/{MARKER}") for path, _ in ReleaseStore.open(out).medium.walk_files("units"))


def read_markers(out: str) -> dict[str, str]:
    """Return what is committed now."""
    markers = {}
    for place, data in ReleaseStore.open(out).medium.walk_markers():
        markers["/".join(place)] = hashlib.sha256(data).hexdigest()
    return markers


@dataclass
class Content:
    """A release.

    Attributes
    ----------
    markers : mapping
        See `Markers`.
    files : dict
        Path of each committed file to its SHA-256 as stored now.
    summaries : dict
        Commit to what it says of its summaries.
    tables : dict
        Name of each table of the catalogue to its rows as text, in which every float is exact and
        not-a-number equals itself; the first is the schema.
    sums : dict
        Name of each file of the catalogue to its SHA-256.
    wrong : list of str
        Committed files that are not what was committed.
    """

    markers: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def read_content(out: str) -> Content:
    """Read a release as it is stored now."""
    store = ReleaseStore.open(out)
    found = Content(markers=read_markers(out))
    for unit, commit in list_commits(store).items():
        found.summaries[f"{unit.folder}/{commit.key}"] = repr(sorted(commit.summaries.items()))
        for path, sealed in commit.files.items():
            digest = store.medium.digest(path) or "missing"
            found.files[path] = digest
            if digest != sealed["sha256"]:
                found.wrong.append(path)
    for name in store.medium.list_folder("catalogue"):
        path = f"catalogue/{name}"
        found.sums[name] = store.medium.digest(path) or "missing"
        if name.endswith(".parquet"):
            table = read_parquet_bytes(store.medium.read(path) or b"")
            schema = ", ".join(f"{f.name}: {f.type}" for f in table.schema)
            found.tables[name] = [schema, *map(repr, table.to_pylist())]
    return found


def compare(reference: Content, found: Content) -> list[str]:
    """Say how a release differs from one that was left alone; empty when it does not."""
    said = []
    for name in sorted(reference.tables.keys() | found.tables.keys()):
        one, other = reference.tables.get(name, []), found.tables.get(name, [])
        if differ := sum(a != b for a, b in zip_longest(one, other)):
            said.append(f"{differ} of {max(len(one), 1) - 1} rows of catalogue/{name} differ")
    wanted, there = set(reference.markers), set(found.markers)
    said += _name("lost", wanted - there) + _name("not in the reference", there - wanted)
    units = [path.rpartition("/")[0] for path in found.markers]
    said += _name("committed twice", {unit for unit in units if units.count(unit) > 1})
    said += _name("damaged", set(found.wrong))
    for what in ("files", "summaries", "sums"):
        one, other = getattr(reference, what), getattr(found, what)
        said += _name(
            f"other bytes in {what}", {k for k in one.keys() | other.keys() if one.get(k) != other.get(k)}
        )
    return said


def find_remade(before: Markers, after: Markers, spoiled: set[str]) -> list[str]:
    """Return the commits that were made again though nothing was wrong with them."""
    return sorted(path for path, mark in before.items() if after.get(path) != mark and path not in spoiled)


def _name(what: str, paths: set[str]) -> list[str]:
    names = sorted(paths)
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return [f"{what}: {', '.join(names[:2])}{more}"] if names else []
