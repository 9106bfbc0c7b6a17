"""JSON objects that a release keeps and reads back: whole and of the types expected, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Kinds = Mapping[str, type | tuple[type, ...]]
"""Members that an object must have, and the type or types of each."""


def has_kinds(value: Any, kinds: Kinds) -> bool:
    """Tell whether a value is an object whose members are there and of the types given.

    Types are compared exactly: JSON's ``true`` is no number.
    """
    if not isinstance(value, dict) or not kinds.keys() <= value.keys():
        return False
    return all(
        type(value[name]) in (kind if isinstance(kind, tuple) else (kind,)) for name, kind in kinds.items()
    )


def decode_object(data: bytes | None, kinds: Kinds | None = None) -> dict[str, Any] | None:
    """Read a JSON object.

    Parameters
    ----------
    data : bytes or None
        What was stored; None where nothing was.
    kinds : mapping, optional
        Members that it must have.

    Returns
    -------
    dict or None
        None where the bytes hold anything else: cut off, damaged, or edited by hand.
    """
    try:
        # Brackets without end exhaust the stack.
        found = json.loads(data or b"")
    except (ValueError, RecursionError):
        return None
    return found if has_kinds(found, kinds or {}) else None
