"""Maps from the probabilities of a model to calibrated ones: temperature, vector scaling, isotonic.

They are fitted on images that the model was not trained on, and are plain numbers, so that they fit into
the card of a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from survey_ml.errors import SurveyMLError
from survey_ml.learning.scores import fit_temperature

Method = Literal["temperature", "vector", "isotonic"]
LEAST_PROBABILITY = 1e-30
"""Smaller probabilities are taken as this one; those of single precision end at about 1e-38 or at zero."""
LEAST_SCALE = 1e-3
"""Vector scaling keeps the order of a class's probabilities."""
PRIOR_WIDTH = 3.0
"""Standard deviation of the numbers of vector scaling about doing nothing, before there are data."""


@dataclass(frozen=True)
class Calibrator:
    """A map of probabilities, as plain numbers that JSON can hold.

    Parameters
    ----------
    method : str
        ``temperature`` and ``vector``: softmax of ``scale * log(p) + shift``. ``isotonic``: for each class
        a rising line through its knots, the results scaled to add up to one.
    scale, shift : tuple of float
        One for each class; empty for ``isotonic``. A temperature T is a scale of 1 / T for all.
    knots : tuple
        For each class, its probabilities before and after: two tuples of the same length; only for
        ``isotonic``.

    Raises
    ------
    SurveyMLError
        When the numbers do not belong together, as in a file that was changed by hand.
    """

    method: Method
    scale: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()
    knots: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()

    def __post_init__(self) -> None:
        if fault := _find_fault(self):
            raise SurveyMLError(f"a calibrator of the method {self.method!r} {fault}", "fit it again")

    @property
    def n_classes(self) -> int:
        """Classes that it was made for."""
        return len(self.knots if self.method == "isotonic" else self.scale)

    def apply(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """Return calibrated probabilities.

        Parameters
        ----------
        probabilities : (n, n_classes) array
            Of the model, rows adding up to one.

        Returns
        -------
        (n, n_classes) ndarray of float64
            Rows add up to one; each depends on its own row only.

        Raises
        ------
        SurveyMLError
            When the number of classes is another one.
        """
        values = np.asarray(probabilities, np.float64)
        if values.ndim != 2 or values.shape[1] != self.n_classes:
            raise SurveyMLError(
                f"probabilities have the shape {values.shape}, and the calibrator is for "
                f"{self.n_classes} classes",
                "use the calibrator of the same model",
            )
        if self.method == "isotonic":
            lines = [np.interp(values[:, k], *pair) for k, pair in enumerate(self.knots)]
            raised = np.stack(lines, axis=1)
            return raised / raised.sum(axis=1, keepdims=True)
        return np.asarray(special.softmax(_find_logs(values) * self.scale + self.shift, axis=1))


def fit_calibrator(probabilities: ArrayLike, labels: ArrayLike, method: Method) -> Calibrator:
    """Fit a calibrator to images that the model was not trained on.

    Parameters
    ----------
    probabilities : (n, n_classes) array
        Of the model.
    labels : (n,) array of int
        True classes.
    method : str
        ``temperature``: one number, which changes no label; the one to take with few images.
        ``vector``: two numbers a class, which can also shift the balance of classes. ``isotonic``: any
        rising line for each class; needs hundreds of images of each, or it fits their noise.

    Raises
    ------
    SurveyMLError
        When there are no images, or the arrays do not belong together.

    Notes
    -----
    Temperature: Guo et al. 2017. Vector scaling acts on log probabilities here, not on logits, because a
    mean over samples of weights has no logits: the diagonal form of Dirichlet calibration (Kull et al.
    2019), which for two classes is beta calibration (Kull et al. 2017). A weak Gaussian prior keeps its
    numbers finite where the images are told apart without a fault. Isotonic, one class against the rest:
    Zadrozny & Elkan 2002; a probability stays 1 / (n + 2) away from 0 and 1, as n images cannot show more
    (rule of succession).
    """
    values, classes = np.asarray(probabilities, np.float64), np.asarray(labels)
    if values.ndim != 2 or classes.shape != values.shape[:1] or not len(values):
        raise SurveyMLError(
            f"probabilities of the shape {values.shape} and labels of the shape {classes.shape} cannot be "
            "calibrated",
            "give one label an image, and one image at least",
        )
    if method not in _FITS:
        raise SurveyMLError(f"there is no calibration {method!r}", f"use one of {', '.join(_FITS)}")
    return _FITS[method](values, classes)


def _fit_temperature(values: NDArray[np.float64], labels: NDArray[np.int64]) -> Calibrator:
    n_classes = values.shape[1]
    scale = 1.0 / fit_temperature(_find_logs(values), labels)
    return Calibrator("temperature", (scale,) * n_classes, (0.0,) * n_classes)


def _fit_vector(values: NDArray[np.float64], labels: NDArray[np.int64]) -> Calibrator:
    logs, n_classes = _find_logs(values), values.shape[1]
    true = np.eye(n_classes)[labels]

    def lose(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the negative log of likelihood times prior, an image, and its gradient."""
        scale, shift = numbers[:n_classes], numbers[n_classes:]
        scores = special.log_softmax(logs * scale + shift, axis=1)
        excess = np.exp(scores) - true
        off = np.concatenate([scale - 1.0, shift]) / PRIOR_WIDTH
        loss = -(scores * true).sum() + 0.5 * (off**2).sum()
        slope = np.concatenate([(excess * logs).sum(axis=0), excess.sum(axis=0)]) + off / PRIOR_WIDTH
        return float(loss / len(logs)), slope / len(logs)

    start = np.concatenate([np.ones(n_classes), np.zeros(n_classes)])
    bounds = [(LEAST_SCALE, None)] * n_classes + [(None, None)] * n_classes
    numbers = optimize.minimize(lose, start, jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-12).x
    # The same number added to all shifts changes nothing.
    shift = numbers[n_classes:] - numbers[n_classes:].mean()
    return Calibrator("vector", tuple(numbers[:n_classes].tolist()), tuple(shift.tolist()))


def _fit_isotonic(values: NDArray[np.float64], labels: NDArray[np.int64]) -> Calibrator:
    knots = tuple(_fit_line(values[:, k], labels == k) for k in range(values.shape[1]))
    return Calibrator("isotonic", knots=knots)


def _fit_line(
    values: NDArray[np.float64], true: NDArray[np.bool_]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the ends of the steps of a rising line, nearest in squares to the share of true ones."""
    # Equal probabilities are one point with a weight: they must be mapped to the same.
    places, which, weights = np.unique(values, return_inverse=True, return_counts=True)
    shares = np.bincount(which, true) / weights
    fitted = np.asarray(optimize.isotonic_regression(shares, weights=weights).x)
    least = 1.0 / (len(values) + 2.0)
    fitted = np.clip(fitted, least, 1.0 - least)
    inner = np.zeros(len(fitted), bool)
    inner[1:-1] = (fitted[1:-1] == fitted[:-2]) & (fitted[1:-1] == fitted[2:])
    return tuple(places[~inner].tolist()), tuple(fitted[~inner].tolist())


def _find_logs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.maximum(values, LEAST_PROBABILITY))


def _find_fault(made: Calibrator) -> str:
    if made.method not in _FITS:
        return "is not known"
    lines = made.knots if made.method == "isotonic" else (made.scale, made.shift)
    numbers = [*made.scale, *made.shift, *(x for pair in made.knots for side in pair for x in side)]
    if not all(isfinite(number) for number in numbers):
        return "has numbers that are not finite"
    if made.method != "isotonic":
        if len(made.scale) != len(made.shift) or len(made.scale) < 2 or made.knots:
            return "has no scale and shift for each of two classes or more"
        return "" if min(made.scale) > 0.0 else "has a scale that is not positive"
    if len(lines) < 2 or made.scale or made.shift:
        return "has no knots for each of two classes or more"
    for before, after in made.knots:
        if len(before) != len(after) or not before:
            return "has knots without a pair"
        if (np.diff(before) <= 0.0).any() or (np.diff(after) < 0.0).any() or not 0.0 < min(after) <= 1.0:
            return "has knots that do not rise from above zero"
    return ""


_FITS: dict[str, Callable[[NDArray[np.float64], NDArray[np.int64]], Calibrator]] = {
    "temperature": _fit_temperature,
    "vector": _fit_vector,
    "isotonic": _fit_isotonic,
}
