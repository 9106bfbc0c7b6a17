"""What vouches for the catalogue: a marker in its folder, and SHA256SUMS for those who download it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from survey_ml.data.stored_json import decode_object, has_kinds

if TYPE_CHECKING:
    from survey_ml.data.store import ReleaseStore

FOLDER = "catalogue"
MARKER = "_COMMIT.json"
SUMS = "SHA256SUMS"
_ALONE = ("report.html",)
_DIGEST = re.compile("[0-9a-f]{64}")


def write_checksums(store: ReleaseStore) -> None:
    """Write ``SHA256SUMS``, as ``sha256sum -c`` reads it, for the catalogue's files and the report."""
    marker = read_marker(store) or {"files": {}}
    sums = {f"{FOLDER}/{name}": known["sha256"] for name, known in marker["files"].items()}
    for name in _ALONE:
        digest = store.medium.digest(name)
        if digest is not None:
            sums[name] = digest
    text = "".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items()))
    store.medium.replace(SUMS, text.encode())


def read_checksums(store: ReleaseStore) -> tuple[dict[str, str], list[str]]:
    """Read ``SHA256SUMS`` back.

    Returns
    -------
    sums : dict
        Path in the release to SHA-256; empty when nothing has been published.
    faults : list of str
        Lines that survey_ml does not write. What they name is not looked at, nor removed: it may be
        anywhere.
    """
    sums: dict[str, str] = {}
    faults: list[str] = []
    text = (store.medium.read(SUMS) or b"").decode(errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        digest, _, path = line.partition("  ")
        ours = path in _ALONE or (path.startswith(f"{FOLDER}/") and ".." not in path.split("/"))
        if ours and _DIGEST.fullmatch(digest):
            sums[path] = digest
        else:
            faults.append(f"line {number} of {SUMS} is no checksum of this release")
    return sums, faults


def list_unsummed(store: ReleaseStore, sums: Collection[str]) -> list[str]:
    """Return the files of the catalogue, sorted, that no checksum vouches for; see `read_checksums`.

    The marker is none of them: it holds checksums, and one that is damaged is written anew.
    """
    found = {path for path, _ in store.medium.walk_files(FOLDER)} | {
        name for name in _ALONE if store.medium.measure([name])[name] is not None
    }
    return sorted(found - set(sums) - {f"{FOLDER}/{MARKER}"})


def read_marker(store: ReleaseStore) -> dict[str, Any] | None:
    """Return what the catalogue in place was made of; None when there is none or it cannot be read."""
    marker = decode_object(store.medium.read(f"{FOLDER}/{MARKER}"), {"digest": str, "files": dict})
    if marker is None:
        return None
    whole = all(has_kinds(known, {"sha256": str, "size": int}) for known in marker["files"].values())
    return marker if whole else None


def is_whole(store: ReleaseStore, marker: dict[str, Any]) -> bool:
    """Tell whether all files of the catalogue are there, with the sizes they were written with."""
    sizes = store.medium.measure([f"{FOLDER}/{name}" for name in marker["files"]])
    return list(sizes.values()) == [known["size"] for known in marker["files"].values()]


def is_sealed(store: ReleaseStore, marker: dict[str, Any], name: str) -> bool:
    """Tell whether a file of the catalogue has the bytes that it was written with."""
    return bool(store.medium.digest(f"{FOLDER}/{name}") == marker["files"][name]["sha256"])


def list_files(folder: Path) -> list[str]:
    """Return the paths of all files under a folder, relative to it, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def seal_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file, and make them durable."""
    sealed = {}
    for name in list_files(folder):
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            sealed[name] = {"sha256": digest, "size": os.fstat(file.fileno()).st_size}
    return sealed


def write_marker(folder: Path, marker: dict[str, Any]) -> None:
    """Write the marker of a folder whose files are all there."""
    with (folder / MARKER).open("w") as file:
        json.dump(marker, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
