"""A cutout of any size, pixel and kind, made into what a model wants to see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from survey_ml.labelled import SAME_SCALE
from survey_ml.learning.preprocessing import (
    Preprocessing,
    clip_image,
    fit_image,
    measure_noise,
    scale_bytes,
)

COARSE_PIXEL = 2.0
"""Pixels so many times those of the training cannot show what it showed."""
COARSE_BEAM = 1.5
"""The same of beams."""
MOST_RATIO = 1e6
"""Of the pixels of a model and of an image: what a header says beyond it is wrong, and must cost nothing."""
FWHM = float(np.sqrt(8.0 * np.log(2.0)))
"""Full width at half maximum of a Gaussian over its standard deviation."""


@dataclass(frozen=True)
class Prepared:
    """An image for a model, and what is to be known about it.

    Attributes
    ----------
    image : (side, side) ndarray of float32
        From 0 to 1; all zero where nothing is above the clip or there is no data.
    flags : tuple of str
        ``no_data``, ``blank`` (some pixels without data), ``edge`` (the cutout is smaller than what the
        model looks at), ``empty`` (nothing above the clip), ``too_large`` (the source reaches beyond
        the cutout), ``coarse`` (pixel or beam too large to be matched).
    """

    image: NDArray[np.float32]
    flags: tuple[str, ...]


def prepare_image(
    image: NDArray[Any],
    preprocessing: Preprocessing,
    *,
    pixel_arcsec: float = math.nan,
    beam_arcsec: float = math.nan,
) -> Prepared:
    """Make a cutout into what a model wants to see.

    Parameters
    ----------
    image : (y, x) ndarray
        8-bit images are taken as clipped already and are only scaled; others are clipped by their own
        noise. Not finite where there is no data.
    preprocessing : Preprocessing
        What the model wants.
    pixel_arcsec, beam_arcsec : float
        Of the cutout; NaN where not known. It is brought to the model's scale only when the pixel is
        known, and smoothed to the model's beam only when the beam is known, too.
    """
    has_data = np.isfinite(image)
    side = preprocessing.side
    if not has_data.any():
        return Prepared(np.zeros((side, side), np.float32), ("no_data",))
    flags = []
    if _is_coarse(preprocessing, pixel_arcsec, beam_arcsec):
        flags.append("coarse")
    scaled: NDArray[np.floating] = scale_bytes(image) if image.dtype == np.uint8 else image
    if abs(pixel_arcsec / preprocessing.pixel_arcsec - 1.0) > SAME_SCALE:  # never so for NaN
        scaled = match_scale(scaled, preprocessing, pixel_arcsec, beam_arcsec)
    fitted, padded = fit_image(scaled, side)
    if padded:
        flags.append("edge")
    if not np.isfinite(fitted).all():
        flags.append("blank")
    if image.dtype == np.uint8:
        made = np.clip(np.nan_to_num(fitted), 0.0, 1.0).astype(np.float32)
    else:
        made = clip_image(
            fitted,
            measure_noise(scaled),
            preprocessing.clip_sigma,
            subtract=preprocessing.subtract_clip,
        )
    if not made.any():
        flags.append("empty")
    elif _reaches_edge(made):
        flags.append("too_large")
    return Prepared(made, tuple(flags))


def match_scale(
    image: NDArray[np.floating],
    preprocessing: Preprocessing,
    pixel_arcsec: float,
    beam_arcsec: float = math.nan,
) -> NDArray[np.float32]:
    """Resample an image about its middle to a model's pixels, by cubic splines.

    Parameters
    ----------
    image : (y, x) ndarray
        Not finite where there is no data.
    preprocessing : Preprocessing
    pixel_arcsec : float
        Of the image.
    beam_arcsec : float
        Of the image; NaN where not known. A sharper one is smoothed to the model's; else only what the
        new pixels could not hold is smoothed away.

    Returns
    -------
    (y, x) ndarray of float32
        At most twice the model's side a side; NaN where there is no data.
    """
    # Old pixels a new one.
    ratio = min(max(preprocessing.pixel_arcsec / pixel_arcsec, 1.0 / MOST_RATIO), MOST_RATIO)
    if not math.isnan(beam_arcsec):
        wanted = (preprocessing.beam_arcsec**2 - beam_arcsec**2) / (
            FWHM * preprocessing.pixel_arcsec / ratio
        ) ** 2
    else:
        wanted = 0.25 * (ratio**2 - 1.0)
    has_data = np.isfinite(image)
    filled = np.where(has_data, image, 0.0).astype(np.float64)
    if wanted > 0.0:
        # Wider than the image leaves its mean, however wide.
        sigma = min(float(np.sqrt(wanted)), float(max(image.shape)))
        weight = ndimage.gaussian_filter(has_data.astype(np.float64), sigma, mode="nearest")
        filled = ndimage.gaussian_filter(filled, sigma, mode="nearest") / np.maximum(weight, 1e-6)
        filled = np.where(has_data, filled, 0.0)
    most = 2 * preprocessing.side
    shape = [min(max(round(length / ratio), 1), most) for length in image.shape]
    offset = [0.5 * (old - 1) - 0.5 * ratio * (new - 1) for old, new in zip(image.shape, shape, strict=True)]
    place = {"matrix": [ratio, ratio], "offset": offset, "output_shape": tuple(shape), "mode": "nearest"}
    values = ndimage.affine_transform(filled, order=3, **place)
    known = ndimage.affine_transform(has_data.astype(np.float64), order=1, **place)
    return np.where(known > 0.5, values, np.nan).astype(np.float32)


def _is_coarse(preprocessing: Preprocessing, pixel_arcsec: float, beam_arcsec: float) -> bool:
    return (
        pixel_arcsec > COARSE_PIXEL * preprocessing.pixel_arcsec
        or beam_arcsec > COARSE_BEAM * preprocessing.beam_arcsec
    )


def _reaches_edge(image: NDArray[np.float32]) -> bool:
    """Say whether the blob nearest to the middle touches the edge of the image."""
    labels, _ = ndimage.label(image > 0.0, np.ones((3, 3)))
    y, x = np.nonzero(labels)
    middle = [0.5 * (length - 1) for length in image.shape]
    nearest = labels[y, x][np.hypot(y - middle[0], x - middle[1]).argmin()]
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return bool((edge == nearest).any())
