"""A reference brought to the mix of classes of a sample, by leaving sources out."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from survey_ml.learning.label_shift import LabelShift, find_shares, reweight
from survey_ml.learning.shift_sources import Sources
from survey_ml.learning.temperature_bias import correct

LEAST_MATCHED = 20
"""Sources of the reference that must be left."""


def match_mix(
    reference: Sources,
    sample: Sources,
    found: LabelShift | None,
    known: Sources | None,
    *,
    seed: int = 0,
) -> NDArray[np.int64] | None:
    """Choose sources of a reference in the mix of classes of a sample.

    Parameters
    ----------
    reference, sample : Sources
        Without labels a source of the reference counts as of a class that is drawn from its probabilities.
    found : LabelShift or None
        The sample's mix; the mean of its probabilities without one.
    known : Sources or None
        What the mix was estimated with.
    seed : int

    Returns
    -------
    (k,) ndarray of int64, or None
        Rows of the reference, each at most once: permutations need sources that are independent. None when
        too few are left, such as of a class that the reference does not have.
    """
    rng = np.random.default_rng(seed)
    if reference.labels is not None:
        labels = np.asarray(reference.labels, np.int64)
    else:
        own = np.asarray(reference.probabilities, np.float64)
        if found is not None and known is not None and known is not reference:
            corrected = correct(own, found.scale, found.shift)
            own = reweight(corrected, found.before, find_shares(corrected, found.before))
        labels = (own.cumsum(axis=1) < rng.random((len(own), 1))).sum(axis=1).clip(max=own.shape[1] - 1)
    shares = found.shares if found is not None else np.asarray(sample.probabilities, np.float64).mean(axis=0)
    return choose_mix(labels, shares, rng)


def choose_mix(
    labels: NDArray[np.int64], shares: ArrayLike, rng: np.random.Generator
) -> NDArray[np.int64] | None:
    """Choose as many rows as there are in the mix ``shares`` (n_classes,) of labels (n,), in their order."""
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
