"""Keep secrets out of what is written down."""

from __future__ import annotations

import os
import re
from functools import lru_cache

_NAMES = ("KEY", "SECRET", "TOKEN", "PASSWORD")
_SHORTEST = 6
"""Characters of a value that is masked: ``1`` or ``true`` would make every message unreadable."""
_IN_URL = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
MASK = "***"


def mask(text: str) -> str:
    """Return a text with the values of secrets replaced by ``***``.

    Secrets are the values of environment variables whose names contain KEY, SECRET, TOKEN or
    PASSWORD, of six characters at least, and user and password in a URL.
    """
    values = frozenset(
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and any(word in name.upper() for word in _NAMES)
    )
    pattern = _compile(values)
    if pattern is not None:
        text = pattern.sub(MASK, text)
    return _IN_URL.sub(MASK, text) if "://" in text else text


@lru_cache(maxsize=8)
def _compile(values: frozenset[str]) -> re.Pattern[str] | None:
    # The longest first: one secret may be the beginning of another.
    words = sorted(values, key=lambda value: (-len(value), value))
    return re.compile("|".join(map(re.escape, words))) if words else None
