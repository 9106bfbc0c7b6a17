"""How well a classifier does: shares with intervals, confusion, calibration, and a temperature.

Every figure comes with the number of images and a 95 % interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

Z = 1.959964
"""Standard deviations of a two-sided interval of 95 %."""


@dataclass(frozen=True)
class Score:
    """A figure with its interval.

    Attributes
    ----------
    value, low, high : float
        The figure and its 95 % interval; NaN without data.
    n : int
        Images.
    """

    value: float
    low: float
    high: float
    n: int


def measure_accuracy(predicted: ArrayLike, labels: ArrayLike) -> Score:
    """Return the share of right labels with Wilson's binomial interval (Wilson 1927)."""
    right = np.asarray(predicted) == np.asarray(labels)
    n = int(right.size)
    if n == 0:
        return Score(float("nan"), float("nan"), float("nan"), 0)
    share = float(right.mean())
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * np.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return Score(share, max(0.0, float(middle - half)), min(1.0, float(middle + half)), n)


def count_confusion(predicted: ArrayLike, labels: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Return how often each class (row) is taken for each (column); shape (n_classes, n_classes)."""
    pairs = np.asarray(labels, np.int64) * n_classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


def measure_f1(predicted: ArrayLike, labels: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Return the F1 score of each class; NaN for one that is neither there nor predicted."""
    confusion = count_confusion(predicted, labels, n_classes).astype(float)
    right, total = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, 2.0 * right / total, np.nan)


def measure_macro_f1(
    predicted: ArrayLike, labels: ArrayLike, n_classes: int, *, draws: int = 1000, seed: int = 0
) -> Score:
    """Return the mean F1 over the classes with a bootstrap interval over the images."""
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    n = len(labels)
    if n == 0:
        return Score(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        pick = rng.integers(n, size=n)
        values.append(np.nanmean(measure_f1(predicted[pick], labels[pick], n_classes)))
    low, high = np.percentile(values, [2.5, 97.5])
    value = float(np.nanmean(measure_f1(predicted, labels, n_classes)))
    return Score(value, float(low), float(high), n)


def measure_mean(values: ArrayLike, *, within: tuple[float, float] = (-np.inf, np.inf)) -> Score:
    """Return the mean over seeds with Student's interval; no interval for a single one.

    The interval does not leave ``within``: for shares (0, 1).
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    if n < 2:
        return Score(mean, float("nan"), float("nan"), n)
    half = float(special.stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n))
    return Score(mean, max(mean - half, within[0]), min(mean + half, within[1]), n)


def measure_calibration(probabilities: NDArray[np.floating], labels: ArrayLike, *, bins: int = 8) -> float:
    """Return the expected calibration error over bins of equal width of the largest probability.

    Source: Naeini, Cooper & Hauskrecht 2015; Guo et al. 2017, equation 3.
    """
    labels = np.asarray(labels)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        inside = place == number
        if inside.any():
            error += abs(right[inside].mean() - confidence[inside].mean()) * inside.mean()
    return float(error)


def measure_loss(logits: NDArray[np.floating], labels: ArrayLike) -> float:
    """Return the mean negative log likelihood of labels (n,) under logits (n, n_classes)."""
    values = np.asarray(logits, np.float64)
    logs = values - special.logsumexp(values, axis=1, keepdims=True)
    return float(-logs[np.arange(len(values)), np.asarray(labels)].mean())


def fit_temperature(logits: NDArray[np.floating], labels: ArrayLike) -> float:
    """Return the number that logits are divided by so that their likelihood is largest.

    Source: Guo et al. 2017, temperature scaling. Labels do not change. From 0.05 to 20.
    """
    values = np.asarray(logits, np.float64)
    found = optimize.minimize_scalar(
        lambda log: measure_loss(values / np.exp(log), labels), bounds=(-3.0, 3.0), method="bounded"
    )
    return float(np.exp(found.x))
