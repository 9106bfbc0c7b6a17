"""Whether unlabelled images may be learnt from beside labelled ones.

Semi-supervised learning takes for granted that both are of one kind. A pool of another catalogue or of
another mix of classes makes a model worse than no pool at all (Slijepcevic et al. 2022), and one that holds
test images makes it look better than it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from survey_ml.learning.shift import Shift
from survey_ml.learning.splits import RADIUS, find_neighbours

LARGEST_CHANGE = 0.15
"""Share of a class in the pool beyond that among the labelled images; more moves what is learnt."""
FEW_LABELS = 80
"""Beside fewer labelled images pools cost accuracy on the whole, that of the same catalogue too: what the
network takes for labels is wrong too often (``survey-ml reproduce slijepcevic2022``; with other images by
``benchmarks/pools.py``)."""


@dataclass(frozen=True)
class Leak:
    """A source that is on two sides.

    Attributes
    ----------
    first, second : str
        Names.
    sides : tuple of str
        ``unlabelled``, ``train``, ``valid``, ``test``, or ``labelled`` for images without a split.
    arcsec : float
        Separation.
    number : int
        Of the second among the images of its set, from 0: names may be the same.
    """

    first: str
    second: str
    sides: tuple[str, str]
    arcsec: float
    number: int


@dataclass(frozen=True)
class Positions:
    """Names, places in deg and sides (n,) of images."""

    names: NDArray[np.str_]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    side: NDArray[np.str_]


def find_leaks(labelled: Positions, pool: Positions, arcsec: float = RADIUS) -> list[Leak]:
    """Find sources that are in the pool and among the labelled images, or in two parts of these.

    Parameters
    ----------
    labelled, pool : Positions
        A place that is NaN has no neighbours.
    arcsec : float
        Largest separation.

    Returns
    -------
    list of Leak
        Those of the pool first, in the order of the labelled images.
    """
    found = []
    for one, other, inner in ((labelled, pool, False), (labelled, labelled, True)):
        pairs, apart = find_neighbours(one.ra, one.dec, other.ra, other.dec, arcsec)
        for (i, j), separation in zip(pairs.tolist(), apart.tolist(), strict=True):
            sides = str(one.side[i]), str(other.side[j])
            if inner and (i >= j or sides[0] == sides[1]):
                continue
            found.append(Leak(str(one.names[i]), str(other.names[j]), sides, separation, j))
    return found


def judge_pool(
    shift: Shift,
    leaks: list[Leak],
    labelled: NDArray[np.float64],
    classes: tuple[str, ...],
    alpha: float,
    n_train: int = 0,
) -> list[str]:
    """Return why a pool is not safe; nothing when it is.

    Parameters
    ----------
    shift : Shift
        Of the pool from the labelled images.
    leaks : list of Leak
    labelled : (n_classes,) array
        Shares of the classes among the labelled images.
    classes : tuple of str
    alpha : float
        Level of significance of a change of the mix.
    n_train : int
        Labelled images that will be trained on; 0 where that is not known.
    """
    reasons = []
    if 0 < n_train < FEW_LABELS:
        reasons.append(
            f"{n_train} labelled images to train on are few: beside less than {FEW_LABELS} pools cost "
            "accuracy where this was tried"
        )
    conditional = shift.conditional
    if conditional.level != "green":
        cause = (
            f"; the likely cause is {shift.cause}" if shift.cause not in ("", "appearance", "prior") else ""
        )
        reasons.append(
            "sources of a class look different in the pool: they are told apart by "
            f"{conditional.statistics['separation'].value:.2f} (0.5 is chance), "
            f"p = {conditional.p_value:.3g}{cause}"
        )
    if (found := shift.prior.found) is not None and shift.prior.is_changed(alpha):
        away = found.shares - labelled
        k = int(np.abs(away).argmax())
        if abs(away[k]) > LARGEST_CHANGE:
            reasons.append(
                f"the mix of classes differs: {classes[k]} are {found.shares[k]:.2f} "
                f"[{found.low[k]:.2f}, {found.high[k]:.2f}] of the pool, and {labelled[k]:.2f} of the "
                "labelled images"
            )
    for side in ("test", "valid", "labelled"):
        count = len({leak.number for leak in leaks if "unlabelled" in leak.sides and side in leak.sides})
        if count:
            kind = {"test": "test", "valid": "validation"}.get(side, "labelled")
            reasons.append(
                f"{count} sources of the pool are {kind} images: what is measured would be too good"
            )
    if count := sum("unlabelled" not in leak.sides for leak in leaks):
        reasons.append(f"{count} sources are in two parts of the labelled images")
    return reasons
