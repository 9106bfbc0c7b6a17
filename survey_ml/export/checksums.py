"""SHA256SUMS of what a user downloads, as `sha256sum -c` reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from survey_ml.data.store import ReleaseStore

NAME = "SHA256SUMS"
_ALONE = ("report.html",)


def write_checksums(store: ReleaseStore, folder: str = "catalogue") -> None:
    """Write ``SHA256SUMS`` for the files of the catalogue and the report.

    Parameters
    ----------
    store : ReleaseStore
        The release.
    folder : str
        The catalogue's folder in it, with its ``_COMMIT.json``.
    """
    from survey_ml.export.bundle import read_marker

    marker = read_marker(store)
    sums = {f"{folder}/{name}": known["sha256"] for name, known in (marker or {}).get("files", {}).items()}
    for name in _ALONE:
        digest = store.medium.digest(name)
        if digest is not None:
            sums[name] = digest
    text = "".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items()))
    store.medium.replace(NAME, text.encode())
