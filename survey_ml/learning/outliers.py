"""Whether a source is like what a model was trained on, from the model's embedding of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import distance

from survey_ml.errors import SurveyMLError


@dataclass(frozen=True, eq=False)
class Gaussians:
    """A Gaussian for each class in the space of an embedding, all of one covariance.

    Attributes
    ----------
    means : (n_classes, d) ndarray of float64
    precision : (d, d) ndarray of float64
        Inverse of the covariance.
    """

    means: NDArray[np.float64]
    precision: NDArray[np.float64]


def fit_gaussians(embedding: ArrayLike, labels: ArrayLike, n_classes: int) -> Gaussians:
    """Fit Gaussians to the embedding of training images.

    Parameters
    ----------
    embedding : (n, d) array
    labels : (n,) array of int
    n_classes : int

    Returns
    -------
    Gaussians

    Raises
    ------
    SurveyMLError
        When a class has no image, values are not finite, or all images of a class are the same.

    Notes
    -----
    Lee et al. 2018, equations 1 and 2. The covariance within classes is shrunk towards a multiple of the
    unit matrix as Ledoit & Wolf 2004 find best: an embedding may have as many dimensions as there are
    images, and dimensions that no image uses.
    """
    values, classes = np.asarray(embedding, np.float64), np.asarray(labels, np.int64)
    if values.ndim != 2 or classes.shape != values.shape[:1] or not np.isfinite(values).all():
        raise SurveyMLError(
            f"an embedding of the shape {values.shape} with {classes.shape} labels cannot be fitted",
            "give one row of finite numbers and one label an image",
        )
    counts = np.bincount(classes, minlength=n_classes)
    if len(counts) != n_classes or (counts == 0).any():
        raise SurveyMLError(f"{counts.tolist()} images of {n_classes} classes", "give images of each class")
    means = np.stack([values[classes == k].mean(axis=0) for k in range(n_classes)])
    covariance = shrink_covariance(values - means[classes])
    if not np.trace(covariance) > 0.0:
        raise SurveyMLError("all embeddings of a class are the same", "give more images")
    return Gaussians(means, np.asarray(np.linalg.inv(covariance), np.float64))


def measure_distances(gaussians: Gaussians, embedding: ArrayLike) -> NDArray[np.float64]:
    """Return the Mahalanobis distance (n,) of embeddings (n, d) from the nearest class.

    Lee et al. 2018, equation 2, as a length rather than its square. Each row has the same bits whatever
    other rows there are: distances are added up pair by pair, not by a matrix product.
    """
    values = np.asarray(embedding, np.float64)
    return np.asarray(
        distance.cdist(values, gaussians.means, "mahalanobis", VI=gaussians.precision).min(axis=1)
    )


def find_p_values(distances: ArrayLike, held_out: ArrayLike) -> NDArray[np.float64]:
    """Return how likely a source of the training's kind is as far out as each.

    Parameters
    ----------
    distances : (n,) array
        Of the sources.
    held_out : (m,) array
        Of images that neither the model nor the Gaussians were fitted to. Those of the training itself are
        too near, and make too many sources outliers.

    Returns
    -------
    (n,) ndarray of float64
        From 1 / (m + 1) to 1. Of sources like the held-out images, at most a share a has a value up to a.

    Notes
    -----
    (1 + number of held-out distances at least as large) / (m + 1): a conformal p-value (Vovk, Gammerman &
    Shafer 2005; Bates et al. 2023). A level of 0.01 needs 99 held-out images before any source reaches it.
    """
    ordered = np.sort(np.asarray(held_out, np.float64))
    below = np.searchsorted(ordered, np.asarray(distances, np.float64), side="left")
    return np.asarray((1.0 + len(ordered) - below) / (len(ordered) + 1.0), np.float64)


def shrink_covariance(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the covariance (d, d) of values (n, d) about zero, shrunk as Ledoit & Wolf 2004 find best.

    Their equations 8 to 14: towards the unit matrix times the mean variance, by the share of the distance
    to it that the scatter of the sample explains.
    """
    sample = values.T @ values / len(values)
    share, level = find_shrinkage(values, sample)
    return np.asarray(share * level * np.eye(len(sample)) + (1.0 - share) * sample, np.float64)


def find_shrinkage(values: NDArray[np.float64], sample: NDArray[np.float64]) -> tuple[float, float]:
    """Return the share of the unit matrix, and its level, that `shrink_covariance` mixes in.

    Parameters
    ----------
    values : (n, d) array
        About zero.
    sample : (d, d) array
        Their covariance.
    """
    n, d = values.shape
    level = float(np.trace(sample)) / d
    spread = float(((sample - level * np.eye(d)) ** 2).sum())
    scatter = float((((values**2).sum(axis=1) ** 2).sum() / n - (sample**2).sum()) / n)
    return (min(1.0, scatter / spread) if spread > 0.0 else 1.0), level
