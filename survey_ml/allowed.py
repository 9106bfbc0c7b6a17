"""Which installed plugins may be used: decided by name, before any of them is imported."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from survey_ml.hookspecs import GROUP

ONLY = "SURVEY_ML_PLUGINS"
"""Comma-separated plugin or distribution names to load; empty loads none but the built-in."""
ALLOW = "plugins.allow"
"""Key of the release YAML that does the same for one release."""


@dataclass(frozen=True)
class NotAllowed:
    """An installed plugin that is left alone, and which list leaves it out."""

    name: str
    distribution: str
    version: str
    cause: str


@dataclass(frozen=True)
class Selection:
    """What installed plugins come to.

    Attributes
    ----------
    chosen : tuple of EntryPoint
        To load, sorted by distribution and name.
    not_allowed : tuple of NotAllowed
        Installed, and not to be imported.
    missing : tuple of (str, str)
        Names in a list that nobody has, and the list.
    """

    chosen: tuple[EntryPoint, ...]
    not_allowed: tuple[NotAllowed, ...]
    missing: tuple[tuple[str, str], ...]


_release: tuple[str, ...] | None = None


def release_list() -> tuple[str, ...] | None:
    """Return the names that the release being worked on allows; None when it allows all."""
    return _release


def set_release_list(names: Sequence[str] | None) -> None:
    """Allow these names from now on, in this process; None allows all. Workers call it once."""
    global _release
    _release = None if names is None else tuple(names)


@contextlib.contextmanager
def allowing(names: Sequence[str] | None) -> Iterator[None]:
    """Allow only the plugins of a release while the context lasts, in the whole process.

    Parameters
    ----------
    names : sequence of str or None
        Plugin or distribution names, as under ``plugins.allow``; None allows all that is installed.
    """
    before = release_list()
    set_release_list(names)
    try:
        yield
    finally:
        set_release_list(before)


def operator_list() -> tuple[str, ...] | None:
    """Return the names in ``SURVEY_ML_PLUGINS``; None when it is not set."""
    return split_names(os.environ.get(ONLY))


def split_names(text: str | None) -> tuple[str, ...] | None:
    """Split comma-separated names; None stays None."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def select(
    found: Iterable[EntryPoint],
    only: Sequence[str] | None = None,
    allow: Sequence[str] | None = None,
) -> Selection:
    """Keep the entry points that both lists name, without importing anything.

    Parameters
    ----------
    found : iterable of EntryPoint
        All that is installed, in any order.
    only : sequence of str, optional
        The operator's list; None allows all.
    allow : sequence of str, optional
        The release's list; None allows all.
    """
    entries = sorted(found, key=lambda entry: (*identify(entry), entry.value))
    chosen, refused = [], []
    for entry in entries:
        cause = find_refusal(*identify(entry), only, allow)
        if cause:
            distribution, version, name = identify(entry)
            refused.append(NotAllowed(name, distribution, version, cause))
        else:
            chosen.append(entry)
    known = {normalise(name) for e in entries for name in (e.name, identify(e)[0])}
    missing = [
        (name, where)
        for where, names in ((ONLY, only), (ALLOW, allow))
        for name in dict.fromkeys(names or ())
        if normalise(name) not in known
    ]
    return Selection(tuple(chosen), tuple(refused), tuple(missing))


def find_refusal(
    distribution: str,
    version: str,
    name: str,
    only: Sequence[str] | None,
    allow: Sequence[str] | None,
) -> str:
    """Return why a plugin is not allowed; empty when it is."""
    own = {normalise(name), normalise(distribution)}
    for where, names in ((ONLY, only), (ALLOW, allow)):
        if names is not None and not own & {normalise(one) for one in names}:
            return f"not allowed: {where} does not name it"
    return ""


def find_not_allowed() -> tuple[NotAllowed, ...]:
    """Return the installed plugins that must not be used here and now."""
    return select(entry_points(group=GROUP), operator_list(), release_list()).not_allowed


def identify(entry: EntryPoint) -> tuple[str, str, str]:
    """Return distribution, its version and the plugin's name."""
    dist = entry.dist
    return (dist.name if dist else "unknown", dist.version if dist else "", entry.name)


def normalise(name: str) -> str:
    """Write a name as it is compared: lower case, with hyphens."""
    return name.strip().lower().replace("_", "-").replace(".", "-")
