"""Labelled images: what readers return and what training takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import InputError, SurveyMLError

SAME_SCALE = 0.01
"""Pixels that differ by less, as a share, are taken as alike."""
SPLITS = ("train", "valid", "test")
"""Names of the parts of a published split, in this order."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with a class each, and where on the sky they lie.

    Attributes
    ----------
    images : (n, y, x) array of uint8 or float32
        8-bit images are clipped already; NaN is no data in the others.
    labels : (n,) array of int64
        Numbers of `classes`.
    classes : tuple of str
        As shown to users.
    names : (n,) array of str
        As in the file they are from.
    ra, dec : (n,) array of float64
        deg; NaN where they are not known.
    split : (n,) array of str
        One of `SPLITS`, or empty where the data come without a split.
    subtracted : bool
        Whether the clip was taken off before they were scaled; see `Preprocessing`.
    pixel_arcsec : float
        Side of a pixel of all of them; NaN where it is not known.

    Raises
    ------
    SurveyMLError
        When the arrays do not belong together.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    names: NDArray[np.str_]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    split: NDArray[np.str_]
    subtracted: bool = False
    pixel_arcsec: float = math.nan

    def __post_init__(self) -> None:
        if self.images.ndim != 3 or self.images.dtype not in (np.uint8, np.float32):
            raise SurveyMLError(
                f"labelled images are (n, y, x) of uint8 or float32, not {self.images.dtype} "
                f"{self.images.shape}"
            )
        for name, kind in (("labels", "i"), ("names", "U"), ("ra", "f"), ("dec", "f"), ("split", "U")):
            array = getattr(self, name)
            if array.shape != (len(self.images),):
                raise SurveyMLError(f"{len(self.images)} images, but {name} has the shape {array.shape}")
            if array.dtype.kind != kind:
                raise SurveyMLError(f"{name} of labelled images cannot be {array.dtype}")
        if len(set(self.classes)) != len(self.classes):
            raise SurveyMLError(f"a class is named twice: {', '.join(self.classes)}")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise SurveyMLError(
                f"labels from {self.labels.min()} to {self.labels.max()} for {len(self.classes)} classes"
            )
        if unknown := set(self.split.tolist()) - {*SPLITS, ""}:
            raise SurveyMLError(f"a split is train, valid or test, not {min(unknown)!r}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: NDArray[Any] | Sequence[int] | slice) -> LabelledImages:
        """Return the images of an index, a mask (n,) or a slice, with the same classes."""
        return LabelledImages(
            self.images[chosen],
            self.labels[chosen],
            self.classes,
            self.names[chosen],
            self.ra[chosen],
            self.dec[chosen],
            self.split[chosen],
            self.subtracted,
            self.pixel_arcsec,
        )

    def order_classes(self, classes: Sequence[str]) -> LabelledImages:
        """Return the same images with their classes in another order; ValueError when they are others."""
        if sorted(classes) != sorted(self.classes):
            raise ValueError(f"{', '.join(self.classes)} cannot be laid in the order {', '.join(classes)}")
        places = np.array([list(classes).index(name) for name in self.classes], np.int64)
        return replace(self, labels=places[self.labels], classes=tuple(classes))

    def counts(self) -> dict[str, int]:
        """Return the number of images of every class, also of those without any."""
        found = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, found.tolist(), strict=True))


def join_images(parts: Sequence[LabelledImages]) -> LabelledImages:
    """Return the images of several sets behind each other.

    Raises
    ------
    InputError
        When classes, sizes or pixels differ, or the clip was taken off some only: a network would learn
        which.
    """
    first = parts[0]
    kinds = {(one.classes, one.images.shape[1:], one.images.dtype, one.subtracted) for one in parts}
    pixels = np.array([one.pixel_arcsec for one in parts])
    if len(kinds) > 1 or differ_in_scale(pixels):
        raise InputError(
            "sets whose classes, sizes, pixels or clips differ do not go together",
            "bring them to the same first",
        )
    return LabelledImages(
        np.concatenate([one.images for one in parts]),
        np.concatenate([one.labels for one in parts]),
        first.classes,
        np.concatenate([one.names for one in parts]),
        np.concatenate([one.ra for one in parts]),
        np.concatenate([one.dec for one in parts]),
        np.concatenate([one.split for one in parts]),
        first.subtracted,
        find_scale(pixels),
    )


def differ_in_scale(pixels: NDArray[np.float64]) -> bool:
    """Tell whether sides of pixels differ by `SAME_SCALE`; NaN is not known and does not count."""
    known = pixels[np.isfinite(pixels)]
    return bool(len(known) and known.max() > (1.0 + SAME_SCALE) * known.min())


def find_scale(pixels: NDArray[np.float64]) -> float:
    """Return the median of those that are known; NaN for none."""
    known = pixels[np.isfinite(pixels)]
    return float(np.median(known)) if len(known) else math.nan
