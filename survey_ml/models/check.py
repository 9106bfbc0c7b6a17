"""Try a model: whether its file is whole, and whether it keeps what its card and this package promise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import SurveyMLError
from survey_ml.learning.groups import parse_group
from survey_ml.models.card import Card
from survey_ml.models.classifier import Classifier, Predictions, list_runtimes, load_classifier
from survey_ml.models.estimator import find_estimator
from survey_ml.models.format import SHOWN_DIGITS, read_model
from survey_ml.models.registry import ModelFile
from survey_ml.models.trial import make_images

MOST_BATCH = 1e-6
"""Largest change of a probability with the batch."""
MOST_RUNTIME = 1e-4
"""Largest difference of a probability between runtimes."""
MOST_SYMMETRY = 1e-5
"""Largest change of a probability under a symmetry of a model that is invariant."""
N_BATCH = 129
"""Images for all but the symmetries: two batches of 64 and one more."""


@dataclass(frozen=True)
class Check:
    """One thing that was tried.

    Attributes
    ----------
    name : str
    passed : bool or None
        None for what could not be tried or is only said.
    value : float
        What was measured; NaN where there is no figure.
    detail : str
    """

    name: str
    passed: bool | None
    value: float
    detail: str


@dataclass(frozen=True)
class Symmetry:
    """What one symmetry of the pixel grid does to the probabilities.

    Attributes
    ----------
    name : str
        Such as ``90 deg`` or ``reflected, 90 deg``.
    largest : float
        Largest change of a probability.
    flips : int
        Images whose best class changes.
    claimed : bool
        Whether the card's group has it.
    """

    name: str
    largest: float
    flips: int
    claimed: bool


def check_model(
    model: ModelFile, *, n: int = 1000, seed: int = 1, tell: Callable[[int, int], None] | None = None
) -> tuple[list[Check], list[Symmetry]]:
    """Try a model on images made from a seed.

    Parameters
    ----------
    model : ModelFile
    n : int
        Images for the symmetries.
    seed : int
    tell : callable
        Called with the symmetries done and to do.

    Returns
    -------
    checks : list of Check
        ``file``, ``batch``, ``runtimes`` and ``symmetry``; only ``file`` when that fails.
    symmetries : list of Symmetry
        The seven that are not the identity.
    """
    try:
        tensors, card, digest = read_model(model.path)
        classifier = load_classifier(model.path) if card.base is None else None
    except SurveyMLError as error:
        return [Check("file", False, math.nan, error.message)], []
    size = sum(array.size for array in tensors.values())
    whole = f"hash {digest[:SHOWN_DIGITS]}, {len(tensors)} arrays, {size} values, all as the card says"
    if classifier is None:
        return [Check("file", True, math.nan, whole), _check_posterior(model, card)], []
    few = make_images(N_BATCH, card.preprocessing.side, seed)
    checks = [Check("file", True, math.nan, whole), _check_batches(classifier, few, seed)]
    checks.append(_check_runtimes(model, classifier, few))
    if card.is_bayesian and card.calibration is not None:
        checks.append(_check_samples(model, card, classifier, few))
    images = make_images(n, card.preprocessing.side, seed)
    symmetries = list(_try_symmetries(classifier, images, tell or (lambda done, total: None)))
    checks.append(_judge_symmetries(symmetries, card.invariant_under, n))
    return checks, symmetries


def _check_batches(classifier: Classifier, images: NDArray[np.float32], seed: int) -> Check:
    """Hold batches of 1, 7 and 64, and another order, against one batch of all."""
    whole = classifier.predict(images, batch_size=len(images))
    order = np.random.default_rng(seed).permutation(len(images))
    largest, differ = 0.0, 0
    for size in (1, 7, 64):
        for places in (np.arange(len(images)), order):
            found = classifier.predict(images[places], batch_size=size)
            largest = max(largest, _find_largest(found.probabilities, whole.probabilities[places]))
            differ += int((_choose(found) != _choose(whole)[places]).sum())
    detail = f"{len(images)} images in batches of 1, 7 and 64, in order and shuffled: "
    detail += f"{differ} labels differ, probabilities by {largest:.1g} at most"
    return Check("batch", differ == 0 and largest <= MOST_BATCH, largest, detail)


def _check_posterior(model: ModelFile, card: Card) -> Check:
    """Try whether the judgement of a source depends on those beside it, or changes when it is made again."""
    assert card.base is not None and card.posterior is not None and card.calibration is not None
    estimators = [
        find_estimator(card.base.name, card.base.hash, card.posterior.method, given=model.path)
        for _ in range(2)
    ]
    embedding = np.random.default_rng(0).standard_normal((N_BATCH, card.calibration.width))
    whole = estimators[0].judge(embedding).calibrated
    order = np.random.default_rng(1).permutation(N_BATCH)
    parts = [estimators[1].judge(embedding[[row]]).calibrated for row in order]
    largest = float(np.abs(np.concatenate(parts) - whole[order]).max())
    detail = f"{N_BATCH} embeddings one by one, in another order and loaded again: "
    detail += f"calibrated probabilities differ by {largest:.1g} at most"
    return Check("batch", largest <= MOST_BATCH, largest, detail)


def _check_samples(
    model: ModelFile, card: Card, classifier: Classifier, images: NDArray[np.float32]
) -> Check:
    """Try whether weight samples say of a source the same in any company, and when drawn again."""
    assert card.posterior is not None
    embedding = classifier.predict(images).embedding
    estimators = [
        find_estimator(card.name, classifier.hash, card.posterior.method, given=model.path, samples=20)
        for _ in range(2)
    ]
    whole = estimators[0].judge(embedding, images).calibrated
    order = np.random.default_rng(1).permutation(len(images))
    parts = [
        estimators[1].judge(embedding[rows], images[rows]).calibrated for rows in np.split(order, [1, 8, 40])
    ]
    largest = float(np.abs(np.concatenate(parts) - whole[order]).max())
    detail = (
        f"{len(images)} images in parts of 1, 7, 32 and the rest, in another order and with samples drawn "
    )
    detail += f"again: calibrated probabilities differ by {largest:.1g} at most"
    return Check("samples", largest <= MOST_BATCH, largest, detail)


def _check_runtimes(model: ModelFile, classifier: Classifier, images: NDArray[np.float32]) -> Check:
    others = [name for name in list_runtimes(classifier.card) if name != classifier.runtime]
    if not others:
        return Check("runtimes", None, math.nan, f"only {classifier.runtime} is here to run it")
    mine, largest = classifier.predict(images).probabilities, 0.0
    for name in others:
        # One thread: on busy cores those of torch wait for each other for minutes.
        theirs = load_classifier(model.path, runtime=name, threads=1).predict(images).probabilities
        largest = max(largest, _find_largest(mine, theirs))
    both = f"{classifier.runtime} and {', '.join(others)}"
    detail = f"{both} on {len(images)} images: probabilities differ by {largest:.2g} at most"
    return Check("runtimes", largest <= MOST_RUNTIME, largest, detail)


def _try_symmetries(
    classifier: Classifier, images: NDArray[np.float32], tell: Callable[[int, int], None]
) -> Iterator[Symmetry]:
    claimed = _list_claimed(classifier.card.invariant_under)
    plain = classifier.predict(images)
    moves = [(turns, reflected) for reflected in (False, True) for turns in range(4)][1:]
    tell(1, len(moves) + 1)
    for number, (turns, reflected) in enumerate(moves):
        moved = np.rot90(images[:, :, ::-1] if reflected else images, turns, axes=(1, 2))
        found = classifier.predict(np.ascontiguousarray(moved))
        name = ", ".join([*(["reflected"] * reflected), *([f"{90 * turns} deg"] if turns else [])])
        yield Symmetry(
            name,
            _find_largest(found.probabilities, plain.probabilities),
            int((_choose(found) != _choose(plain)).sum()),
            (turns, reflected) in claimed,
        )
        tell(number + 2, len(moves) + 1)


def _list_claimed(name: str) -> set[tuple[int, bool]]:
    """Return the quarter turns and reflections that a group has."""
    if not name:
        return set()
    group = parse_group(name)
    turns = [turn for turn in range(4) if turn * group.turns % 4 == 0]
    return {(turn, reflected) for turn in turns for reflected in {False, group.reflected}}


def _judge_symmetries(symmetries: list[Symmetry], claim: str, n: int) -> Check:
    """Pass when all that the card claims holds; without a claim say only what was found."""
    over_all = max(one.largest for one in symmetries)
    claimed = [one.largest for one in symmetries if one.claimed]
    flips = max(one.flips for one in symmetries)
    if over_all < MOST_SYMMETRY:
        detail = f"invariant under all eight symmetries: {n} images, probabilities change by {over_all:.1g}"
    else:
        detail = f"not invariant: {n} images, probabilities change by up to {over_all:.2g}, labels of {flips}"
    if not claimed:
        return Check("symmetry", None, over_all, f"{detail}; the card claims nothing")
    kept = max(claimed) < MOST_SYMMETRY
    detail += f"; under {claim}, which the card claims, by {max(claimed):.1g}"
    return Check("symmetry", kept, max(claimed), detail)


def _find_largest(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    return float(np.abs(one - two).max(initial=0.0))


def _choose(found: Predictions) -> NDArray[np.int64]:
    return found.probabilities.argmax(axis=1)
