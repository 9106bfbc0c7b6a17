"""How many sources of each class a survey has, when its mix is another but each class looks the same.

Counting the labels of a classifier is wrong then: it expects the mix of its training. The estimate here
takes this expectation out. Under any other shift it is wrong and does harm; `survey_ml.learning.shift` tests
for that, and refuses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from survey_ml.errors import SurveyMLError
from survey_ml.learning.conformal import estimate_shares
from survey_ml.learning.temperature_bias import LEAST_PROBABILITY, correct, fit_corrections

DRAWS = 200
LEVEL = 0.95
TOLERANCE = 1e-6
"""EM ends when no share moves by more."""
MOST_STEPS = 500
LEAST_SHARE = 0.002
"""Nearer to 0 or 1 a share is taken as this for its interval."""
LEAST_INFORMATION = 0.05
"""Share of what known classes would tell that probabilities are taken to tell at least."""
CHANCE_DRAWS, CHANCE_SOURCES = 100, 400
"""Surveys of a known mix that are drawn, and sources of each at most: of more the scatter is that of so many,
smaller by the root of the number."""
BLOCK_VALUES = 200_000
"""Numbers that are worked on at a time: they stay in a core's cache."""


@dataclass(frozen=True, eq=False)
class LabelShift:
    """Shares of classes in a survey.

    Attributes
    ----------
    shares, low, high : (n_classes,) ndarray of float64
        In what the sources were drawn from, with the interval.
    counts, counts_low, counts_high : (n_classes,) ndarray of float64
        Of these very sources, with the interval, which has no part from drawing them.
    check : (n_classes,) ndarray of float64
        The shares by black-box shift estimation, which uses the same images otherwise; NaN where it cannot.
    before : (n_classes,) ndarray of float64
        Shares in the calibration images.
    scale : float
    shift : (n_classes,) ndarray of float64
        Of the correction of the probabilities.
    """

    shares: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    counts: NDArray[np.float64]
    counts_low: NDArray[np.float64]
    counts_high: NDArray[np.float64]
    check: NDArray[np.float64]
    before: NDArray[np.float64]
    scale: float
    shift: NDArray[np.float64]

    def reweight(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """Return probabilities (n, n_classes) of a model as they are with the survey's shares."""
        known = correct(np.asarray(probabilities, np.float64), self.scale, self.shift)
        return reweight(known, self.before, self.shares)


def reweight(probabilities: ArrayLike, before: ArrayLike, after: ArrayLike) -> NDArray[np.float64]:
    """Return probabilities (n, n_classes) for other shares (n_classes,) of the classes.

    Saerens, Latinne & Decaestecker 2002, equation 4.
    """
    raised = np.asarray(probabilities, np.float64) * (np.asarray(after) / np.asarray(before))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float64)


def estimate_label_shift(
    survey: ArrayLike,
    calibration: ArrayLike,
    labels: ArrayLike,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> LabelShift:
    """Estimate the shares of the classes in a survey.

    Parameters
    ----------
    survey : (n, n_classes) array
        Probabilities of its sources, by any model.
    calibration : (m, n_classes) array
        The same of images that the model was not trained on.
    labels : (m,) array of int
        Their true classes.
    draws : int
        Of the bootstrap, in each of which calibration images and sources are drawn again and the
        correction is fitted again: an interval from the sources alone covers half of what it should.
    level : float
        Of the interval.
    seed : int

    Returns
    -------
    LabelShift

    Raises
    ------
    SurveyMLError
        When there is no source, a class has no calibration image, or arrays do not belong together.

    Notes
    -----
    The likelihood of the shares is maximised by EM (Saerens et al. 2002) over probabilities that are
    corrected by a temperature and a bias for each class (BCTS; Alexandari, Kundaje & Shrikumar 2020).
    Check: `survey_ml.learning.conformal.estimate_shares` (Lipton, Wang & Smola 2018).
    """
    values, known, classes = _check(survey, calibration, labels)
    n_classes = values.shape[1]
    rng = np.random.default_rng(seed)
    m, n = len(known), len(values)
    weights = np.ones((draws + 1, m))
    weights[1:] = rng.multinomial(m, np.full(m, 1.0 / m), size=draws)
    scale, shift = fit_corrections(known, classes, weights)
    before = weights @ np.eye(n_classes)[classes] + 0.5
    before /= before.sum(axis=1, keepdims=True)
    shares, _ = _maximise(values, scale, shift, before, rng)
    same, scatter = _maximise(values, scale, shift, before, None)
    counts = n * same[1:] + rng.normal(size=(draws, n_classes)) * np.sqrt(scatter[1:])
    low, high = _find_interval(shares[0], shares[1:], level)
    counts_low, counts_high = _find_interval(shares[0], counts / n, level)
    return LabelShift(
        shares[0], low, high, n * shares[0], n * counts_low, n * counts_high,
        _find_check(values, known, classes), before[0], float(scale[0]), shift[0],
    )  # fmt: skip


def find_shares(survey: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the likeliest shares (n_classes,) of sources with right probabilities (n, n_classes).

    ``before`` are the shares that the probabilities expect.
    """
    ones = np.ones((1, len(survey)))
    return _iterate((survey / before)[None], ones, before[None])[0]


def measure_chance(
    calibration: NDArray[np.float64],
    labels: NDArray[np.int64],
    found: LabelShift,
    shares: NDArray[np.float64],
    n: int,
    seed: int,
) -> NDArray[np.float64]:
    """Return how far estimates of shares scatter (n_classes,) in surveys of n sources of a known mix.

    An estimated share of nothing has no scatter of its own: surveys drawn again from one without a class
    are without it, too. Whether a mix is another one is told by the scatter that the known one has.

    Parameters
    ----------
    calibration : (m, n_classes) array
        Probabilities, of every class with a share.
    labels : (m,) array of int
    found : LabelShift
        Corrects these probabilities, and knows the mix that they expect.
    shares : (n_classes,) array
        The known mix.
    n : int
    seed : int
    """
    size = min(n, CHANCE_SOURCES)
    counts = np.bincount(labels, minlength=len(shares))
    weight = shares[labels] / counts[labels]
    rows = np.random.default_rng(seed).choice(len(labels), (CHANCE_DRAWS, size), p=weight / weight.sum())
    known = correct(calibration, found.scale, found.shift)[rows]
    before = np.tile(found.before, (CHANCE_DRAWS, 1))
    drawn = _iterate(known / found.before, np.ones((CHANCE_DRAWS, size)), before)
    width: NDArray[np.float64] = drawn.std(axis=0, ddof=1) * np.sqrt(size / n)
    return width


def _find_interval(
    shares: NDArray[np.float64], drawn: NDArray[np.float64], level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the interval of shares (n_classes,) from draws (k, n_classes) of them.

    Normal in the logit, which keeps it between 0 and 1. Quantiles of the draws held 0.63 to 0.66 of true
    shares where 0.68 was asked for, with 160 calibration images; this held 0.68 to 0.72.
    """
    middle = special.logit(np.clip(shares, LEAST_SHARE, 1.0 - LEAST_SHARE))
    width = special.logit(np.clip(drawn, LEAST_SHARE, 1.0 - LEAST_SHARE)).std(axis=0)
    half = float(special.ndtri(0.5 * (1.0 + level))) * width
    low, high = special.expit(middle - half), special.expit(middle + half)
    return np.where(shares <= LEAST_SHARE, 0.0, low), np.where(shares >= 1.0 - LEAST_SHARE, 1.0, high)


def _check(
    survey: ArrayLike, calibration: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    values, known = np.asarray(survey, np.float64), np.asarray(calibration, np.float64)
    classes = np.asarray(labels, np.int64)
    if values.ndim != 2 or known.ndim != 2 or values.shape[1] != known.shape[1] or len(known) != len(classes):
        raise SurveyMLError(
            f"probabilities of the shapes {values.shape} and {known.shape} with {classes.shape} labels",
            "give those of one model, and one label a calibration image",
        )
    if not len(values):
        raise SurveyMLError("a survey without sources has no shares of classes", "give one source at least")
    counts = np.bincount(classes, minlength=known.shape[1])
    if known.shape[1] < 2 or len(counts) != known.shape[1] or (counts == 0).any():
        raise SurveyMLError(
            f"{counts.tolist()} calibration images of {known.shape[1]} classes",
            "calibrate with images of two classes at least, and of all of them",
        )
    if not (np.isfinite(values).all() and np.isfinite(known).all()):
        raise SurveyMLError("probabilities have values that are not finite", "leave these sources out")
    return values, known, classes


def _maximise(
    survey: NDArray[np.float64],
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
    before: NDArray[np.float64],
    rng: np.random.Generator | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return shares (draws, n_classes), and the variance of the counts given them, block by block.

    With a generator the sources are drawn again for all but the first.
    """
    n = len(survey)
    logs = np.log(np.maximum(survey, LEAST_PROBABILITY))
    step = max(1, BLOCK_VALUES // survey.size)
    shares, scatter = np.empty_like(before), np.empty_like(before)
    for first in range(0, len(scale), step):
        part = slice(first, first + step)
        known = special.softmax(logs * scale[part, None, None] + shift[part, None, :], axis=2)
        ratios = known / before[part, None, :]
        drawn = np.ones((len(known), n))
        if rng is not None:
            drawn[first == 0 :] = rng.multinomial(n, np.full(n, 1.0 / n), size=len(known) - (first == 0))
        shares[part] = _iterate(ratios, drawn, before[part])
        raised = ratios * shares[part, None, :]
        raised /= raised.sum(axis=2, keepdims=True)
        missing = (raised * (1.0 - raised)).sum(axis=1)
        # The likeliest share moves with the same sources: what classes are not known is a part of the
        # information that known ones would give (Louis 1982), and the variance grows by what is left of it.
        whole = n * shares[part] * (1.0 - shares[part])
        scatter[part] = missing / np.maximum(1.0 - missing / np.maximum(whole, 1e-9), LEAST_INFORMATION)
    return shares, scatter


def _iterate(
    ratios: NDArray[np.float64], drawn: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the fixed points (k, n_classes) of EM for ratios (k, n, n_classes) and weights (k, n)."""
    shares = start.copy()
    total = drawn.sum(axis=1, keepdims=True)
    moving, own, weights = np.arange(len(shares)), ratios, drawn
    for _ in range(MOST_STEPS):
        # What EM multiplies a share by: the mean ratio of a class's likelihood to that of the mix.
        mixed = np.matmul(own, shares[moving][:, :, None])[:, :, 0]
        factor = np.matmul((weights / mixed)[:, None, :], own)[:, 0] / total[moving]
        new = shares[moving] * factor
        new /= new.sum(axis=1, keepdims=True)
        far = np.abs(new - shares[moving]).max(axis=1) > TOLERANCE
        shares[moving] = new
        if not far.any():
            break
        if not far.all():
            moving, own, weights = moving[far], own[far], weights[far]
    return shares


def _find_check(
    survey: NDArray[np.float64], calibration: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    try:
        return estimate_shares(survey, calibration, labels)
    except SurveyMLError:
        return np.full(survey.shape[1], np.nan)
