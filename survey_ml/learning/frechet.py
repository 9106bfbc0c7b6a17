"""The Frechet distance of two sets of embeddings, with the bias of few sources taken off.

The plain one, from sample means and covariances, is far from zero for two sets of one kind: by as much as
real shifts at 200 sources. What chance gives is the mean over random deals of the pooled sources, and
without it a value means nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from survey_ml.learning.outliers import find_shrinkage
from survey_ml.learning.permutations import Permuted

MOST_DIMENSIONS = 64
"""More are turned to the principal axes of both sets together, and the first so many kept."""
GROUPS = 10
"""Parts of each set that are left out in turn, for the error."""
BATCH = 32
"""Deals that are worked on at a time."""


def measure_frechet(pooled: NDArray[np.float32], inside: NDArray[np.bool_]) -> dict[str, Permuted]:
    """Return three Frechet distances of every deal.

    Parameters
    ----------
    pooled : (n + m, d) array of float32
        Both sets behind each other.
    inside : (n + m, k) array of bool
        Who is in the first set, in each deal.

    Returns
    -------
    dict
        ``frechet`` of sample covariances; ``frechet_ledoit_wolf`` of covariances shrunk as Ledoit & Wolf
        2004 find best; ``frechet_debiased``, the first less its mean over the random deals.

    Notes
    -----
    Dowson & Landau 1982; Heusel et al. 2017, equation 6. A jackknife over tenths of the sets gives the
    error: a bootstrap would draw sources twice, which moves the distance.
    """
    values = _turn(pooled.astype(np.float64))
    plain, shrunk = _measure(values, inside)
    jackknife = _measure(values, *_leave_out(inside[:, 0]))[0]
    half = len(jackknife) // 2
    error = float(np.sqrt(sum((GROUPS - 1) * part.var() for part in (jackknife[:half], jackknife[half:]))))
    d = values.shape[1]
    return {
        "frechet": Permuted(plain, error, d),
        "frechet_ledoit_wolf": Permuted(shrunk, error, d),
        "frechet_debiased": Permuted(plain - plain[1:].mean(), error, d),
    }


def find_frechet(
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
    mean2: NDArray[np.float64],
    covariance2: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) for means (k, d) and covariances (k, d, d).

    The eigenvalues of C1 C2 are those of C1^(1/2) C2 C1^(1/2), which is symmetric: no complex roots.
    """
    values, axes = np.linalg.eigh(covariance)
    root = (axes * np.sqrt(np.maximum(values, 0.0))[:, None, :]) @ np.swapaxes(axes, 1, 2)
    shared = np.linalg.eigvalsh(root @ covariance2 @ root)
    traces = np.trace(covariance, axis1=1, axis2=2) + np.trace(covariance2, axis1=1, axis2=2)
    apart = ((mean - mean2) ** 2).sum(axis=1)
    return np.asarray(apart + traces - 2.0 * np.sqrt(np.maximum(shared, 0.0)).sum(axis=1))


def _turn(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values about their mean, along the principal axes where there are many dimensions."""
    values = values - values.mean(axis=0)
    if values.shape[1] <= MOST_DIMENSIONS:
        return values
    axes = np.linalg.eigh(values.T @ values)[1]
    return np.asarray(values @ axes[:, : -MOST_DIMENSIONS - 1 : -1])


def _leave_out(true: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the sets without each part in turn: who is in the first, and who is in any."""
    groups = np.zeros(len(true), np.int64)
    for side in (true, ~true):
        groups[side] = np.arange(side.sum()) % GROUPS
    left = groups[:, None] == np.arange(GROUPS)
    used = ~np.concatenate([left & true[:, None], left & ~true[:, None]], axis=1)
    return used & true[:, None], used


def _measure(
    values: NDArray[np.float64], inside: NDArray[np.bool_], used: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return plain and shrunk distances (k,) of the columns of ``inside``."""
    outside = ~inside if used is None else used & ~inside
    plain, shrunk = [], []
    for start in range(0, inside.shape[1], BATCH):
        part = slice(start, start + BATCH)
        sides = [_describe(values, side[:, part]) for side in (inside, outside)]
        (mean, sample, lean), (mean2, sample2, lean2) = sides
        plain.append(find_frechet(mean, sample, mean2, sample2))
        shrunk.append(find_frechet(mean, lean, mean2, lean2))
    return np.concatenate(plain), np.concatenate(shrunk)


def _describe(
    values: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return mean, covariance and shrunk covariance of the sources of each column."""
    found = []
    for column in chosen.T:
        part = values[column]
        mean = part.mean(axis=0)
        part = part - mean
        biased = part.T @ part / len(part)
        share, level = find_shrinkage(part, biased)
        unbiased = biased * (len(part) / (len(part) - 1.0))
        found.append((mean, unbiased, (1.0 - share) * biased + share * level * np.eye(len(mean))))
    return tuple(np.stack(rows) for rows in zip(*found, strict=True))  # type: ignore[return-value]
