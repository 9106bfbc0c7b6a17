"""What input files hold, by checksum, and whether they still do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from survey_ml.data.bucket import open_files
from survey_ml.data.failures import describe_failure
from survey_ml.data.source import Source
from survey_ml.data.store import INPUTS, ReleaseStore
from survey_ml.errors import ChangedError, InputError


def stamp_file(path: str) -> dict[str, Any]:
    """Return what changes when a file changes, without reading it."""
    if "://" in path:
        files, inner = open_files(path)
        info = files.info(inner)
        changed = info.get("ETag") or info.get("LastModified") or info.get("mtime") or ""
        return {"size": int(info["size"]), "changed": str(changed)}
    state = Path(path).stat()
    # The time of change, too: copying tools put the time of modification back.
    return {"size": state.st_size, "changed": f"{state.st_mtime_ns} {state.st_ctime_ns}"}


def digest_file(path: str) -> str:
    """Return the SHA-256 of an input file."""
    if "://" not in path:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    files, inner = open_files(path)
    with files.open(inner, "rb") as remote:
        while block := remote.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def hash_input(source: Source, store: ReleaseStore) -> str:
    """Return the SHA-256 of an input file, reading it only if its size or time changed.

    Call it from one process only: the checksums are kept in ``inputs.json`` of the release.

    Parameters
    ----------
    source : Source
        The input.
    store : ReleaseStore
        Where the checksum is remembered.

    Raises
    ------
    InputError
        When the file cannot be read, or changed since its header was.
    """
    known = store.checksums
    try:
        stamp = source.stamp or stamp_file(source.path)
        held = known.get(source.path)
        if held is not None and {"size": held["size"], "changed": held["changed"]} == stamp:
            return str(held["sha256"])
        digest = digest_file(source.path)
        if stamp_file(source.path) != stamp:
            raise _tell_changed(source)
    except OSError as error:
        failure = describe_failure(error, source.path, "read")
        raise InputError(failure.message, "Put the file back.", field=source.field.name) from error
    known[source.path] = {**stamp, "sha256": digest}
    # A cache: losing it in a crash costs reading the inputs once more.
    store.medium.replace(INPUTS, json.dumps(known, indent=0, sort_keys=True).encode(), durable=False)
    return digest


class Unchanged:
    """Knows which input files are still those that their checksums were taken of.

    Parameters
    ----------
    store : ReleaseStore
        The release, for size and time when the checksums were taken.
    """

    def __init__(self, store: ReleaseStore) -> None:
        self._store = store
        self._known: dict[str, tuple[str, Mapping[str, Any], bool]] = {}
        """Path to the checksum wanted of a file of some size and time, and whether it has it."""

    def check(self, source: Source, sha256: str) -> None:
        """Compare a file's size and time with those it had; what it holds, too, if they differ.

        A backup that makes links, or a change of the owner, changes the time of a file only.

        Parameters
        ----------
        source : Source
            The input, some of which was just read.
        sha256 : str
            What the file must hold.

        Raises
        ------
        ChangedError
            When it holds something else.
        OSError
            When it cannot be read.
        """
        stamp = stamp_file(source.path)
        *asked, good = self._known.get(source.path, ("", {}, False))
        if asked != [sha256, stamp]:
            good = self._is_noted(source.path, {**stamp, "sha256": sha256}) or (
                digest_file(source.path) == sha256 and stamp_file(source.path) == stamp
            )
            self._known[source.path] = (sha256, stamp, good)
        if not good:
            raise _tell_changed(source)

    def _is_noted(self, path: str, wanted: Mapping[str, Any]) -> bool:
        if self._store.checksums.get(path) == wanted:
            return True
        # It may have been noted since this process opened the release.
        return ReleaseStore.open(self._store.out).checksums.get(path) == wanted


def _tell_changed(source: Source) -> ChangedError:
    return ChangedError(
        f"{source.path} was changed while it was read",
        "Run the same command again when nothing writes to it.",
        field=source.field.name,
    )
