"""How a survey's pixels become those that a model was trained on: steps, smoothing and reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from survey_ml.field import Field
from survey_ml.labelled import SAME_SCALE
from survey_ml.stages.extraction.projection import measure_jacobians
from survey_ml.stages.noise.beam import find_covariance

SAME_BEAM = 0.05
"""Beams that differ by less, as a share, are taken as alike and are not smoothed."""

FWHM = float(np.sqrt(8.0 * np.log(2.0)))
"""Full width at half maximum of a Gaussian over its standard deviation."""

AROUND = 2.0
"""Sides of the square that the noise is measured in, over those of the cutout. The published images of
FIRST sources are the middle half of what their noise was measured in; see `Morphology`."""

SPLINE_REACH = 8
"""Pixels around a place that a cubic spline depends on, to a part in 10^4."""

SMOOTHING_REACH = 4.0
"""Standard deviations of a Gaussian beyond which it is cut."""


@dataclass(frozen=True)
class Target:
    """What a model wants to see.

    Parameters
    ----------
    pixel_arcsec : float
        Side of a pixel.
    beam_arcsec : float
        FWHM of the beam.
    side : int
        Pixels a side of the cutout.
    """

    pixel_arcsec: float
    beam_arcsec: float
    side: int


@dataclass(frozen=True)
class Sampling:
    """How the cutout of each of n sources is taken from the image.

    Attributes
    ----------
    x, y : (n,) array of float64
        Place of the source, zero-based pixels; whole numbers where pixels are taken as they are.
        NaN where it is not on the image's sky.
    scale : (n,) array of float64
        Side of a pixel there, arcsec.
    step : (n, 2, 2) array of float64
        Pixels in x and y that a step of one pixel of the cutout in x and in y makes.
    plain : (n,) array of bool
        Whether the cutout is made of the image's own pixels.
    blur : (n, 2, 2) array of float64
        Covariance in pixels^2 of the Gaussian that makes the beam the model's; zero for none.
    reach : (n,) array of int64
        Pixels to each side that must be read.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    scale: NDArray[np.float64]
    step: NDArray[np.float64]
    plain: NDArray[np.bool_]
    blur: NDArray[np.float64]
    reach: NDArray[np.int64]


def plan_sampling(field: Field, x: NDArray[np.float64], y: NDArray[np.float64], target: Target) -> Sampling:
    """Work out how to cut each source to a model's scale.

    The sky around a source is taken as flat, and is only scaled: the cutout keeps the orientation of
    the image, but its pixels are square and of the model's size, whatever the image's are. Where
    these agree within `SAME_SCALE`, its pixels are the image's own, centred on the one that the
    source lies on, so that nothing is interpolated.

    A sharper beam is smoothed to the model's; a wider one cannot be undone.

    Parameters
    ----------
    field : Field
    x, y : (n,) array
        Zero-based pixel positions.
    target : Target

    Returns
    -------
    Sampling
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n = len(x)
    finite = np.isfinite(x) & np.isfinite(y)
    jacobian = np.full((n, 2, 2), np.nan)
    jacobian[finite] = measure_jacobians(field.sky, x[finite], y[finite])
    good = np.isfinite(jacobian).all(axis=(1, 2))
    good[good] = np.abs(np.linalg.det(jacobian[good])) > 0.0
    safe = np.where(good[:, None, None], jacobian, np.eye(2) * target.pixel_arcsec)
    # J = R S: a turn, and a symmetric stretch that the cutout undoes.
    _, sizes, turn = np.linalg.svd(safe)
    step = target.pixel_arcsec * np.swapaxes(turn, 1, 2) @ (turn / sizes[:, :, None])
    plain = np.all(np.abs(sizes / target.pixel_arcsec - 1.0) < SAME_SCALE, axis=1)
    step[plain] = np.eye(2)
    blur = _find_blur(field, safe, target)
    half = 0.5 * AROUND * target.side * np.abs(step).sum(axis=2).max(axis=1)
    width = np.sqrt(np.maximum(np.trace(blur, axis1=1, axis2=2), 0.0))
    reach = np.ceil(half + SMOOTHING_REACH * width + np.where(plain, 1, SPLINE_REACH)).astype(np.int64)
    x, y = (np.where(plain, np.floor(place + 0.5), place) for place in (x, y))
    return Sampling(
        np.where(good, x, np.nan),
        np.where(good, y, np.nan),
        np.where(good, np.sqrt(sizes.prod(axis=1)), np.nan),
        step,
        plain,
        blur,
        reach,
    )


def _find_blur(field: Field, jacobian: NDArray[np.float64], target: Target) -> NDArray[np.float64]:
    """Return the covariance (n, 2, 2) in pixels^2 that is missing of a round beam."""
    wanted = np.eye(2) * (target.beam_arcsec / FWHM) ** 2
    values, axes = np.linalg.eigh(wanted - find_covariance(field.beam))
    least = 1.0 - (1.0 - SAME_BEAM) ** 2
    values = np.where(values > least * wanted[0, 0], values, 0.0)
    inverse = np.linalg.inv(jacobian)
    return np.asarray(inverse @ (axes * values) @ axes.T @ np.swapaxes(inverse, 1, 2))
