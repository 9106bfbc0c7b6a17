"""A pool of unlabelled images beside labelled ones, as a model sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from survey_ml.errors import ConfigError, InputError
from survey_ml.labelled import LabelledImages
from survey_ml.learning.pools import Leak, Positions, find_leaks, judge_pool
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.learning.shift import LEAST_SOURCES, judge_shift
from survey_ml.learning.shift_sources import Sources
from survey_ml.models.classifier import Classifier
from survey_ml.models.shift import describe_images


@dataclass(frozen=True)
class Judged:
    """What is said of a pool.

    Attributes
    ----------
    reasons : list of str
        Why it is not safe; empty when it is.
    leaks : list of Leak
    notes : list of str
        What could not be looked at.
    """

    reasons: list[str]
    leaks: list[Leak]
    notes: list[str]


def judge_images(
    classifier: Classifier,
    labelled: LabelledImages,
    pool: Sources,
    places: Sequence[tuple[str, float, float]],
    *,
    permutations: int = 200,
    alpha: float = 0.01,
    seed: int = 0,
) -> Judged:
    """Judge a pool.

    Parameters
    ----------
    classifier : Classifier
    labelled : LabelledImages
        Of the model's classes.
    pool : Sources
        What the model makes of the pool.
    places : sequence of (str, float, float)
        Name, right ascension and declination in deg of each image of the pool, NaN where not known.
    permutations, alpha, seed
        As `survey_ml.learning.shift.judge_shift`.

    Raises
    ------
    ConfigError
        When the classes are not the model's.
    InputError
        When there are too few images to compare.
    """
    try:
        # A table of labels names its classes by the alphabet, whatever the model's order.
        labelled = labelled.order_classes(classifier.classes)
    except ValueError:
        raise ConfigError(
            f"the labelled images are of {', '.join(labelled.classes)}, the model of "
            f"{', '.join(classifier.classes)}",
            "name a model of these classes with --model",
        ) from None
    held = np.isin(labelled.split, ("valid", "test"))
    chosen = labelled.take(held) if held.sum() >= 2 * LEAST_SOURCES else labelled
    images = prepare_images(chosen, classifier.card.preprocessing.side)
    # Of the pool they are left out when it is read.
    shown = np.asarray(images.any(axis=(1, 2)))
    images, chosen = images[shown], chosen.take(shown)
    if len(chosen) < LEAST_SOURCES:
        raise InputError(
            f"{len(chosen)} labelled images have something in them, too few to compare with",
            f"give {LEAST_SOURCES} at least",
        )
    reference = describe_images(classifier, images, labels=chosen.labels)
    shift = judge_shift(reference, pool, permutations=permutations, alpha=alpha, seed=seed)
    sides = np.where(labelled.split == "", "labelled", labelled.split)
    here = Positions(labelled.names, labelled.ra, labelled.dec, sides)
    names, ra, dec = (list(column) for column in zip(*places, strict=True))
    there = Positions(
        np.array(names, np.str_), np.array(ra, np.float64), np.array(dec, np.float64),
        np.full(len(names), "unlabelled"),
    )  # fmt: skip
    leaks = find_leaks(here, there)
    n_train = int(np.count_nonzero(~held))
    shares = np.bincount(chosen.labels, minlength=len(labelled.classes)) / len(chosen)
    notes = []
    if empty := int(np.count_nonzero(~shown)):
        notes.append(f"{empty} of {len(shown)} labelled images have nothing in them, and are left out")
    for side, where in (("labelled", here), ("unlabelled", there)):
        lost = int(np.count_nonzero(~(np.isfinite(where.ra) & np.isfinite(where.dec))))
        if lost:
            notes.append(
                f"{lost} of {len(where.ra)} {side} images have no positions: whether their sources are on "
                "both sides is not known"
            )
    return Judged(judge_pool(shift, leaks, shares, classifier.classes, alpha, n_train), leaks, notes)
