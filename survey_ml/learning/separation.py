"""Whether a classifier can tell two sets of embeddings apart: the classifier two-sample test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from survey_ml.learning.outliers import shrink_covariance
from survey_ml.learning.permutations import Permuted

FOLDS = 5


def measure_separation(
    pooled: NDArray[np.float32], inside: NDArray[np.bool_], *, seed: int = 0, folds: int = FOLDS
) -> Permuted:
    """Return the area under the ROC curve of a cross-validated classifier of every deal.

    Parameters
    ----------
    pooled : (n + m, d) array of float32
        Both sets behind each other.
    inside : (n + m, k) array of bool
        Who is in the first set, in each deal.
    seed : int
        Of the folds.
    folds : int

    Returns
    -------
    Permuted
        0.5 where the sets cannot be told apart, 1 where they always can.

    Notes
    -----
    Lopez-Paz & Oquab 2017, with the area instead of the accuracy. The classifier is a linear discriminant
    with the covariance of all sources, shrunk as Ledoit & Wolf 2004 find best: it does not know the sets,
    so that one inverse a fold serves all deals, and a deal costs one column of a matrix product. The error
    is that of DeLong et al. 1988, which takes the classifier as given.
    """
    n_all, d = pooled.shape
    values = pooled.astype(np.float64)
    fold = np.random.default_rng(seed).permutation(np.arange(n_all) % folds)
    scores = np.zeros(inside.shape)
    for number in range(folds):
        held = fold == number
        train, dealt = values[~held], inside[~held]
        centre = train.mean(axis=0)
        covariance = shrink_covariance(train - centre)
        counts = np.maximum(dealt.sum(axis=0), 1), np.maximum((~dealt).sum(axis=0), 1)
        towards = (~dealt) / counts[1] - dealt / counts[0]
        weights = np.linalg.solve(covariance, train.T @ towards)
        scores[held] = (values[held] - centre) @ weights
    ranks = stats.rankdata(scores, axis=0)
    n, m = int(inside[:, 0].sum()), int((~inside[:, 0]).sum())
    areas = ((ranks * ~inside).sum(axis=0) - 0.5 * m * (m + 1)) / (n * m)
    return Permuted(areas, _find_error(scores[:, 0], inside[:, 0]), d)


def _find_error(scores: NDArray[np.float64], inside: NDArray[np.bool_]) -> float:
    """Return the standard error of the area (DeLong et al. 1988, equation 6)."""
    first, second = scores[inside], scores[~inside]
    ranks = stats.rankdata(scores)
    above = (ranks[~inside] - stats.rankdata(second)) / len(first)
    below = 1.0 - (ranks[inside] - stats.rankdata(first)) / len(second)
    return float(np.sqrt(above.var(ddof=1) / len(second) + below.var(ddof=1) / len(first)))
