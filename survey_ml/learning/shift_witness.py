"""Which sources of a sample are the least like a reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from survey_ml.learning.shift_distances import find_median_distance

BLOCK = 256
"""Sources that are held against all others at a time."""


def measure_strangeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how much more each source of a sample is like the sample than like the reference.

    Parameters
    ----------
    one : (n, d) array of float32
        The reference, from `survey_ml.learning.shift_features`.
    other : (m, d) array of float32
        The sample, two sources at least.

    Returns
    -------
    (m,) ndarray
        From -1 to 1; about 0 where both are of one kind. Its mean over the sample is its part of the
        squared maximum mean discrepancy.

    Notes
    -----
    The witness function of that discrepancy (Gretton et al. 2012, section 2.3), with its sign turned, and
    without the pair of a source with itself.
    """
    scale = np.float32(-0.5 / find_median_distance(np.concatenate([one, other])) ** 2)
    found = np.empty(len(other))
    lengths = [np.einsum("ij,ij->i", side, side) for side in (one, other)]
    for start in range(0, len(other), BLOCK):
        part = other[start : start + BLOCK]
        own = lengths[1][start : start + BLOCK, None]
        sums = []
        for side, length in zip((one, other), lengths, strict=True):
            square = np.maximum(own + length - 2.0 * (part @ side.T), 0.0)
            sums.append(np.exp(square * scale).sum(axis=1, dtype=np.float64))
        found[start : start + BLOCK] = (sums[1] - 1.0) / max(len(other) - 1, 1) - sums[0] / len(one)
    return found
