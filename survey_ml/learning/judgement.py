"""How far the classes of sources can be trusted, from samples of a posterior and held-out images."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from survey_ml import uncertainty_flags as flags
from survey_ml.errors import SurveyMLError
from survey_ml.learning.calibration import Calibrator
from survey_ml.learning.conformal import Guarantee, find_limits, score_labels
from survey_ml.learning.outliers import Gaussians, find_p_values, measure_distances
from survey_ml.learning.uncertainty import Uncertainty, measure_uncertainty

TOO_FAR_LEVEL = 0.01
"""Share of sources like the training's that are called too far from it; 99 held-out images can say so."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What is known from images that neither the network nor its posterior was fitted to.

    Attributes
    ----------
    calibrator : Calibrator
        Fitted on them.
    probabilities : (m, n_classes) array
        Calibrated; of each image by a network that was not trained on it.
    labels : (m,) array of int
        True classes.
    gaussians : Gaussians or None
        Of the embedding of training images.
    distances : (m,) array or None
        Of the held-out images from these.
    """

    calibrator: Calibrator
    probabilities: NDArray[np.floating]
    labels: NDArray[np.integer]
    gaussians: Gaussians | None = None
    distances: NDArray[np.floating] | None = None


@dataclass(frozen=True, eq=False)
class Judgement:
    """How far the classes of n sources can be trusted.

    Attributes
    ----------
    uncertainty : Uncertainty
    calibrated : (n, n_classes) ndarray of float64
        Calibrated mean probabilities.
    sets : (n, n_classes) ndarray of bool
        Classes in the prediction set of each.
    flags : (n,) ndarray of int32
        `survey_ml.uncertainty_flags`.
    """

    uncertainty: Uncertainty
    calibrated: NDArray[np.float64]
    sets: NDArray[np.bool_]
    flags: NDArray[np.int32]


@dataclass(frozen=True)
class Standard:
    """What a judgement is held to.

    Parameters
    ----------
    coverage : float
        Share of sources whose set should hold the true class.
    margin : float
        Sources with a smaller margin of the mean probabilities are doubtful.
    guarantee : str
        See `survey_ml.learning.conformal.find_sets`.
    shares : tuple of float
        Of the classes in the survey, for the guarantee ``weighted``.
    """

    coverage: float = 0.9
    margin: float = 0.2
    guarantee: Guarantee = "class-conditional"
    shares: tuple[float, ...] = ()


def judge_samples(
    samples: ArrayLike, embedding: ArrayLike | None, held_out: HeldOut, standard: Standard
) -> Judgement:
    """Judge the classes of sources.

    Parameters
    ----------
    samples : (n_samples, n, n_classes) array
        Probabilities by samples of the posterior.
    embedding : (n, d) array, optional
        What the network made of the sources; without it none is called too far from training.
    held_out : HeldOut
    standard : Standard

    Returns
    -------
    Judgement
        Each row follows from its own source only.

    Raises
    ------
    SurveyMLError
        When the numbers of classes differ, or values are no probabilities.
    """
    found = measure_uncertainty(samples)
    n_classes = found.probabilities.shape[1]
    if n_classes != held_out.probabilities.shape[1]:
        raise SurveyMLError(
            f"{n_classes} classes, but held-out images of {held_out.probabilities.shape[1]}",
            "use what was made for this model",
        )
    calibrated = held_out.calibrator.apply(found.probabilities)
    limits = find_limits(
        score_labels(held_out.probabilities, held_out.labels),
        held_out.labels,
        n_classes,
        standard.coverage,
        guarantee=standard.guarantee,
        shares=standard.shares or None,
    )
    # In the precision in which held-out probabilities are kept: near one a step is as wide as a score.
    sets = 1.0 - calibrated.astype(np.float32).astype(np.float64) <= limits
    flag = np.zeros(len(calibrated), np.int32)
    flag[(sets.sum(axis=1) != 1) | (found.margin < standard.margin)] |= flags.DOUBTFUL
    if embedding is not None and held_out.gaussians is not None and held_out.distances is not None:
        far = measure_distances(held_out.gaussians, embedding)
        flag[find_p_values(far, held_out.distances) <= TOO_FAR_LEVEL] |= flags.TOO_FAR
    return Judgement(found, calibrated, sets, flag)


def replace_rows(judgement: Judgement, rows: NDArray[np.int64], part: Judgement) -> Judgement:
    """Return a judgement with some of its rows from another one of these sources."""

    def join(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
        found = one.copy()
        found[rows] = other
        return found

    both = (judgement.uncertainty, part.uncertainty)
    measures = {one.name: join(*(getattr(each, one.name) for each in both)) for one in fields(Uncertainty)}
    return Judgement(
        Uncertainty(**measures),
        join(judgement.calibrated, part.calibrated),
        join(judgement.sets, part.sets),
        join(judgement.flags, part.flags),
    )


def describe_judgement(judgement: Judgement, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return a row for each source, as commands print it in JSON."""
    found = judgement.uncertainty
    return [
        {
            "entropy": float(found.entropy[k]),
            "expected_entropy": float(found.expected_entropy[k]),
            "mutual_information": float(found.mutual_information[k]),
            "overlap": float(found.overlap[k]),
            "margin": float(found.margin[k]),
            "calibrated": dict(zip(classes, judgement.calibrated[k].tolist(), strict=True)),
            "set": list(names),
        }
        for k, names in enumerate(name_sets(judgement, classes))
    ]


def name_sets(judgement: Judgement, classes: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the classes of each set, the most probable first."""
    order = np.argsort(-judgement.calibrated, axis=1, kind="stable")
    return [
        tuple(classes[k] for k in row if inside[k]) for row, inside in zip(order, judgement.sets, strict=True)
    ]
