"""A pool of unlabelled images that a model is trained on beside labelled ones, and whether it may be."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import ConfigError, InputError
from survey_ml.explain import parse_settings
from survey_ml.labelled import LabelledImages
from survey_ml.learning.fixmatch_recipe import PRESETS, FixMatchRecipe
from survey_ml.learning.preprocessing import Preprocessing, fit_image, prepare_images
from survey_ml.learning.shift import LEAST_SOURCES
from survey_ml.learning.splits import find_neighbours
from survey_ml.models.classifier import Classifier
from survey_ml.models.pools import judge_images
from survey_ml.models.shift import describe_images


@dataclass(frozen=True, eq=False)
class Pool:
    """Images without labels.

    Attributes
    ----------
    images : (n, side, side) array of float32
        As `survey_ml.learning.preparation` makes them, of the side of `Preprocessing`.
    names : (n,) array of str
    ra, dec : (n,) array of float64
        deg; NaN where not known.
    source : str
        What they are, for the card.
    doubts : tuple of str
        Why they are not safe to learn from, if they were taken nevertheless.
    """

    images: NDArray[np.float32]
    names: NDArray[np.str_]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    source: str = ""
    doubts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: NDArray[Any]) -> Pool:
        """Return the images of an index or a mask (n,)."""
        return replace(
            self,
            images=self.images[chosen],
            names=self.names[chosen],
            ra=self.ra[chosen],
            dec=self.dec[chosen],
        )

    def describe(self) -> str:
        """Return what the card says."""
        doubts = f"; taken although {'; '.join(self.doubts)}" if self.doubts else ""
        return f"{self.source or 'images without a name'}{doubts}"


def parse_fixmatch(settings: dict[str, Any], seed: int) -> FixMatchRecipe:
    """Return the recipe of a preset, ``small`` unless named, with settings of one's own.

    Raises
    ------
    ConfigError
        When a setting is unknown or out of range.
    """
    name = settings.get("preset", "small")
    if name not in PRESETS:
        raise ConfigError(f"fixmatch has no preset {name!r}", f"choose from {', '.join(PRESETS)}")
    given = {key: value for key, value in settings.items() if key != "preset"}
    known = [item.name for item in fields(FixMatchRecipe) if item.name != "seed"]
    values = {key: getattr(PRESETS[name], key) for key in known} | given
    return parse_settings(FixMatchRecipe, values, "fixmatch", seed=seed)


def remove_held(pool: Pool, *held: LabelledImages) -> tuple[Pool, int]:
    """Leave out what is within 30 arcsec of validation or test images; return the rest, and how many went.

    A model that learnt from images of the sources that it is judged on looks better than it is, with or
    without their labels.

    Raises
    ------
    InputError
        When nothing is left.
    """
    near = np.zeros(len(pool), bool)
    for one in held:
        pairs, _ = find_neighbours(one.ra, one.dec, pool.ra, pool.dec)
        near[pairs[:, 1]] = True
    if near.all():
        raise InputError(
            f"all {len(pool)} images of the pool are of validation or test sources", "give another pool"
        )
    return pool.take(~near), int(near.sum())


def find_doubts(
    classifier: Classifier, pool: Pool, parts: dict[str, LabelledImages], *, seed: int = 0
) -> list[str]:
    """Return why a pool is not safe, as ``survey-ml shift pool`` says; positions are not looked at.

    Parameters
    ----------
    classifier : Classifier
        Of the classes of the labelled images.
    pool : Pool
    parts : dict
        ``train``, ``valid`` and ``test`` images.
    seed : int
    """
    side = Preprocessing().side
    count = sum(len(one) for one in parts.values())
    if min(len(pool), count) < LEAST_SOURCES:
        return [f"{len(pool)} images beside {count} labelled ones are too few to tell whether they are alike"]
    unknown = np.full(count, np.nan)
    filled = {name: one for name, one in parts.items() if len(one)}
    labelled = LabelledImages(
        np.concatenate([prepare_images(one, side) for one in filled.values()]),
        np.concatenate([one.labels for one in filled.values()]),
        next(iter(filled.values())).classes,
        np.concatenate([one.names for one in filled.values()]),
        unknown,
        unknown,
        np.concatenate([np.full(len(one), name) for name, one in filled.items()]),
    )
    wanted = classifier.card.preprocessing
    images = pool.images
    if images.shape[1] != wanted.side:
        images = np.stack([fit_image(image, wanted.side)[0] for image in images])
    sources = describe_images(classifier, images)
    places = [(name, np.nan, np.nan) for name in pool.names.tolist()]
    return judge_images(classifier, labelled, sources, places, seed=seed).reasons
