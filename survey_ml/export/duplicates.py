"""The same object measured in overlapping fields: find it, and say which measurement is better."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

EDGE = 1 | 2
"""Flags of a source near the edge of the data or cut by blank pixels."""
DUPLICATE = 512
"""Flag of a measurement for which another field has a better one."""
_ZONE = 100_000
"""Rows of a zone of the sky that are looked at together."""
SAME_FREQUENCY = 0.1
"""Fields whose frequencies differ by a larger fraction measure different things."""


def find_duplicates(
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    field: NDArray[np.integer[Any]],
    radius: NDArray[np.float64],
    local_rms: NDArray[np.float64],
    flags: NDArray[np.integer[Any]],
    frequency: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Return for each row the row of the better measurement of the same object, or -1.

    Rows of different fields are the same object when they lie within the larger of their radii and
    each is the other's nearest in that pair of fields, so that one row has at most one partner a
    field. Rows away from the edge go before rows at the edge, then the lower noise goes first, then
    the earlier row. A row that is kept makes duplicates of its partners; a duplicate makes none.

    Parameters
    ----------
    ra, dec : ndarray
        Shape (n,), deg; rows that are not finite have no partner.
    field : ndarray
        Shape (n,): number of the field.
    radius : ndarray
        Shape (n,), deg: how near the same object must be.
    local_rms : ndarray
        Shape (n,): noise at the position; NaN goes last.
    flags : ndarray
        Shape (n,): quality flags.
    frequency : ndarray
        Shape (n,), Hz; NaN where unknown, which is compared with any.

    Returns
    -------
    ndarray
        Shape (n,), int64.
    """
    better = np.full(len(ra), -1, np.int64)
    pairs, distance = _pair_fields(ra, dec, field, radius, frequency)
    if not len(pairs):
        return better
    pairs = _match_one_to_one(pairs, distance, field)
    at_edge = (np.asarray(flags) & EDGE) != 0
    noise = np.where(np.isfinite(local_rms), local_rms, np.inf)
    order = np.lexsort((np.arange(len(ra)), noise, at_edge))
    rank = np.empty(len(ra), np.int64)
    rank[order] = np.arange(len(ra))
    swap = rank[pairs[:, 0]] > rank[pairs[:, 1]]
    winner = np.where(swap, pairs[:, 1], pairs[:, 0])
    loser = np.where(swap, pairs[:, 0], pairs[:, 1])
    return _settle(winner, loser, rank, better)


def _pair_fields(
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    field: NDArray[np.integer[Any]],
    radius: NDArray[np.float64],
    frequency: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return pairs of rows of different fields within reach, (m, 2), and their chords, (m,)."""
    good = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec) & np.isfinite(radius))
    if not len(good):
        return np.empty((0, 2), np.int64), np.empty(0)
    # Zone by zone from south to north, so that the tree is that of a zone and not of the sky.
    good = good[np.argsort(dec[good], kind="stable")]
    north, reach = dec[good], float(radius[good].max())
    found = []
    for start in range(0, len(good), _ZONE):
        end = min(len(good), start + _ZONE)
        # What lies within reach of the zone's last row belongs to pairs of this zone too.
        last = int(np.searchsorted(north, north[end - 1] + 1.001 * reach, "right"))
        found.append(_pair_zone(good[start:last], end - start, ra, dec, field, radius, frequency))
    pairs, distance = zip(*found, strict=True)
    return np.concatenate(pairs), np.concatenate(distance)


def _pair_zone(
    rows: NDArray[np.int64],
    own: int,
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    field: NDArray[np.integer[Any]],
    radius: NDArray[np.float64],
    frequency: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return pairs among some rows, at least one of which is one of the first ``own``."""
    longitude, latitude = np.deg2rad(ra[rows]), np.deg2rad(dec[rows])
    unit = np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )
    chord = 2.0 * np.sin(np.deg2rad(radius[rows]) / 2.0)
    found = cKDTree(unit).query_pairs(float(chord.max()), output_type="ndarray").astype(np.int64)
    found = found[(found < own).any(axis=1)]
    distance = np.sqrt(((unit[found[:, 0]] - unit[found[:, 1]]) ** 2).sum(axis=1))
    pairs = rows[found]
    one, two = frequency[pairs[:, 0]], frequency[pairs[:, 1]]
    differ = np.abs(one - two) > SAME_FREQUENCY * np.minimum(one, two)
    keep = (
        (field[pairs[:, 0]] != field[pairs[:, 1]])
        & (distance <= np.maximum(chord[found[:, 0]], chord[found[:, 1]]))
        & ~differ
    )
    return np.sort(pairs[keep], axis=1), distance[keep]


def _match_one_to_one(
    pairs: NDArray[np.int64], distance: NDArray[np.float64], field: NDArray[np.integer[Any]]
) -> NDArray[np.int64]:
    """Keep the nearest pairs such that a row has at most one partner in any one other field."""
    n_fields = int(field.max()) + 1
    left = pairs[:, 0] * n_fields + field[pairs[:, 1]]
    right = pairs[:, 1] * n_fields + field[pairs[:, 0]]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], distance))
    pairs, left, right = pairs[order], left[order], right[order]
    accepted = []
    while len(pairs):
        # A pair that is the first of both its rows is nearest for both; each round settles some.
        slots = np.stack([left, right], axis=1).ravel()
        _, first, inverse = np.unique(slots, return_index=True, return_inverse=True)
        nearest = (first[inverse] // 2).reshape(-1, 2)
        index = np.arange(len(pairs))
        mutual = (nearest[:, 0] == index) & (nearest[:, 1] == index)
        accepted.append(pairs[mutual])
        used = np.concatenate([left[mutual], right[mutual]])
        rest = ~(np.isin(left, used) | np.isin(right, used))
        pairs, left, right = pairs[rest], left[rest], right[rest]
    return np.concatenate(accepted)


def _settle(
    winner: NDArray[np.int64], loser: NDArray[np.int64], rank: NDArray[np.int64], better: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Decide from the best row down: a row that no better kept row claims is kept."""
    n = len(better)
    state = np.zeros(n, np.int8)  # 0 open, 1 kept, 2 duplicate
    while True:
        open_pair = state[loser] == 0
        blocked = np.zeros(n, bool)
        blocked[loser[open_pair & (state[winner] == 0)]] = True
        claimed = np.zeros(n, bool)
        claimed[loser[open_pair & (state[winner] == 1)]] = True
        newly_kept = (state == 0) & ~blocked & ~claimed
        if not newly_kept.any() and not claimed.any():
            break
        state[claimed] = 2
        state[newly_kept] = 1
    claims = (state[winner] == 1) & (state[loser] == 2)
    winner, loser = winner[claims], loser[claims]
    order = np.argsort(-rank[winner], kind="stable")
    # The best claimant is written last, so it stays.
    better[loser[order]] = winner[order]
    return better
