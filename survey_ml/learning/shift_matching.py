"""A reference brought to the mix of classes of a sample, by leaving sources out."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from survey_ml.learning.label_shift import LabelShift, find_shares, reweight
from survey_ml.learning.shift_sources import Sources
from survey_ml.learning.temperature_bias import correct

LEAST_MATCHED = 20
"""Sources of the reference that must be left."""


def find_classes(reference: Sources, found: LabelShift | None, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return classes (n,) of a reference.

    Parameters
    ----------
    reference : Sources
        Without labels a source counts as of a class that is drawn from its probabilities.
    found : LabelShift or None
        Corrects these probabilities, and knows the mix that they expect.
    rng : Generator
    """
    if reference.labels is not None:
        return np.asarray(reference.labels, np.int64)
    own = np.asarray(reference.probabilities, np.float64)
    if found is not None:
        known = correct(own, found.scale, found.shift)
        own = reweight(known, found.before, find_shares(known, found.before))
    drawn = (own.cumsum(axis=1) < rng.random((len(own), 1))).sum(axis=1)
    return np.minimum(drawn, own.shape[1] - 1)


def choose_mix(
    labels: NDArray[np.int64], shares: ArrayLike, rng: np.random.Generator
) -> NDArray[np.int64] | None:
    """Choose sources in a mix of classes.

    Parameters
    ----------
    labels : (n,) array of int
    shares : (n_classes,) array
    rng : Generator

    Returns
    -------
    (k,) ndarray of int64, or None
        As many rows as there are in this mix, in their order and each at most once: permutations need
        sources that are independent. None when too few are left, such as of a class without any.
    """
    wanted = np.asarray(shares, np.float64)
    counts = np.bincount(labels, minlength=len(wanted))
    # A class of which less than one source is wanted asks for none.
    needed = wanted * len(labels) >= 1.0
    total = (counts[needed] / wanted[needed]).min(initial=float(len(labels)))
    take = np.minimum(np.rint(total * wanted).astype(np.int64), counts)
    if take.sum() < LEAST_MATCHED:
        return None
    rows = [
        rng.choice(np.flatnonzero(labels == k), size, replace=False) for k, size in enumerate(take) if size
    ]
    return np.sort(np.concatenate(rows)).astype(np.int64)
