"""Probabilities corrected by a temperature and a bias for each class, many fits at a time.

Bias-corrected temperature scaling (Alexandari, Kundaje & Shrikumar 2020): the least that makes the mean
probabilities those of the classes, which an estimate of other shares rests on. A bootstrap fits it hundreds
of times to weighted images; Newton's method does all of them side by side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

LEAST_PROBABILITY = 1e-9
"""Smaller probabilities are taken as this one: no few hundred images can confirm them."""
PRIOR_WIDTH = 3.0
"""Standard deviation of scale and biases about doing nothing; keeps them finite where no image is wrong."""
STEPS = 30
HALVINGS = 8
BLOCK_VALUES = 1 << 20


def correct(
    probabilities: NDArray[np.float64], scale: float, shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the softmax of ``scale * log(p) + shift``, (n, n_classes)."""
    return np.asarray(special.softmax(_find_logs(probabilities) * scale + shift, axis=1))


def fit_corrections(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit a correction for each row of weights.

    Parameters
    ----------
    probabilities : (n, n_classes) array
    labels : (n,) array of int
    weights : (k, n) array
        How often each image counts.

    Returns
    -------
    scale : (k,) ndarray of float64
        One over the temperature.
    shift : (k, n_classes) ndarray of float64
        Of mean zero.
    """
    n, n_classes = probabilities.shape
    # One column for the scale, one for the bias of each class but the first.
    design = np.concatenate(
        [
            _find_logs(probabilities)[:, :, None],
            np.broadcast_to(np.eye(n_classes)[:, 1:], (n, n_classes, n_classes - 1)),
        ],
        axis=2,
    )
    step = max(1, BLOCK_VALUES // design.size)
    found = np.concatenate(
        [_fit(design, labels, weights[first : first + step]) for first in range(0, len(weights), step)]
    )
    shift = np.concatenate([np.zeros((len(found), 1)), found[:, 1:]], axis=1)
    return found[:, 0], shift - shift.mean(axis=1, keepdims=True)


def _fit(
    design: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return numbers (k, n_classes), the scale first, that minimise the loss of each row of weights."""
    k, size = len(weights), design.shape[2]
    neutral = np.concatenate([[1.0], np.zeros(size - 1)])
    numbers = np.tile(neutral, (k, 1))
    true = design[np.arange(len(labels)), labels]
    loss, likely = _find_loss(design, true, weights, numbers, neutral)
    for _ in range(STEPS):
        middle = np.einsum("knc,ncj->knj", likely, design)
        slope = np.einsum("kn,knj->kj", weights, middle - true) + (numbers - neutral) / PRIOR_WIDTH**2
        if np.abs(slope).max() < 1e-6:
            break
        weighed = likely * weights[:, :, None]
        bend = np.einsum("knc,nci,ncj->kij", weighed, design, design, optimize=True)
        bend -= np.einsum("kn,kni,knj->kij", weights, middle, middle, optimize=True)
        move = np.linalg.solve(bend + np.eye(size) / PRIOR_WIDTH**2, slope[:, :, None])[:, :, 0]
        reach = np.ones((k, 1))
        for _ in range(HALVINGS):
            tried, likely = _find_loss(design, true, weights, numbers - reach * move, neutral)
            worse = tried > loss + 1e-9
            if not worse.any():
                break
            reach[worse] *= 0.5
        numbers = numbers - reach * move
        loss = tried
    return numbers


def _find_loss(
    design: NDArray[np.float64],
    true: NDArray[np.float64],
    weights: NDArray[np.float64],
    numbers: NDArray[np.float64],
    neutral: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the negative log of likelihood times prior (k,), and the probabilities (k, n, n_classes)."""
    scores = np.einsum("ncj,kj->knc", design, numbers)
    top = special.logsumexp(scores, axis=2)
    fitted = np.einsum("nj,kj->kn", true, numbers)
    loss = np.einsum("kn,kn->k", weights, top - fitted)
    loss += 0.5 * ((numbers - neutral) ** 2).sum(axis=1) / PRIOR_WIDTH**2
    return loss, np.exp(scores - top[:, :, None])


def _find_logs(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.maximum(probabilities, LEAST_PROBABILITY))
