"""Robust widths of errors in units of their estimates: one where the errors are right."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 400
"""Bootstrap samples an interval is made from."""


@dataclass(frozen=True)
class Spread:
    """Median and robust width of a sample, with 95 % bootstrap intervals.

    Attributes
    ----------
    n : int
    median, width : float
        The width is half of the range that holds the central 68.27 %; NaN below three values.
    median_low, median_high, width_low, width_high : float
    """

    n: int
    median: float
    width: float
    median_low: float
    median_high: float
    width_low: float
    width_high: float


@dataclass(frozen=True)
class PullBin:
    """Spread of one quantity's pulls in a bin of signal to noise, ``low <= snr < high``."""

    low: float
    high: float
    spread: Spread


def measure_width(values: ArrayLike, axis: int = -1) -> NDArray[np.float64]:
    """Return half of the range between the 15.87 and 84.13 % quantiles: sigma of a normal sample."""
    low, high = np.quantile(np.asarray(values, dtype=np.float64), [0.158655, 0.841345], axis=axis)
    return np.asarray(0.5 * (high - low))


def measure_spread(values: ArrayLike, seed: int = 0) -> Spread:
    """Return median and robust width of the finite values, with bootstrap intervals.

    Parameters
    ----------
    values : (n,) array
    seed : int
        Of the bootstrap.
    """
    sample = np.asarray(values, dtype=np.float64)
    sample = sample[np.isfinite(sample)]
    n = sample.size
    if n < 3:
        return Spread(n, *[np.nan] * 6)
    rng = np.random.default_rng(seed)
    medians, widths = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        again = sample[rng.integers(0, n, n)]
        medians[k], widths[k] = np.median(again), measure_width(again)
    ends = [float(q) for sample_ in (medians, widths) for q in np.quantile(sample_, [0.025, 0.975])]
    return Spread(n, float(np.median(sample)), float(measure_width(sample)), *ends)


def measure_pulls(
    measured: ArrayLike, true: ArrayLike, error: ArrayLike, snr: ArrayLike, edges: ArrayLike, seed: int = 0
) -> tuple[PullBin, ...]:
    """Return the spread of ``(measured - true) / error`` in bins of signal to noise.

    Parameters
    ----------
    measured, true, error, snr : (n,) array
    edges : (k + 1,) array
    seed : int
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        pull = (np.asarray(measured, float) - np.asarray(true, float)) / np.asarray(error, float)
    ratio, limits = np.asarray(snr, float), np.asarray(edges, float)
    return tuple(
        PullBin(float(low), float(high), measure_spread(pull[(ratio >= low) & (ratio < high)], seed))
        for low, high in pairwise(limits)
    )
