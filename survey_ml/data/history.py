"""What runs of a release found one after the other: entries that are added and never changed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from survey_ml.data.stored_json import decode_object

if TYPE_CHECKING:
    from survey_ml.data.store import ReleaseStore

logger = logging.getLogger(__name__)

FOLDER = "history"


def append_entry(store: ReleaseStore, name: str, entry: Mapping[str, Any], *, when: str) -> bool:
    """Add an entry to a history, unless it says what the last one does.

    Each entry is a file of its own that is written whole: what an earlier run left is never opened for
    writing, on a disk or an object store.

    Parameters
    ----------
    store : ReleaseStore
        Held by this run alone.
    name : str
        Of the history.
    entry : mapping
        As JSON can hold it.
    when : str
        Time, ISO 8601; not compared.

    Returns
    -------
    bool
        Whether it was added.
    """
    numbers = _list_numbers(store, name)
    said = json.loads(json.dumps(entry, sort_keys=True))
    if numbers:
        last = decode_object(store.medium.read(_place(name, numbers[-1])), {"entry": dict})
        if last is not None and last["entry"] == said:
            return False
    number = numbers[-1] + 1 if numbers else 1
    data = json.dumps({"number": number, "when": when, "entry": said}, indent=1)
    store.medium.replace(_place(name, number), f"{data}\n".encode())
    return True


def read_history(store: ReleaseStore, name: str) -> list[dict[str, Any]]:
    """Return the entries of a history, the oldest first: ``number``, ``when`` and ``entry``.

    One that cannot be read is left out with a warning: the others are still what was found then.
    """
    found = []
    for number in _list_numbers(store, name):
        one = decode_object(
            store.medium.read(_place(name, number)), {"number": int, "when": str, "entry": dict}
        )
        if one is None:
            logger.warning("%s is damaged and left out", store.medium.locate(_place(name, number)))
            continue
        found.append(one)
    return found


def _place(name: str, number: int) -> str:
    return f"{FOLDER}/{name}/{number:06d}.json"


def _list_numbers(store: ReleaseStore, name: str) -> list[int]:
    names = (path.rpartition("/")[2] for path, _ in store.medium.walk_files(f"{FOLDER}/{name}"))
    stems = (one.removesuffix(".json") for one in names if one.endswith(".json"))
    return sorted(int(stem) for stem in stems if stem.isdecimal())
