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
    seconds, arcsec, south = _cut(np.where(good, ra, 0.0), np.where(good, dec, 0.0))
    head = f"{prefix} J"
    text = np.empty((len(ra), 18), np.uint8)
    _write_sexagesimal(text[:, :9], seconds, 2)
    text[:, 9] = np.where(south, ord("-"), ord("+"))
    _write_sexagesimal(text[:, 10:], arcsec, 1)
    tail = np.ascontiguousarray(text).view("S18")[:, 0].astype("U18")
    return np.where(good, np.strings.add(head, tail), "").astype(np.str_)


class Names:
    """Names of all rows of a table, made where they are asked for.

    A name that occurs more than once gets ``a``, ``b``, ... appended, in the order of the rows.
    In memory are the numbers of such rows alone.

    Parameters
    ----------
    ra, dec : ndarray
        Shape (n,), deg.
    prefix : str
        Acronym of the survey, without the ``J``.
    """

    def __init__(self, ra: NDArray[np.float64], dec: NDArray[np.float64], prefix: str = "SML") -> None:
        self._ra, self._dec, self._prefix = ra, dec, prefix
        self._shared, self._rank = np.empty(0, np.int64), np.empty(0, np.int64)
        if not len(ra):
            return
        code = _encode_positions(ra, dec)
        order = np.argsort(code, kind="stable")
        group = code[order]
        same = (group[1:] == group[:-1]) & (group[1:] >= 0)
        shared = np.r_[False, same] | np.r_[same, False]
        order, group = order[shared], group[shared]
        if not len(group):
            return
        starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        by_row = np.argsort(order)
        self._shared, self._rank = order[by_row], rank[by_row]

    def read(self, rows: Any = slice(None)) -> NDArray[np.str_]:
        """Return the names of some rows: a slice, or an array of row numbers."""
        rows = np.arange(len(self._ra))[rows] if isinstance(rows, slice) else rows
        names = name_positions(self._ra[rows], self._dec[rows], self._prefix)
        if not len(self._shared):
            return names
        place = np.minimum(np.searchsorted(self._shared, rows), len(self._shared) - 1)
        hit = np.flatnonzero(self._shared[place] == rows)
        if not len(hit):
            return names
        letters = np.array([_letters(int(rank)) for rank in self._rank[place[hit]]])
        out: NDArray[Any] = names.astype(f"U{names.dtype.itemsize // 4 + letters.dtype.itemsize // 4}")
        out[hit] = np.strings.add(names[hit], letters)
        return out


def _encode_positions(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return one number a position, the same where the names are the same; -1 where there is no name."""
    good = np.isfinite(ra) & np.isfinite(dec)
    seconds, arcsec, south = _cut(np.where(good, ra, 0.0), np.where(good, dec, 0.0))
    # 3,240,000 tenths of an arcsec fit into 22 bits, and the sign into one more.
    return np.where(good, (seconds << 23) | (arcsec << 1) | south, -1)


def _cut(
    ra: NDArray[np.float64], dec: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return hundredths of a second, tenths of an arcsec, and whether it is south."""
    seconds = _truncate(ra % 360.0 / 15.0 * 3600.0, 100) % (24 * 3600 * 100)
    return seconds, _truncate(np.abs(dec) * 3600.0, 10), dec < 0


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
