"""Distances between two sets of embeddings from pairs of sources: MMD and energy distance.

All permutations share one pass over the pairs: a matrix of who is in the first set, one column a deal, is
multiplied by blocks of kernel and distances. Memory is that of a block, whatever the number of sources.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from survey_ml.learning.permutations import Permuted

BLOCK = 256
"""Rows of pairs that are formed at a time."""
MEDIAN_OF = 500
"""Sources that the median distance is taken of."""

Pairs = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def measure_mmd(
    pooled: NDArray[np.float32], inside: NDArray[np.bool_], width: float | None = None
) -> Permuted:
    """Return the squared maximum mean discrepancy of every deal, without bias.

    Parameters
    ----------
    pooled : (n + m, d) array of float32
        Both sets behind each other, from `survey_ml.learning.shift_features`.
    inside : (n + m, k) array of bool
        From `survey_ml.learning.permutations.deal`.
    width : float, optional
        Of the Gaussian kernel exp(-r^2 / 2 width^2); the median distance unless given.

    Returns
    -------
    Permuted
        Zero on average where both sets are of one kind, and negative half of the time.

    Notes
    -----
    Gretton et al. 2012, equation 3 (U-statistic), and the median heuristic of their section 8. Both are
    the same for all deals.
    """
    return measure_pairs(pooled, inside, width)["mmd"]


def measure_energy(pooled: NDArray[np.float32], inside: NDArray[np.bool_]) -> Permuted:
    """Return the energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| of every deal, without bias.

    Szekely & Rizzo 2013, equation 5, with means over pairs of different sources. Parameters as those of
    `measure_mmd`.
    """
    return measure_pairs(pooled, inside)["energy"]


def measure_pairs(
    pooled: NDArray[np.float32], inside: NDArray[np.bool_], width: float | None = None
) -> dict[str, Permuted]:
    """Return `measure_mmd` and `measure_energy` for one pass over the pairs."""
    scale = np.float32(-0.5 / (width or find_median_distance(pooled)) ** 2)
    kinds: dict[str, Pairs] = {
        "mmd": lambda square: np.exp(square * scale),
        "energy": lambda square: -np.sqrt(square),
    }
    n_all, d = pooled.shape
    columns = inside.astype(np.float32)
    within = {kind: np.zeros(inside.shape[1]) for kind in kinds}
    rows = {kind: np.zeros((2, n_all)) for kind in kinds}
    length = np.einsum("ij,ij->i", pooled, pooled)
    for start in range(0, n_all, BLOCK):
        part = slice(start, min(start + BLOCK, n_all))
        square = length[part, None] + length - 2.0 * (pooled[part] @ pooled.T)
        np.maximum(square, 0.0, out=square)
        numbers = np.arange(part.start, part.stop)
        for kind, make in kinds.items():
            values = make(square)
            values[numbers - start, numbers] = 0.0  # no source is paired with itself
            product = values @ columns
            within[kind] += np.einsum("ip,ip->p", columns[part], product, dtype=np.float64)
            rows[kind][:, part] = values.sum(axis=1, dtype=np.float64), product[:, 0]
    found = {kind: _contrast(within[kind], rows[kind][0], rows[kind][1], inside) for kind in kinds}
    return {kind: Permuted(values, error, d) for kind, (values, error) in found.items()}


def measure_mix(values: NDArray[np.float32], labels: NDArray[np.int64], change: NDArray[np.float64]) -> float:
    """Return the squared discrepancy of a set from itself in another mix of classes, without bias.

    Parameters
    ----------
    values : (n, d) array of float32
    labels : (n,) array of int
    change : (n_classes,) array
        Shares of the classes in the other mix less those in the set; they add up to zero.

    Notes
    -----
    With c the change and k_ab the mean of the kernel over pairs of different sources of the classes a and
    b it is the sum of c_a c_b k_ab: what is common to both mixes drops out.
    """
    scale = np.float32(-0.5 / find_median_distance(values) ** 2)
    member = np.eye(len(change), dtype=np.float32)[labels]
    length = np.einsum("ij,ij->i", values, values)
    sums = np.zeros((len(change), len(change)))
    for start in range(0, len(values), BLOCK):
        part = slice(start, start + BLOCK)
        square = np.maximum(length[part, None] + length - 2.0 * (values[part] @ values.T), 0.0)
        sums += member[part].T @ (np.exp(square * scale) @ member)
    counts = member.sum(axis=0, dtype=np.float64)
    pairs = np.outer(counts, counts) - np.diag(counts)
    # Every source is one pair with itself, of kernel 1, which is none.
    means = (sums - np.diag(counts)) / np.maximum(pairs, 1.0)
    return float(change @ means @ change)


def find_median_distance(pooled: NDArray[np.float32], seed: int = 0) -> float:
    """Return the median distance of different sources, of at most `MEDIAN_OF` of them."""
    chosen = np.random.default_rng(seed).permutation(len(pooled))[:MEDIAN_OF]
    part = pooled[chosen].astype(np.float64)
    square = ((part[:, None] - part[None]) ** 2).sum(axis=2) if len(part) < 100 else _square(part)
    found = float(np.sqrt(np.median(square[np.triu_indices(len(part), 1)])))
    return found if found > 0.0 else 1.0


def _square(part: NDArray[np.float64]) -> NDArray[np.float64]:
    length = (part**2).sum(axis=1)
    return np.asarray(np.maximum(length[:, None] + length - 2.0 * part @ part.T, 0.0))


def _contrast(
    within: NDArray[np.float64],
    total: NDArray[np.float64],
    first: NDArray[np.float64],
    inside: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], float]:
    """Return E k(x, x') + E k(y, y') - 2 E k(x, y) of every deal, and the error of the true one.

    ``within`` (k,) is the sum over pairs inside the first set, ``total`` (n + m,) each source's sum over
    all others, ``first`` (n + m,) that over the first set of the true deal.
    """
    n, m = int(inside[:, 0].sum()), int((~inside[:, 0]).sum())
    reached = total @ inside
    across = reached - within
    others = total.sum() - reached - across
    values = within / (n * (n - 1)) + others / (m * (m - 1)) - 2.0 * across / (n * m)
    true, x, y = inside[:, 0], within[0], others[0]
    second = total - first
    # The statistic without each source in turn: the error by a jackknife, without another pass.
    without_x = (
        (x - 2.0 * first[true]) / ((n - 1) * max(n - 2, 1))
        + y / (m * (m - 1))
        - 2.0 * (across[0] - second[true]) / ((n - 1) * m)
    )
    without_y = (
        x / (n * (n - 1))
        + (y - 2.0 * second[~true]) / ((m - 1) * max(m - 2, 1))
        - 2.0 * (across[0] - first[~true]) / (n * (m - 1))
    )
    variance = (n - 1) * without_x.var() + (m - 1) * without_y.var()
    return values, float(np.sqrt(variance))
