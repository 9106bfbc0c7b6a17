"""How unsure a model is of a source, from the probabilities that samples of its weights give it.

The entropy of the mean splits into what any weights are unsure of (aleatoric: the mean entropy of the
samples) and what the samples disagree on (epistemic: the mutual information of class and weights).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from survey_ml.errors import SurveyMLError

OVERLAP_WIDTH = 0.1
"""Standard deviation of the kernel that makes samples of a probability a density (Mohan et al. 2022)."""
OVERLAP_POINTS = 100
"""Points from 0 to 1 at which the densities are compared."""
BLOCK_VALUES = 1 << 18
"""Sample values that are worked on at a time, about what a processor's cache holds."""


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """What samples of a posterior say of n sources; row k is about source k and about nothing else.

    Attributes
    ----------
    probabilities : (n, n_classes) ndarray of float64
        Mean over the samples; rows add up to one.
    entropy : (n,) ndarray of float64
        Of the mean, in nats; from 0 to ln n_classes. It is ``expected_entropy + mutual_information``.
    expected_entropy : (n,) ndarray of float64
        Mean entropy of the samples, in nats: the aleatoric part.
    mutual_information : (n,) ndarray of float64
        Of class and weights, in nats: the epistemic part. Never negative.
    overlap : (n,) ndarray of float64
        How much alike the distributions of the two likeliest classes' probabilities are: 0 for disjoint
        ones, 1 for the same.
    margin : (n,) ndarray of float64
        Largest mean probability less the second largest.
    """

    probabilities: NDArray[np.float64]
    entropy: NDArray[np.float64]
    expected_entropy: NDArray[np.float64]
    mutual_information: NDArray[np.float64]
    overlap: NDArray[np.float64]
    margin: NDArray[np.float64]


def measure_uncertainty(samples: ArrayLike) -> Uncertainty:
    """Measure the spread of a posterior's predictions.

    Parameters
    ----------
    samples : (n_samples, n, n_classes) array
        Probabilities that each sample of the weights gives. Rows that do not quite add up to one, as
        those of single precision, are scaled.

    Returns
    -------
    Uncertainty
        In float64. The bits of a row do not depend on which other sources are handed in with it.

    Raises
    ------
    SurveyMLError
        When there is no sample, fewer than two classes, or a value that is no probability.

    Notes
    -----
    Entropy and its parts: Depeweg et al. 2018, equations 1 to 3; Mohan et al. 2022. Overlap index: Pastore
    & Calcagni 2019, with the kernel of Mohan et al. 2022. One sample has no mutual information.
    """
    values = np.asarray(samples)
    if values.ndim != 3 or values.shape[0] < 1 or values.shape[2] < 2:
        raise SurveyMLError(
            f"samples of probabilities have the shape {values.shape}, not (n_samples, n, n_classes)",
            "give one sample and two classes at least",
        )
    n_samples, n, n_classes = values.shape
    found = Uncertainty(np.empty((n, n_classes)), *(np.empty(n) for _ in range(5)))
    step = max(1, BLOCK_VALUES // (n_samples * n_classes))
    for start in range(0, n, step):
        _measure_block(values[:, start : start + step], found, slice(start, start + step))
    return found


def normalise_entropy(entropy: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Return an entropy or a mutual information in nats as a share of the largest, ln n_classes."""
    return np.clip(np.asarray(entropy, np.float64) / np.log(n_classes), 0.0, 1.0)


def measure_overlap(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return how much alike pairs of samples of a probability are distributed.

    Parameters
    ----------
    first, second : (n, n_samples) array
        Samples of two probabilities of each source, from 0 to 1.

    Returns
    -------
    (n,) ndarray of float64
        Integral over 0 to 1 of the lesser of two densities, each a sum of Gaussians of a standard
        deviation of `OVERLAP_WIDTH` (Pastore & Calcagni 2019): 0 for disjoint, 1 for the same.

    Notes
    -----
    A kernel loses up to half its weight at the ends of the range, where the probabilities of sure models
    are. Each density is therefore scaled to an integral of one, without which two distributions that are
    the same would overlap by less than one.
    """
    one, other = (_find_density(np.asarray(values, np.float64)) for values in (first, second))
    return np.minimum(one, other).sum(axis=1)


def _measure_block(samples: NDArray[np.generic], found: Uncertainty, rows: slice) -> None:
    # Samples last: numpy then adds up each row by itself, in an order that only their number decides.
    values = np.ascontiguousarray(np.moveaxis(samples, 0, 2), np.float64)
    total = values.sum(axis=1, keepdims=True)
    if not (np.isfinite(values).all() and (values >= 0.0).all() and (total > 0.0).all()):
        raise SurveyMLError(
            "samples of probabilities have values that are negative or not finite",
            "give the softmax of logits that are finite",
        )
    values /= total
    mean = values.mean(axis=2)
    mean /= mean.sum(axis=1, keepdims=True)
    expected = special.entr(values).sum(axis=1).mean(axis=1)
    # Of the mean it is never less; where all samples agree, rounding can make it so by 1e-16.
    entropy = np.maximum(special.entr(mean).sum(axis=1), expected)
    order = np.argsort(-mean, axis=1, kind="stable")[:, :2]
    likeliest = np.take_along_axis(values, order[:, :, None], axis=1)
    largest = np.take_along_axis(mean, order, axis=1)
    found.probabilities[rows], found.entropy[rows], found.expected_entropy[rows] = mean, entropy, expected
    found.mutual_information[rows] = entropy - expected
    found.overlap[rows] = measure_overlap(likeliest[:, 0], likeliest[:, 1])
    found.margin[rows] = largest[:, 0] - largest[:, 1]


def _find_density(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return densities (n, OVERLAP_POINTS) of samples (n, n_samples), scaled to a sum of one.

    exp(-(g - x)^2 / 2 s^2) is exp(-x^2 / 2 s^2) exp(g x / s^2) exp(-g^2 / 2 s^2), and on a regular grid the
    middle factor of a point is that of the last point times exp(step x / s^2). So a sample costs two
    exponentials, not one for each point.
    """
    grid = np.linspace(0.0, 1.0, OVERLAP_POINTS)
    values = np.ascontiguousarray(values)
    term = np.exp(-0.5 * (values / OVERLAP_WIDTH) ** 2)
    ratio = np.exp(values * (grid[1] / OVERLAP_WIDTH**2))
    density = np.empty((len(values), OVERLAP_POINTS))
    for number in range(OVERLAP_POINTS):
        density[:, number] = term.sum(axis=1)
        term *= ratio
    density *= np.exp(-0.5 * (grid / OVERLAP_WIDTH) ** 2)
    return density / density.sum(axis=1, keepdims=True)
