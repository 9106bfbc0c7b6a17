"""Images that arrive in a folder or bucket: whole or still being written, new or known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from survey_ml.config import FieldOverride, LoadedConfig
from survey_ml.data.bucket import open_files
from survey_ml.data.failures import describe_failure
from survey_ml.data.inputs import SUFFIXES, Candidate, list_candidates
from survey_ml.data.stamps import digest_file, stamp_file
from survey_ml.data.stored_json import Kinds, decode_object, has_kinds
from survey_ml.errors import SetAside, StoreError
from survey_ml.hookspecs import ReaderSpec

if TYPE_CHECKING:
    from survey_ml.data.bucket import Bucket
    from survey_ml.data.disk import Disk

TAKEN = "taken.json"
_ENTRY_KINDS: Kinds = {"stamp": dict, "sha256": str, "field": str}
BLOCK, CARD = 2880, 80
_PLAIN = (".fits", ".fit")
_MOST_BLOCKS = 10_000
"""Header blocks read at most: a file whose header never ends is none."""
_ANSWER = "Check the address in `fields`, and that the store answers."


@dataclass(frozen=True)
class Arrival:
    """An image that is there now.

    Attributes
    ----------
    candidate : Candidate
        Path, field and what the configuration says of it.
    stamp : dict
        Size and time, or ETag.
    """

    candidate: Candidate
    stamp: dict[str, Any]

    @property
    def entry(self) -> FieldOverride:
        """The entry of `fields` that names this image and no other."""
        path = self.candidate.path
        given = self.candidate.defaults.model_dump()
        return FieldOverride(path=path if "://" in path else escape(path), name=self.candidate.name, **given)


def find_arrivals(
    config: LoadedConfig, readers: Sequence[ReaderSpec] = ()
) -> tuple[dict[str, Arrival], list[SetAside]]:
    """Find the images that `fields` matches now; no pixel is read.

    Returns
    -------
    found : dict of str to Arrival
        By path.
    aside : list of SetAside
        What is there and can be no image. Entries that find nothing are none of these: their images
        may yet come.

    Raises
    ------
    StoreError
        When a place does not answer. What cannot be seen has not gone: images that were taken there
        must stay in the release.
    """
    listing = list_candidates(config, readers)
    if listing.unlisted:
        raise StoreError(listing.unlisted[0].cause, _ANSWER)
    found: dict[str, Arrival] = {}
    aside = list(listing.unfit)
    for candidate in listing.candidates:
        try:
            found[candidate.path] = Arrival(candidate, stamp_file(candidate.path))
        except FileNotFoundError:
            continue  # gone again, or a link to what is not there yet
        except Exception as error:
            failure = describe_failure(error, candidate.path, "look at")
            if "://" in candidate.path:
                raise StoreError(failure.message, _ANSWER) from error
            aside.append(SetAside(candidate.name, failure.message, "Leave it out, or mend the link or path."))
    return found, aside


def is_complete(path: str) -> bool:
    """Tell whether a FITS file is begun and has the length that its headers announce.

    Where a writer sets the length first, a file is zeros until it is begun. Of the length of compressed
    files nothing is known, of other formats nothing at all; they count as complete.
    """
    name = path.lower()
    if not name.endswith(SUFFIXES):
        return True
    try:
        return _is_begun(path) and (not name.endswith(_PLAIN) or _missing_bytes(path) <= 0)
    except OSError:
        return False


def _open(path: str) -> tuple[IO[bytes], int]:
    """Open a file or object, and return its size with it."""
    if "://" in path:
        files, inner = open_files(path)
        return files.open(inner, "rb"), int(files.info(inner)["size"])
    return Path(path).open("rb"), Path(path).stat().st_size


def _is_begun(path: str) -> bool:
    with _open(path)[0] as file:
        return any(file.read(BLOCK))


def _missing_bytes(path: str) -> int:
    """Return how many bytes of the announced ones are not there; padding at the end may lack."""
    opened, size = _open(path)
    with opened as file:
        start = 0
        while start < size:
            file.seek(start)
            cards: dict[str, str] = {}
            for _ in range(_MOST_BLOCKS):
                block = file.read(BLOCK)
                start += BLOCK
                if len(block) < BLOCK:
                    return BLOCK - len(block)
                lines = [block[i : i + CARD].decode("latin-1") for i in range(0, BLOCK, CARD)]
                if not cards and not lines[0].startswith(("SIMPLE", "XTENSION")):
                    # Whatever follows the last HDU, or no FITS at all: nothing to wait for.
                    return 0
                for line in lines:
                    if line[8:10] == "= ":
                        cards.setdefault(line[:8].strip(), line[10:].partition("/")[0].strip())
                if any(line.strip() == "END" for line in lines):
                    break
            length = _data_length(cards)
            if start + length > size:
                return start + length - size
            start += -(-length // BLOCK) * BLOCK
    return 0 if start else 1


def _data_length(cards: dict[str, str]) -> int:
    """Return the bytes of an HDU's data (FITS standard 4.0, equation 2)."""
    try:
        axes = [int(cards[f"NAXIS{i + 1}"]) for i in range(int(cards.get("NAXIS", 0)))]
        if not axes:
            return 0
        if axes[0] == 0 and cards.get("GROUPS") == "T":
            axes = axes[1:]
        pixels = 1
        for axis in axes:
            pixels *= axis
        groups, extra = int(cards.get("GCOUNT", 1)), int(cards.get("PCOUNT", 0))
        return abs(int(cards.get("BITPIX", 8))) // 8 * groups * (extra + pixels)
    except (KeyError, ValueError):
        # A header that makes no sense is the reader's to judge: waiting does not mend it.
        return 0


class Manifest:
    """``taken.json``: what was taken, with its checksum; and what was not, being known already.

    Parameters
    ----------
    medium : Disk or Bucket
        The release.
    """

    def __init__(self, medium: Disk | Bucket) -> None:
        self._medium = medium
        found = decode_object(medium.read(TAKEN)) or {}
        # An image of which it says nothing readable is taken once more, which does nothing twice.
        self.entries: dict[str, dict[str, Any]] = {
            path: entry for path, entry in found.items() if has_kinds(entry, _ENTRY_KINDS)
        }

    def knows(self, arrival: Arrival) -> bool:
        """Tell whether an image was seen to in this state."""
        held = self.entries.get(arrival.candidate.path)
        return held is not None and held.get("stamp") == arrival.stamp

    def same_as(self, path: str) -> str:
        """Return the image that has the same content as this one, if it is for this that it was left."""
        return str(self.entries.get(path, {}).get("same_as", ""))

    def note(self, arrival: Arrival, present: Sequence[str]) -> str:
        """Note an image with its checksum.

        Parameters
        ----------
        arrival : Arrival
            The image.
        present : sequence of str
            Paths of all that is there: an image that was renamed is no copy.

        Returns
        -------
        str
            Path of a taken image with the same content; empty when there is none.
        """
        path, digest = arrival.candidate.path, digest_file(arrival.candidate.path)
        same = [
            other
            for other in sorted(self.entries)
            if other != path and other in present and self.entries[other].get("sha256") == digest
        ]
        twins = [other for other in same if not self.same_as(other)]
        entry = {"stamp": arrival.stamp, "sha256": digest, "field": arrival.candidate.name}
        self.entries[path] = entry | ({"same_as": twins[0]} if twins else {})
        return twins[0] if twins else ""

    def save(self) -> None:
        """Write it."""
        self._medium.replace(TAKEN, (json.dumps(self.entries, indent=1, sort_keys=True) + "\n").encode())
