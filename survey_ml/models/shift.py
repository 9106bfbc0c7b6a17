"""Images as a shift monitor wants to know them: what a model makes of them, and how they look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import InputError
from survey_ml.learning.covariates import measure_covariates
from survey_ml.learning.shift import Shift, judge_shift, name_classes, show_answers
from survey_ml.learning.shift_sources import Sources
from survey_ml.models.classifier import Classifier
from survey_ml.models.reference import Reference


def describe_images(
    classifier: Classifier,
    images: NDArray[np.float32],
    *,
    labels: NDArray[np.int64] | None = None,
    beam_arcsec: Sequence[float] | None = None,
    rms: Sequence[float] | None = None,
) -> Sources:
    """Return what a model makes of images, and how they look.

    Parameters
    ----------
    classifier : Classifier
    images : (n, side, side) ndarray of float32
        As `survey_ml.learning.preparation` makes them.
    labels : (n,) ndarray of int, optional
        Numbers of the model's classes.
    beam_arcsec, rms : sequence of float, optional
        Of each image, NaN where not known. A beam that is not known is measured.
    """
    wanted = classifier.card.preprocessing
    found = classifier.predict(images)
    covariates = measure_covariates(images, wanted.clip_sigma, subtracted=wanted.subtract_clip)
    if beam_arcsec is not None:
        known = np.asarray(beam_arcsec, np.float64) / wanted.pixel_arcsec
        covariates["beam"] = np.where(np.isfinite(known), known, covariates["beam"])
    if rms is not None:
        covariates["rms"] = np.asarray(rms, np.float64)
    return Sources(found.embedding, found.probabilities, labels, covariates)


def compare_sets(
    classifier: Classifier,
    first: Sources,
    second: Sources,
    reference: Reference | None,
    *,
    permutations: int = 200,
    alpha: float = 0.01,
    seed: int = 0,
) -> Shift:
    """Judge whether a second set is like a first one, as a model sees them.

    The reference summary, if the model has one, gives the scale of the embeddings and the labelled images
    that the mix of classes is estimated with. Where nothing but the answers is known of a set (an embedding
    of length 0, of a catalogue) only the answers of both are compared.

    Raises
    ------
    InputError
        When the reference is of other classes, and as `survey_ml.learning.shift.judge_shift` says.
    """
    if reference is not None and reference.summary.classes != classifier.classes:
        raise InputError(
            f"the reference has the classes {', '.join(reference.summary.classes)}, the model "
            f"{', '.join(classifier.classes)}",
            "take the reference that came with the model",
        )
    seen = bool(first.embedding.shape[1] and second.embedding.shape[1])
    if not seen:
        first, second = (
            replace(side, embedding=show_answers(side.probabilities)) for side in (first, second)
        )
    return judge_shift(
        first,
        second,
        None if reference is None else reference.sources,
        scale=reference.scale if seen and reference is not None else None,
        permutations=permutations,
        alpha=alpha,
        seed=seed,
    )


def describe_shift(shift: Shift, classes: Sequence[str]) -> dict[str, Any]:
    """Return a verdict as commands print it in JSON."""
    conditional = shift.conditional
    return {
        "level": shift.level,
        "score": shift.score,
        "cause": shift.cause,
        "statistics": {name: asdict(one) for name, one in shift.statistics.items()},
        "prior": {"refused": bool(shift.prior.refused), "classes": name_classes(shift.prior, classes)},
        "conditional": {
            "level": conditional.level,
            "effect": conditional.effect,
            "p_value": conditional.p_value,
            "matched": conditional.matched,
            "prior_only": conditional.prior_only,
            "statistics": {name: asdict(one) for name, one in conditional.statistics.items()},
        },
        "covariates": {name: asdict(one) for name, one in shift.covariates.items()},
    }
