"""Whether a set of sources is like what a model was made for, how it differs, and what may still be said.

The distance of two sets hides what it is made of: another mix of classes (prior shift), which is harmless
and can be corrected, and other looks of each class (conditional shift), which is neither; the two may even
cancel. So the reference is brought to the mix of the sample first, and what differs then is held against
chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from survey_ml.errors import ConfigError, InputError
from survey_ml.learning.covariates import Covariate, compare_covariates, name_cause
from survey_ml.learning.frechet import measure_frechet
from survey_ml.learning.label_shift import LabelShift, estimate_label_shift, measure_chance
from survey_ml.learning.permutations import Permuted, Statistic, combine, deal, thin
from survey_ml.learning.scores import Z
from survey_ml.learning.separation import measure_separation
from survey_ml.learning.shift_distances import measure_mix, measure_mmd, measure_pairs
from survey_ml.learning.shift_features import Scale, check_finite, fit_scale
from survey_ml.learning.shift_matching import choose_mix, find_classes
from survey_ml.learning.shift_sources import Sources

Level = Literal["green", "amber", "red"]
LEAST_SOURCES = 20
"""Fewer on either side say nothing."""
MOST_SOURCES = 2000
"""Sources of a side that distances are taken of; of more, as many are chosen at random."""
AMBER_EFFECT, RED_EFFECT = 0.10, 0.20
"""Maximum mean discrepancy of sets matched in their mix, from 0 to about 1, that counts at all, and that is
too much. Significance alone will not do: thousands of sources show differences that harm nobody."""
LEAST_ANSWER = 1e-4
"""Smaller probabilities are taken as this one where answers are compared."""
LEAST_PRIOR = 0.10
"""Share of a class that has to change to count."""
ANSWERS_WEIGHT = 0.9
"""Of the model's answers in the score; the rest is that of what it sees, so that nothing red is silent.
Chosen on other shifts and images than those that the score is tried on."""


@dataclass(frozen=True, eq=False)
class Prior:
    """The mix of classes of a sample.

    Attributes
    ----------
    refused : str
        Why no shares are given; empty when they are.
    found : LabelShift or None
    p_value : float
        That the mix is that of the reference; NaN when refused.
    change : float
        Largest difference of a share from that in the reference; NaN when refused.
    """

    refused: str
    found: LabelShift | None = None
    p_value: float = float("nan")
    change: float = float("nan")

    def is_changed(self, alpha: float) -> bool:
        """Tell whether the mix differs, significantly and by enough to count."""
        return self.p_value <= alpha and self.change >= LEAST_PRIOR


@dataclass(frozen=True)
class Conditional:
    """How far a sample is from the reference in its own mix of classes.

    Attributes
    ----------
    statistics : dict
        As `Shift.statistics`.
    p_value : float
        Of those of the embedding together.
    effect : float
        Root of the squared maximum mean discrepancy: 0 where the sets are of one kind (also when the
        squared value, which has no bias, is negative), about 1 where they have nothing in common.
    level : str
    matched : bool
        Whether the mix could be matched.
    prior_only : float
        Squared maximum mean discrepancy that the mix alone would make: of the reference from itself in the
        mix of the sample. Beside ``mmd`` of the sets as they are and matched it tells what the total is
        made of; the parts do not add up to it, and may cancel.
    """

    statistics: dict[str, Statistic]
    p_value: float
    effect: float
    level: Level
    matched: bool
    prior_only: float


@dataclass(frozen=True, eq=False)
class Shift:
    """The verdict on a sample.

    Attributes
    ----------
    level : str
        ``green``: nothing found. ``amber``: something differs that can be corrected or is small. ``red``:
        the model's classes are not to be trusted here.
    score : float
        Weighted mean of `Conditional.effect` and the same of the model's answers, from 0 to about 1: how loud
        the alarm is. What moves the answers costs accuracy, and what does not costs less. The answers are
        matched in the mix only where nothing but the mix differs: else a shift that moves all answers
        alike would pass for another mix.
    cause : str
        Likely cause: a quantity of the images, ``prior``, or ``appearance``; empty when green.
    statistics : dict
        Name to statistic, sets as they are. ``answers`` is the squared discrepancy of the logarithms of the
        probabilities.
    prior : Prior
    conditional : Conditional
    covariates : dict
    """

    level: Level
    score: float
    cause: str
    statistics: dict[str, Statistic]
    prior: Prior
    conditional: Conditional
    covariates: dict[str, Covariate]


def judge_shift(
    reference: Sources,
    sample: Sources,
    calibration: Sources | None = None,
    *,
    scale: Scale | None = None,
    permutations: int = 200,
    alpha: float = 0.01,
    seed: int = 0,
) -> Shift:
    """Judge whether a sample is like a reference.

    Parameters
    ----------
    reference : Sources
        Best of images that the model was not trained on: those that it was look different to it.
    sample : Sources
    calibration : Sources, optional
        Labelled images that the model was not trained on, to estimate mixes with. The reference, unless
        given, when that has labels.
    scale : Scale, optional
        Of the embedding; that of both sets together unless given.
    permutations : int
        200 for a level of 0.01.
    alpha : float
        Level of significance.
    seed : int

    Raises
    ------
    InputError
        When a set has too few sources, or embeddings that are not finite or of another length.
    ConfigError
        When the level cannot be reached with so few permutations.
    """
    if not 1.0 / (permutations + 1) <= alpha < 1.0:
        raise ConfigError(
            f"a level of {alpha:g} cannot be told with {permutations} permutations",
            "give a larger one, or more permutations",
        )
    for name, side in (("reference", reference), ("sample", sample)):
        if len(side) < LEAST_SOURCES:
            raise InputError(
                f"the {name} has {len(side)} sources, too few to compare: no statistic is given",
                f"give {LEAST_SOURCES} at least",
            )
        check_finite(side.embedding)
    scale = scale or fit_scale(
        thin(reference.embedding, MOST_SOURCES, seed), thin(sample.embedding, MOST_SOURCES, seed + 1)
    )
    one, other = (
        scale.apply(thin(side.embedding, MOST_SOURCES, number))
        for number, side in enumerate((reference, sample), start=seed)
    )
    total, _ = _compare(one, other, permutations, seed, frechet=True)
    total["answers"] = _compare_answers(
        thin(reference.probabilities, MOST_SOURCES, seed),
        thin(sample.probabilities, MOST_SOURCES, seed + 1),
        permutations,
        seed,
    )
    known = calibration if calibration is not None else reference if reference.labels is not None else None
    prior = _find_prior(reference, sample, known, seed)
    matched = _match(reference, sample, prior, seed)
    covariates = compare_covariates(reference.covariates, sample.covariates, alpha, matched.rows)
    conditional = _judge_conditional(reference, sample, matched, scale, permutations, alpha, seed)
    cause = name_cause(covariates)
    only_mix = conditional.level == "green" and not cause
    if not only_mix:
        prior = Prior(
            "classes look different here, so that their shares cannot be told from the model's answers"
            if conditional.level != "green"
            else f"the {cause} of the images differs, and may move the model's answers as another mix would"
        )
    answers = (conditional.statistics if only_mix else total)["answers"]
    score = ANSWERS_WEIGHT * _take_root(answers) + (1.0 - ANSWERS_WEIGHT) * conditional.effect
    level = conditional.level
    if level == "green" and (cause or prior.is_changed(alpha)):
        level = "amber"
    if level != "green" and not cause:
        cause = "appearance" if conditional.level != "green" else "prior"
    return Shift(level, score, cause, total, prior, conditional, covariates)


def show_answers(probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return what a model says of sources as numbers to compare: logarithms (n, n_classes) of mean zero."""
    logs = np.log(np.maximum(probabilities, LEAST_ANSWER))
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))


def name_classes(prior: Prior, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the share of each class with its interval; nothing when refused."""
    if prior.found is None:
        return {}
    found = prior.found
    return {
        name: {"estimate": float(found.shares[k]), "low": float(found.low[k]), "high": float(found.high[k])}
        for k, name in enumerate(classes)
    }


def _find_prior(reference: Sources, sample: Sources, known: Sources | None, seed: int) -> Prior:
    """Return the mix of the sample, and whether it is that of the reference."""
    if known is None or known.labels is None:
        return Prior("there are no labelled images that the model was not trained on")
    counts = np.bincount(known.labels, minlength=known.probabilities.shape[1])
    if (counts == 0).any() or len(counts) < 2:
        return Prior("there are no labelled images of some class")
    found = estimate_label_shift(sample.probabilities, known.probabilities, known.labels, seed=seed)
    if reference.labels is not None:
        shares = np.bincount(reference.labels, minlength=len(counts)) / len(reference)
        error = np.sqrt(shares * (1.0 - shares) / len(reference))
    else:
        own = estimate_label_shift(reference.probabilities, known.probabilities, known.labels, seed=seed)
        shares, error = own.shares, 0.5 * (own.high - own.low) / Z
    known_values = np.asarray(known.probabilities, np.float64)
    chance = measure_chance(known_values, np.asarray(known.labels), found, shares, len(sample), seed)
    width = np.hypot(np.maximum(0.5 * (found.high - found.low) / Z, chance), error)
    away = np.abs(found.shares - shares)
    scores = np.divide(away, width, out=np.zeros_like(away), where=width > 0.0)
    # The shares of two classes are one number; of more, the largest of all is looked at.
    tries = 1 if len(shares) == 2 else len(shares)
    p_value = min(1.0, tries * float(2.0 * stats.norm.sf(scores.max())))
    return Prior("", found, p_value, float(away.max()))


def _compare(
    one: NDArray[np.float32], other: NDArray[np.float32], permutations: int, seed: int, *, frechet: bool
) -> tuple[dict[str, Statistic], float]:
    """Return all statistics of two sets, and one p-value."""
    pooled = np.concatenate([one, other])
    inside = deal(len(one), len(other), permutations, seed)
    parts: dict[str, Permuted] = measure_pairs(pooled, inside)
    parts["separation"] = measure_separation(pooled, inside, seed=seed)
    p_value = combine(list(parts.values()))
    if frechet:
        parts |= measure_frechet(pooled, inside)
    n = min(len(one), len(other))
    return {name: part.summarise(n) for name, part in parts.items()}, p_value


@dataclass(frozen=True, eq=False)
class _Matched:
    """A reference in the mix of a sample.

    Attributes
    ----------
    labels : (n,) array of int
        Classes of the reference.
    shares : (n_classes,) array
        Mix of the sample.
    rows : (k,) array of int, or None
        Of the reference, in that mix; None where that cannot be.
    """

    labels: NDArray[np.int64]
    shares: NDArray[np.float64]
    rows: NDArray[np.int64] | None


def _match(reference: Sources, sample: Sources, prior: Prior, seed: int) -> _Matched:
    """Bring the reference to the mix of the sample."""
    rng = np.random.default_rng(seed)
    labels = find_classes(reference, prior.found, rng)
    found = prior.found.shares if prior.found is not None else sample.probabilities.mean(axis=0)
    shares = np.asarray(found, np.float64)
    return _Matched(labels, shares, choose_mix(labels, shares, rng))


def _judge_conditional(
    reference: Sources,
    sample: Sources,
    matched: _Matched,
    scale: Scale,
    permutations: int,
    alpha: float,
    seed: int,
) -> Conditional:
    """Return how far the sample is from the reference in its mix, or as it is where that cannot be."""
    labels, shares, chosen = matched.labels, matched.shares, matched.rows
    everything = np.arange(len(reference))
    rows = thin(everything if chosen is None else chosen, MOST_SOURCES, seed)
    others = thin(np.arange(len(sample)), MOST_SOURCES, seed + 1)
    one, other = scale.apply(reference.embedding[rows]), scale.apply(sample.embedding[others])
    statistics, p_value = _compare(one, other, permutations, seed + 2, frechet=False)
    statistics["answers"] = _compare_answers(
        reference.probabilities[rows], sample.probabilities[others], permutations, seed + 3
    )
    effect = _take_root(statistics["mmd"])
    level: Level = "green"
    if p_value <= alpha and effect >= AMBER_EFFECT:
        level = "red" if effect >= RED_EFFECT else "amber"
    prior_only = float("nan")
    if chosen is not None:
        part = thin(everything, MOST_SOURCES, seed)
        change = shares - np.bincount(labels[part], minlength=len(shares)) / len(part)
        prior_only = measure_mix(scale.apply(reference.embedding[part]), labels[part], change)
    return Conditional(statistics, p_value, effect, level, chosen is not None, prior_only)


def _compare_answers(
    one: NDArray[np.floating], other: NDArray[np.floating], permutations: int, seed: int
) -> Statistic:
    """Return the squared discrepancy of the logarithms of probabilities (n, n_classes)."""
    logs = [show_answers(side) for side in (one, other)]
    n, d = min(len(one), len(other)), one.shape[1]
    if not np.ptp(np.concatenate(logs), axis=0).any():
        return Statistic(0.0, 0.0, 0.0, 0.0, 0.0, 1.0, n, d)
    scale = fit_scale(*logs)
    pooled = np.concatenate([scale.apply(side) for side in logs])
    return measure_mmd(pooled, deal(len(one), len(other), permutations, seed)).summarise(n)


def _take_root(squared: Statistic) -> float:
    """Return the root of a squared discrepancy, which chance can make negative."""
    return float(np.sqrt(max(0.0, squared.value)))
