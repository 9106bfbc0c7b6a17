"""What is done to an image before a model sees it: in training, in the stage and in the commands alike.

Source: Aniyan & Thorat 2017, ApJS 230, 20, whose images MiraBest (Porter & Scaife 2023) follows: what is
below three times the noise is empty sky, the rest is divided by its maximum. Griese et al. 2023
(firstgalaxydata) scale from three times the noise to the maximum instead, which takes off the clip and
with it most noise peaks: a network that was trained on one kind says wrong things of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import ConfigError, InputError
from survey_ml.labelled import SAME_SCALE, LabelledImages

NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
LARGEST_SIDE = 4096
"""Pixels; a model that wants more is not one for cutouts."""


@dataclass(frozen=True)
class Preprocessing:
    """How images are made that a model was trained on, and wants to see.

    Parameters
    ----------
    pixel_arcsec : float
        Side of a pixel.
    beam_arcsec : float
        FWHM of the beam.
    side : int
        Pixels a side.
    clip_sigma : float
        Multiple of the noise below which sky is empty.
    subtract_clip : bool
        Whether the scale is from the clip to the maximum, not from zero.

    Raises
    ------
    ConfigError
        When a value is out of range.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by pydantic, never changed)

    pixel_arcsec: float = 1.8
    beam_arcsec: float = 5.4
    side: int = 150
    clip_sigma: float = 3.0
    subtract_clip: bool = False

    def __post_init__(self) -> None:
        for name in ("pixel_arcsec", "beam_arcsec"):
            if not 0.0 < getattr(self, name) < np.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}", "give a positive number of arcsec")
        if not 0.0 <= self.clip_sigma < np.inf:
            raise ConfigError(f"clip_sigma is {self.clip_sigma}", "give zero or a positive number")
        if not 1 <= self.side <= LARGEST_SIDE:
            raise ConfigError(f"side is {self.side}", f"give 1 to {LARGEST_SIDE} px")


def measure_noise(image: NDArray[np.floating]) -> float:
    """Return the noise of an image: 1.4826 times the median absolute deviation of its finite pixels.

    Parameters
    ----------
    image : ndarray
        Of any shape; pixels that are not finite have no data.

    Returns
    -------
    float
        In the unit of the image; NaN where there is no data.
    """
    values = image[np.isfinite(image)].astype(np.float64)
    if not values.size:
        return float("nan")
    return float(NORMAL * np.median(np.abs(values - np.median(values))))


def clip_image(
    image: NDArray[np.floating],
    sigma_noise: float | NDArray[np.floating],
    clip_sigma: float = 3.0,
    *,
    subtract: bool = False,
) -> NDArray[np.float32]:
    """Empty the sky below a multiple of the noise, and scale what is left to a maximum of one.

    Parameters
    ----------
    image : (y, x) ndarray
        Pixels that are not finite are empty.
    sigma_noise : float or (y, x) ndarray
        Noise of all or of each pixel in the unit of the image; where it is not a number, nothing is
        left.
    clip_sigma : float
        The multiple.
    subtract : bool
        Take the clip off what is left, so that the faintest of it is near zero.

    Returns
    -------
    (y, x) ndarray of float32
        From 0 to 1; all zero where nothing is above the noise.
    """
    values = np.asarray(image, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        kept = np.isfinite(values) & (values > 0.0) & (values >= clip_sigma * np.asarray(sigma_noise))
    values = np.where(kept, values - clip_sigma * np.asarray(sigma_noise) if subtract else values, 0.0)
    peak = values.max(initial=0.0)
    return (values / peak if peak > 0.0 else values).astype(np.float32)


def scale_bytes(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bring an 8-bit image, which counts as clipped, to the range 0 to 1."""
    return image.astype(np.float32) / np.float32(255.0)


def fit_image(image: NDArray[np.floating], side: int) -> tuple[NDArray[np.float32], bool]:
    """Cut or pad an image about its middle to ``side`` pixels a side.

    Parameters
    ----------
    image : (y, x) ndarray
    side : int

    Returns
    -------
    fitted : (side, side) ndarray of float32
        Zero where the image does not reach.
    padded : bool
        Whether there is such a place.

    Notes
    -----
    The middle of an even side is the pixel right of it, ``side // 2``, and pixels of that number are
    laid on each other.
    """
    fitted = np.zeros((side, side), np.float32)
    wanted, given = [], []
    for length in image.shape:
        first = length // 2 - side // 2
        low, high = max(first, 0), min(first + side, length)
        given.append(slice(low, high))
        wanted.append(slice(low - first, high - first))
    fitted[tuple(wanted)] = image[tuple(given)]
    return fitted, any(length < side for length in image.shape)


def prepare_images(data: LabelledImages, side: int) -> NDArray[np.float32]:
    """Return labelled images, which count as clipped, as a model wants them.

    Parameters
    ----------
    data : LabelledImages
    side : int
        Pixels a side.

    Returns
    -------
    (n, side, side) ndarray of float32
        From 0 to 1, cut or padded about the middle.

    Raises
    ------
    InputError
        When their pixels are known to be of another size than networks are trained with.
    """
    wanted = Preprocessing().pixel_arcsec
    if abs(data.pixel_arcsec / wanted - 1.0) > SAME_SCALE:  # never so for NaN
        raise InputError(
            f"the labelled images have pixels of {data.pixel_arcsec:g} arcsec, networks are trained with "
            f"{wanted:g}",
            f"resample the images to {wanted:g} arcsec, and write that as pixel_arcsec",
        )
    scale = np.float32(255.0) if data.images.dtype == np.uint8 else np.float32(1.0)
    return np.stack([fit_image(image, side)[0] / scale for image in data.images])
