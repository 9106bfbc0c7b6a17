"""Labelled images and pools for semi-supervised learning: MiraBest, and other catalogues of FIRST sources."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from survey_ml.data.labelled.reading import read_labelled
from survey_ml.labelled import LabelledImages
from survey_ml.learning.splits import find_neighbours

MIRABEST, GENDRE, CAPETTI, IMBALANCED = "MiraBest", "Gendre", "Capetti", "MiraBest, 90 % FRI"
POOLS = (MIRABEST, GENDRE, CAPETTI, IMBALANCED)
IMBALANCE = 0.9
"""Share of FRI in the pool with another mix."""


def read_sets() -> tuple[LabelledImages, LabelledImages, dict[str, LabelledImages]]:
    """Return MiraBest's Confident training and test images, and other catalogues by name, FRI and FRII only.

    The other catalogues are without sources within 30 arcsec of any of MiraBest's Confident ones. Their
    images have the clip taken off, so that it is taken off MiraBest's, too: else a pool would differ by how
    its images were made.
    """
    train, test = (
        take_off_clip(read_labelled("mirabest", "confident", split)) for split in ("train", "test")
    )
    galaxies = read_labelled("firstgalaxy")
    galaxies = galaxies.take(galaxies.labels < len(train.classes))
    near = np.zeros(len(galaxies), bool)
    for known in (train, test):
        near[find_neighbours(known.ra, known.dec, galaxies.ra, galaxies.dec)[0][:, 1]] = True
    catalogue = np.array([name.rpartition("_")[2] for name in galaxies.names.tolist()])
    others = {
        GENDRE: galaxies.take((catalogue == "Gendre") & ~near),
        CAPETTI: galaxies.take(np.char.startswith(catalogue, "Capetti") & ~near),
    }
    return train, test, {name: replace(data, classes=train.classes) for name, data in others.items()}


def take_off_clip(data: LabelledImages) -> LabelledImages:
    """Return 8-bit images whose faintest pixel above the clip is zero, and the brightest 255 again."""
    values = data.images.astype(np.float64)
    faintest = np.where(values > 0.0, values, np.inf).min(axis=(1, 2), keepdims=True)
    faintest = np.where(faintest < 255.0, faintest, 0.0)
    images = np.rint(255.0 * np.clip((values - faintest) / (255.0 - faintest), 0.0, 1.0)).astype(np.uint8)
    return replace(data, images=images, subtracted=True)


def draw_labelled(labels: NDArray[np.int64], volume: int, seed: int) -> NDArray[np.int64]:
    """Return the places of ``volume`` images, of every class as many; fewer are the beginning of more."""
    n_classes = int(labels.max()) + 1
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(np.flatnonzero(labels == k)) for k in range(n_classes)]
    return np.sort(np.concatenate([order[: volume // n_classes] for order in orders]))


def make_pools(
    train: LabelledImages, labelled: NDArray[np.int64], others: dict[str, LabelledImages], seed: int
) -> dict[str, LabelledImages]:
    """Return the pools beside some labelled images: what is left of their catalogue, and other catalogues."""
    rest = train.take(np.setdiff1d(np.arange(len(train)), labelled))
    return {MIRABEST: rest, **others, IMBALANCED: unbalance(rest, seed)}


def unbalance(data: LabelledImages, seed: int) -> LabelledImages:
    """Return all of the first class, and so many of the second that the first is `IMBALANCE` of all."""
    first, second = (np.flatnonzero(data.labels == k) for k in (0, 1))
    few = max(1, round(len(first) * (1.0 - IMBALANCE) / IMBALANCE))
    kept = np.random.default_rng(seed).permutation(second)[:few]
    return data.take(np.sort(np.concatenate([first, kept])))
