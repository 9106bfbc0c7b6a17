"""Sets of classes that hold the true one in a chosen share of cases, whatever the model (split conformal).

They need images that the model was not trained on, and nothing else of the model or the data than that
these images are like those of the survey: altogether, class by class, or but for the shares of the classes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from survey_ml.errors import ConfigError, SurveyMLError

Guarantee = Literal["marginal", "class-conditional", "weighted"]
GUARANTEES: tuple[Guarantee, ...] = ("marginal", "class-conditional", "weighted")
ROUNDING = 1e-9
"""Taken off a coverage, so that of 99 images at 0.55 the 55th decides: 100 * 0.55 is 55.00000000000001."""
LEAST_SINGULAR = 1e-3
"""Smaller singular values mean that the model cannot tell the classes apart."""


def score_labels(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return how badly labels fit: one less the probability of each.

    Parameters
    ----------
    probabilities : (n, n_classes) array
    labels : (n,) array of int

    Returns
    -------
    (n,) ndarray of float64

    Notes
    -----
    Of all scores this one gives the smallest sets on average at a coverage, if the probabilities are right
    (Sadinle, Lei & Wasserman 2019). Adaptive sets (APS; Romano, Sesia & Candes 2020) need a random number a
    source, and were larger by 3 to 8 % with four simulated classifiers of two and three classes; without
    that number they covered 0.98 and 0.99 of the sources of two of them where 0.9 was asked for, and the
    surest sources are those whose sets are empty (``benchmarks/conformal_shift.py``).
    """
    values = np.asarray(probabilities, np.float64)
    return 1.0 - values[np.arange(len(values)), np.asarray(labels, np.int64)]


def find_sets(
    probabilities: ArrayLike,
    scores: ArrayLike,
    labels: ArrayLike,
    coverage: float,
    *,
    guarantee: Guarantee = "class-conditional",
    shares: ArrayLike | None = None,
) -> NDArray[np.bool_]:
    """Find the classes that each source may be of.

    Parameters
    ----------
    probabilities : (n, n_classes) array
        Of the sources of the survey, made as those of the calibration images.
    scores, labels : (n_calibration,) array
        Of the calibration images: `score_labels` and the true classes.
    coverage : float
        Share of sources whose set should hold the true class, between 0 and 1.
    guarantee : str
        ``marginal``: that share of all sources, when the survey is like the calibration images.
        ``class-conditional``: that share of each class, whatever their shares in the survey; larger sets
        where the survey is like the calibration images.
        ``weighted``: that share of all sources when the classes have other `shares` in the survey, but a
        class looks the same.
    shares : (n_classes,) array, optional
        Of the classes in the survey, for ``weighted``; see `estimate_shares`.

    Returns
    -------
    (n, n_classes) ndarray of bool
        A row may be empty: no class fits as well as the calibration images of it did. It may be full.
        Where the calibration images are too few for the coverage, it is.

    Raises
    ------
    ConfigError
        When the coverage is not between 0 and 1, or there is no such guarantee.
    SurveyMLError
        When the arrays do not belong together, or ``weighted`` has no shares.
    """
    values = np.asarray(probabilities, np.float64)
    limits = find_limits(scores, labels, values.shape[-1], coverage, guarantee=guarantee, shares=shares)
    return 1.0 - values <= limits


def find_limits(
    scores: ArrayLike,
    labels: ArrayLike,
    n_classes: int,
    coverage: float,
    *,
    guarantee: Guarantee = "class-conditional",
    shares: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Return the largest score (n_classes,) with which a class is in a set; infinite where any is.

    Parameters and errors are those of `find_sets`.

    Notes
    -----
    With n calibration images it is the score of rank ceil((n + 1) coverage), so that the share holds for any
    n (Vovk, Gammerman & Shafer 2005); of one class for ``class-conditional`` (Vovk 2012). For ``weighted``
    images count w = share in the survey / share in the calibration, and the source itself counts the weight
    of the class that is asked about (Tibshirani et al. 2019; Podkopaev & Ramdas 2021, section 2.2).
    """
    if not 0.0 < coverage < 1.0:
        raise ConfigError(f"a coverage of {coverage}", "give a share between 0 and 1, such as 0.9")
    if guarantee not in GUARANTEES:
        raise ConfigError(f"there is no guarantee {guarantee!r}", f"use one of {', '.join(GUARANTEES)}")
    values, classes = np.asarray(scores, np.float64), np.asarray(labels, np.int64)
    if values.ndim != 1 or values.shape != classes.shape:
        raise SurveyMLError(f"{values.shape} scores and {classes.shape} labels", "give one of each an image")
    if len(classes) and not 0 <= classes.min() <= classes.max() < n_classes:
        raise SurveyMLError(
            f"labels from {classes.min()} to {classes.max()} for {n_classes} classes",
            "calibrate with the classes of the model",
        )
    if guarantee == "marginal":
        return np.full(n_classes, _find_quantile(values, np.ones(len(values)), 1.0, coverage))
    if guarantee == "class-conditional":
        parts = [values[classes == k] for k in range(n_classes)]
        return np.array([_find_quantile(part, np.ones(len(part)), 1.0, coverage) for part in parts])
    weights = _find_weights(classes, n_classes, shares)
    # A class without calibration images has no weight to be found: it may always be.
    return np.array([_find_quantile(values, weights[classes], own, coverage) for own in weights])


def estimate_shares(survey: ArrayLike, calibration: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Estimate the shares of the classes in a survey from what a model says of its sources.

    Parameters
    ----------
    survey : (n, n_classes) array
        Probabilities of the survey's sources.
    calibration : (n_calibration, n_classes) array
        The same of images that the model was not trained on.
    labels : (n_calibration,) array of int
        Their true classes.

    Returns
    -------
    (n_classes,) ndarray of float64
        They add up to one; none is negative.

    Raises
    ------
    SurveyMLError
        When a class has no calibration image, or the model cannot tell classes apart.

    Notes
    -----
    Black-box shift estimation (Lipton, Wang & Smola 2018) with mean probabilities instead of counts of
    labels, which scatter more: the mean over the survey is that over the images of each class, times the
    shares. It holds when a class looks the same in both; the probabilities need not be calibrated.
    """
    values, known = np.asarray(survey, np.float64), np.asarray(calibration, np.float64)
    classes, n_classes = np.asarray(labels, np.int64), values.shape[1]
    if not len(values):
        raise SurveyMLError("a survey without sources has no shares of classes", "give one source at least")
    counts = np.bincount(classes, minlength=n_classes)
    if (counts == 0).any():
        missing = ", ".join(map(str, np.flatnonzero(counts == 0)))
        raise SurveyMLError(
            f"no calibration image is of class {missing}", "calibrate with images of all classes"
        )
    means = np.stack([known[classes == k].mean(axis=0) for k in range(n_classes)], axis=1)
    if np.linalg.svd(means, compute_uv=False)[-1] < LEAST_SINGULAR:
        raise SurveyMLError(
            "the model gives the images of two classes the same probabilities on average",
            "give the shares, or use class-conditional sets, which need none",
        )
    found = np.maximum(np.linalg.solve(means, values.mean(axis=0)), 0.0)
    return found / found.sum()


def _find_weights(labels: NDArray[np.int64], n_classes: int, shares: ArrayLike | None) -> NDArray[np.float64]:
    """Return the share in the survey over that of the calibration; infinite for a class without images."""
    if shares is None:
        raise SurveyMLError(
            "weighted sets need the shares of the classes in the survey", "estimate_shares finds them"
        )
    wanted = np.asarray(shares, np.float64)
    if wanted.shape != (n_classes,) or not (wanted >= 0.0).all() or not 0.0 < wanted.sum() < np.inf:
        raise SurveyMLError(f"{wanted} are no shares of {n_classes} classes", "give one for each class")
    counts = np.bincount(labels, minlength=n_classes) / max(1, len(labels))
    weights = np.full(n_classes, np.inf)
    np.divide(wanted / wanted.sum(), counts, out=weights, where=counts > 0)
    weights[(counts == 0) & (wanted == 0)] = 0.0
    return weights


def _find_quantile(
    scores: NDArray[np.float64], weights: NDArray[np.float64], own: float, coverage: float
) -> float:
    """Return the least score up to which lies the coverage of all weight, the source's own included."""
    order = np.argsort(scores, kind="stable")
    summed = np.cumsum(weights[order])
    total = own + (summed[-1] if len(summed) else 0.0)
    if not 0.0 < total < np.inf:
        return float("inf")
    # With weights of one the first that is reached is that of rank ceil(coverage (n + 1)).
    rank = int(np.searchsorted(summed, (coverage - ROUNDING) * total))
    return float(scores[order[rank]]) if rank < len(scores) else float("inf")
