"""Two-sample statistics with what chance makes of them: both sets are pooled and dealt out again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import ConfigError
from survey_ml.learning.scores import Z


@dataclass(frozen=True)
class Statistic:
    """A figure of how far two sets are apart, never without what chance gives.

    Attributes
    ----------
    value, low, high : float
        With its 95 % interval, by a jackknife over the sources.
    null_mean, null_std : float
        Over the permutations.
    p_value : float
        Share of the deals, the true one included, with a value at least as large; not below
        1 / (permutations + 1).
    n, d : int
        Sources of the smaller set, and numbers of each that were looked at.
    """

    value: float
    low: float
    high: float
    null_mean: float
    null_std: float
    p_value: float
    n: int
    d: int


@dataclass(frozen=True, eq=False)
class Permuted:
    """A statistic of every deal.

    Attributes
    ----------
    values : (permutations + 1,) ndarray of float64
        The first is that of the true sets.
    error : float
        Standard error of the first.
    d : int
        Numbers of a source that were looked at.
    """

    values: NDArray[np.float64]
    error: float
    d: int

    def summarise(self, n: int) -> Statistic:
        """Return the figure for sets of which the smaller has n sources."""
        value, null = float(self.values[0]), self.values[1:]
        half = Z * self.error
        return Statistic(
            value, value - half, value + half, float(null.mean()), float(null.std(ddof=1)),
            rank_first(self.values), n, self.d,
        )  # fmt: skip


def deal(n: int, m: int, permutations: int, seed: int) -> NDArray[np.bool_]:
    """Return who is in the first of two sets, in the true deal and in random ones.

    Parameters
    ----------
    n, m : int
        Sources of the first and of the second set, which lie behind each other.
    permutations : int
    seed : int

    Returns
    -------
    (n + m, permutations + 1) ndarray of bool
        Each column has n true values; the first column is that of the true sets.

    Raises
    ------
    ConfigError
        When there are too few permutations for a standard deviation.
    """
    if permutations < 2:
        raise ConfigError(f"{permutations} permutations", "give 2 at least, and 200 for a level of 0.01")
    inside = np.zeros((n + m, permutations + 1), bool)
    inside[:n] = True
    inside[:, 1:] = np.random.default_rng(seed).permuted(inside[:, 1:], axis=0)
    return inside


def rank_first(values: NDArray[np.float64]) -> float:
    """Return the share of values at least as large as the first, which is one of them.

    Phipson & Smyth 2010, equation 2: exact for any number of permutations, and never zero. Values that
    differ by rounding alone count as equal.
    """
    room = 1e-9 * max(1.0, abs(float(values[0])))
    return float((values >= values[0] - room).mean())


def combine(parts: list[Permuted]) -> float:
    """Return one p-value for several statistics of the same deals.

    The largest of them, each in standard deviations of its permutations, is held against the largest of
    every deal (Westfall & Young 1993, single-step max-T): as many chances are allowed for as are taken.
    """
    scores = []
    for part in parts:
        width = part.values.std()
        if width > 0.0:
            scores.append((part.values - part.values.mean()) / width)
    return rank_first(np.max(scores, axis=0)) if scores else 1.0


def thin(values: NDArray, most: int, seed: int) -> NDArray:
    """Return all rows, or a random choice of ``most`` of them in their order."""
    if len(values) <= most:
        return values
    chosen = np.random.default_rng(seed).choice(len(values), most, replace=False)
    return values[np.sort(chosen)]
