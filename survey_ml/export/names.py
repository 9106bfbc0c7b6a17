"""IAU-style names from truncated positions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GUARD = 1e-6
"""Added, in units of the last digit, before truncation: 15 deg must not become 00h59m59.99s."""


def name_positions(
    ra: NDArray[np.float64], dec: NDArray[np.float64], prefix: str = "SML"
) -> NDArray[np.str_]:
    """Name positions after the IAU's rules: ``PREFIX Jhhmmss.ss+ddmmss.s``, truncated, not rounded.

    Parameters
    ----------
    ra, dec : ndarray
        Shape (n,), deg.
    prefix : str
        Acronym of the survey, without the ``J``.

    Returns
    -------
    ndarray
        Shape (n,); not yet unique. Empty where a position is not finite.
    """
    good = np.isfinite(ra) & np.isfinite(dec)
    seconds = _truncate(np.where(good, ra, 0.0) % 360.0 / 15.0 * 3600.0, 100) % (24 * 3600 * 100)
    arcsec = _truncate(np.abs(np.where(good, dec, 0.0)) * 3600.0, 10)
    head = f"{prefix} J"
    text = np.empty((len(ra), 18), np.uint8)
    _write_sexagesimal(text[:, :9], seconds, 2)
    text[:, 9] = np.where(np.where(good, dec, 0.0) < 0, ord("-"), ord("+"))
    _write_sexagesimal(text[:, 10:], arcsec, 1)
    tail = np.ascontiguousarray(text).view("S18")[:, 0].astype("U18")
    return np.where(good, np.strings.add(head, tail), "").astype(np.str_)


def make_unique(names: NDArray[np.str_]) -> NDArray[np.str_]:
    """Append ``a``, ``b``, ... to names that occur more than once, in the order given."""
    _, inverse, counts = np.unique(names, return_inverse=True, return_counts=True)
    shared = np.flatnonzero((counts[inverse] > 1) & (names != ""))
    if not len(shared):
        return names
    order = shared[np.argsort(inverse[shared], kind="stable")]
    group = inverse[order]
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    letters = np.array([_letters(i) for i in range(int(rank.max()) + 1)])
    out: NDArray[Any] = names.astype(f"U{names.dtype.itemsize // 4 + len(letters[-1])}")
    out[order] = np.strings.add(names[order], letters[rank])
    return out


def _truncate(value: NDArray[np.float64], per_unit: int) -> NDArray[np.int64]:
    return np.floor(value * per_unit + GUARD).astype(np.int64)


def _write_sexagesimal(out: NDArray[np.uint8], value: NDArray[np.int64], decimals: int) -> None:
    """Write whole units of the last digit as two-digit triples, a point and decimals."""
    position = out.shape[1] - 1
    rest = value
    for _ in range(decimals):
        out[:, position] = ord("0") + rest % 10
        rest = rest // 10
        position -= 1
    out[:, position] = ord(".")
    position -= 1
    for base in (10, 6, 10, 6, 10, 10):
        out[:, position] = ord("0") + rest % base
        rest = rest // base
        position -= 1


def _letters(index: int) -> str:
    """Return a, b, ..., z, aa, ab, ... for 0, 1, ..."""
    text = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        text = chr(ord("a") + digit) + text
    return text
