"""Embeddings made ready for distances: what is constant left out, one width for all, outliers held in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from survey_ml.errors import InputError, SurveyMLError

LEAST_WIDTH = 0.02
"""Features whose standard deviation is a smaller share of the median one are left out: units of a network
that hardly ever answer, whose widths would make any distance a million."""
CLIP = 10.0
"""Standard deviations beyond which a feature is held in."""


@dataclass(frozen=True, eq=False)
class Scale:
    """Where features lie and how wide they are.

    Attributes
    ----------
    centre, width : (d,) ndarray of float64
    kept : (d,) ndarray of bool
        Features that vary.
    """

    centre: NDArray[np.float64]
    width: NDArray[np.float64]
    kept: NDArray[np.bool_]

    def apply(self, embedding: ArrayLike) -> NDArray[np.float32]:
        """Return embeddings (n, d) in standard deviations of the kept features, (n, k), held to `CLIP`.

        Raises
        ------
        InputError
            When values are not finite, or there are more or fewer features.
        """
        values = check_embedding(embedding)
        if values.shape[1] != len(self.centre):
            raise InputError(
                f"embeddings have {values.shape[1]} numbers, those to compare with {len(self.centre)}",
                "compare with what was made by the same model",
            )
        scaled = (values[:, self.kept] - self.centre[self.kept]) / self.width[self.kept]
        return np.clip(scaled, -CLIP, CLIP).astype(np.float32)


def fit_scale(*embeddings: ArrayLike) -> Scale:
    """Fit a scale to one or more sets of embeddings (n, d), taken together.

    Raises
    ------
    InputError
        When values are not finite.
    SurveyMLError
        When no feature varies.

    Notes
    -----
    Permutations are exact when the scale does not know which set a source is from: fit it to images of
    neither set, as those of a model's reference summary, or to both together.
    """
    values = np.concatenate([check_embedding(one) for one in embeddings])
    return make_scale(values.mean(axis=0), values.var(axis=0))


def make_scale(mean: ArrayLike, variance: ArrayLike) -> Scale:
    """Make a scale of the mean (d,) and the variance (d,) of features.

    Raises
    ------
    SurveyMLError
        When no feature varies.
    """
    width = np.sqrt(np.asarray(variance, np.float64))
    varying = width[width > 0.0]
    kept = width > LEAST_WIDTH * (np.median(varying) if varying.size else np.inf)
    if not kept.any():
        raise SurveyMLError("no number of the embeddings varies", "give more sources, and different ones")
    return Scale(np.asarray(mean, np.float64), width, kept)


def check_embedding(embedding: ArrayLike) -> NDArray[np.float64]:
    """Return embeddings (n, d) in float64.

    Raises
    ------
    InputError
        When they are no such array, there is none, or values are not finite.
    """
    values = np.asarray(embedding, np.float64)
    if values.ndim != 2 or not values.size:
        raise InputError(
            f"embeddings have the shape {values.shape}, not (n, d)", "give one row of numbers a source"
        )
    check_finite(values)
    return values


def check_finite(embedding: NDArray[np.floating]) -> None:
    """Refuse embeddings (n, d) that are not finite.

    Raises
    ------
    InputError
        With the number of these.
    """
    if lost := int((~np.isfinite(embedding)).any(axis=1).sum()):
        raise InputError(
            f"{lost} of {len(embedding)} embeddings have values that are not finite",
            "leave these sources out; the images they are from may have no data",
        )
