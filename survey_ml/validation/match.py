"""One-to-one matches between two lists of positions, nearest pair first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

ARCSEC = np.degrees(1.0) * 3600.0
"""Arcsec in a radian."""


class Match(NamedTuple):
    """Pairs: the rows in the first and second list, and how far apart they are."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    separation: NDArray[np.float64]


def match_pixels(first: ArrayLike, second: ArrayLike, radius: ArrayLike) -> Match:
    """Match positions in a plane (or any Euclidean space).

    Parameters
    ----------
    first : (n, d) array
    second : (m, d) array
    radius : float or (m,) array
        Largest distance of a pair; one for each row of ``second`` if an array.

    Returns
    -------
    Match
        Each row in one pair at most. Pairs are taken from the nearest on; ties go to the lower
        rows. Ordered by row of the first list.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    limit = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(b),))
    i, j, d = _list_pairs(a, b, limit)
    order = np.lexsort((j, i, d))
    i, j, d = i[order], j[order], d[order]
    taken: list[NDArray[np.int64]] = []
    left = np.arange(i.size)
    while left.size:
        # A pair that is the nearest left for both of its ends is taken, whatever else happens.
        first_i = np.zeros(left.size, dtype=bool)
        first_j = np.zeros(left.size, dtype=bool)
        first_i[np.unique(i[left], return_index=True)[1]] = True
        first_j[np.unique(j[left], return_index=True)[1]] = True
        chosen = left[first_i & first_j]
        taken.append(chosen)
        left = left[~np.isin(i[left], i[chosen]) & ~np.isin(j[left], j[chosen])]
    pairs = np.concatenate(taken) if taken else np.empty(0, np.int64)
    pairs = pairs[np.argsort(i[pairs])]
    return Match(i[pairs], j[pairs], d[pairs])


def match_sky(
    ra: ArrayLike, dec: ArrayLike, other_ra: ArrayLike, other_dec: ArrayLike, radius: ArrayLike
) -> Match:
    """Match positions on the sky.

    Parameters
    ----------
    ra, dec : (n,) array
        deg.
    other_ra, other_dec : (m,) array
        deg.
    radius : float or (m,) array
        arcsec, as for `match_pixels`.

    Returns
    -------
    Match
        Separations in arcsec.
    """
    chord = 2.0 * np.sin(0.5 * np.asarray(radius, dtype=np.float64) / ARCSEC)
    pairs = match_pixels(make_vectors(ra, dec), make_vectors(other_ra, other_dec), chord)
    return Match(pairs.first, pairs.second, 2.0 * np.arcsin(0.5 * pairs.separation) * ARCSEC)


def make_vectors(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.float64]:
    """Return unit vectors ``(n, 3)`` of positions in deg; NaN positions lie at the origin."""
    lon = np.radians(np.asarray(ra, dtype=np.float64))
    lat = np.radians(np.asarray(dec, dtype=np.float64))
    vectors = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    return np.nan_to_num(vectors, nan=0.0)


def find_nearest(
    ra: ArrayLike, dec: ArrayLike, other_ra: ArrayLike, other_dec: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return for each position the row of the nearest in the other list, and its arcsec.

    Many may share one. Without any, the row is -1 and the distance infinite.
    """
    others = make_vectors(other_ra, other_dec)
    here = make_vectors(ra, dec)
    if len(others) == 0 or len(here) == 0:
        return np.full(len(here), -1, np.int64), np.full(len(here), np.inf)
    chord, row = cKDTree(others).query(here)
    return row.astype(np.int64), 2.0 * np.arcsin(np.minimum(0.5 * chord, 1.0)) * ARCSEC


def _list_pairs(
    a: NDArray[np.float64], b: NDArray[np.float64], limit: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return all pairs within the limit of their second row."""
    empty = np.empty(0, np.int64)
    if len(a) == 0 or len(b) == 0:
        return empty, empty, np.empty(0)
    near = cKDTree(a).query_ball_point(b, limit)
    counts = np.array([len(rows) for rows in near])
    if not counts.sum():
        return empty, empty, np.empty(0)
    i = np.concatenate([np.asarray(rows, np.int64) for rows in near if rows])
    j = np.repeat(np.arange(len(b)), counts)
    return i, j, np.sqrt(((a[i] - b[j]) ** 2).sum(axis=1))
