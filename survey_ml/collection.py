"""How often Python looks for garbage in cycles.

Importing and loading compiled code makes some hundred thousand objects that all stay; looking
through them again and again took a tenth of the CPU time of a short run. What is large here, arrays,
is in no cycle and goes as soon as its last reference does.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = 200_000
"""New objects between two looks, in place of Python's 700."""


@contextmanager
def collect_seldom() -> Iterator[None]:
    """Look for garbage seldom inside a ``with`` block."""
    before = gc.get_threshold()
    if before[0]:  # zero means that somebody has switched it off
        gc.set_threshold(SELDOM, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
