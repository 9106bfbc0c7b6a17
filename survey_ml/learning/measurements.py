"""What a radio galaxy looks like in nineteen numbers that no turn or reflection changes.

They are what the forest decides by. All are made from sums over pixels, distances between them and
eigenvalues, so that turns by 90 degrees and reflections change only the order of a sum, and other turns
what the pixel grid makes of the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

NAMES = (
    "area",
    "flux",
    "filling",
    "extent",
    "major",
    "axis_ratio",
    "peak_share",
    "concentration",
    "gini",
    "peak_offset",
    "asymmetry",
    "n_blobs",
    "blob_share",
    "n_peaks",
    "peak_separation",
    "peak_ratio",
    "peak_angle",
    "hu_2",
    "hu_3",
)
"""Names of the measurements in their order; a model lists those that it was trained with."""

ROUND = np.hypot(*np.mgrid[-2:3, -2:3]) <= 2.3
"""Neighbourhood in which a peak is the highest pixel, about the beam of the training images."""
LEAST_PEAK = 0.1
"""Peaks below this share of the highest are not counted."""
DECIMALS = 6
"""Measurements are rounded to so many, above what the order of a sum can change."""


def measure_images(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Measure images that are clipped and scaled.

    Parameters
    ----------
    images : (n, y, x) ndarray
        From 0 to 1, zero where the sky is empty.

    Returns
    -------
    (n, 19) ndarray of float32
        In the order of `NAMES`, all finite; zeros for an empty image.

    Notes
    -----
    Lengths are in pixels; moments after Hu 1962, concentration after Conselice 2003, Gini after Lotz et
    al. 2004, asymmetry under half a turn about the centroid after Conselice et al. 2000, here
    about the nearest half pixel so that no pixel is interpolated.
    """
    rows = [_measure(np.asarray(image, np.float64)) for image in images]
    found = np.array(rows, np.float64).reshape(len(rows), len(NAMES))
    return np.round(found, DECIMALS).astype(np.float32)


def _measure(image: NDArray[np.float64]) -> list[float]:
    y, x = np.nonzero(image > 0.0)
    if not len(y):
        return [0.0] * len(NAMES)
    light = image[y, x]
    flux = float(light.sum())
    share = light / flux
    # Offsets from the middle first: its mirror images then have the same rounding errors.
    points = np.stack([x - 0.5 * (image.shape[1] - 1), y - 0.5 * (image.shape[0] - 1)], 1)
    centroid = share @ points
    offset = points - centroid
    distance = np.hypot(offset[:, 0], offset[:, 1])
    major, minor, hu_2, hu_3 = _measure_moments(offset, share)
    extent = 2.0 * float(distance.max()) + 1.0
    inner, outer = _measure_radii(distance, share)
    labels, n_blobs = ndimage.label(image > 0.0, np.ones((3, 3)))
    in_blobs = np.sort(np.bincount(labels[y, x], share, minlength=n_blobs + 1)[1:])
    n_peaks, separation, ratio, angle = _measure_peaks(image, centroid)
    brightest = light >= light.max() * (1.0 - 1e-6)
    return [
        np.log10(len(light)),
        np.log10(flux),
        len(light) / (0.25 * np.pi * extent**2),
        np.log10(extent),
        np.log10(1.0 + major),
        minor / major if major > 0.0 else 1.0,
        float(share.max()),
        inner / outer if outer > 0.0 else 1.0,
        _measure_gini(np.sort(light)),
        float(np.hypot(*offset[brightest].mean(axis=0))) / extent,
        _measure_asymmetry(image, centroid),
        float(min(n_blobs, 10)),
        float(in_blobs[-1]),
        float(min(n_peaks, 10)),
        separation / extent,
        ratio,
        angle,
        hu_2,
        hu_3,
    ]


def _measure_moments(
    offset: NDArray[np.float64], share: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """Return the standard deviations along the axes, and Hu's second and third invariant, compressed."""
    dx, dy = offset.T
    xx, yy, xy = (float(share @ product) for product in (dx * dx, dy * dy, dx * dy))
    middle, half = 0.5 * (xx + yy), float(np.hypot(0.5 * (xx - yy), xy))
    size = max(xx + yy, 1e-12)
    third = [float(share @ (dx**a * dy**b)) / size**1.5 for a, b in ((3, 0), (2, 1), (1, 2), (0, 3))]
    second = (2.0 * half / size) ** 2
    skew = (third[0] - 3.0 * third[2]) ** 2 + (3.0 * third[1] - third[3]) ** 2
    return float(np.sqrt(middle + half)), float(np.sqrt(max(middle - half, 0.0))), second, skew**0.25


def _measure_radii(distance: NDArray[np.float64], share: NDArray[np.float64]) -> tuple[float, float]:
    """Return the radii about the centroid that hold a fifth and four fifths of the light."""
    order = np.lexsort((share, np.round(distance, 9)))
    reached = np.cumsum(share[order])
    inner, outer = np.searchsorted(reached, [0.2 - 1e-9, 0.8 - 1e-9])
    return float(distance[order][inner]), float(distance[order][min(outer, len(order) - 1)])


def _measure_gini(light: NDArray[np.float64]) -> float:
    """Return 0 where all pixels are alike, near 1 where one has all the light; ``light`` is sorted."""
    n = len(light)
    if n < 2:
        return 0.0
    return float((2.0 * np.arange(1, n + 1) - n - 1.0) @ light) / (float(light.mean()) * n * (n - 1.0))


def _measure_asymmetry(image: NDArray[np.float64], centroid: NDArray[np.float64]) -> float:
    """Return the light that half a turn about the centroid does not bring onto itself, 0 to 1."""
    # Twice the centroid from the middle, in whole pixels: how far the turned image is shifted.
    shift = [int(np.sign(c) * np.floor(abs(2.0 * c) + 0.5 - 1e-9)) for c in centroid]
    height, width = image.shape
    turned = np.zeros_like(image)
    turned[_overlap(shift[1], height), _overlap(shift[0], width)] = image[::-1, ::-1][
        _overlap(-shift[1], height), _overlap(-shift[0], width)
    ]
    return float(np.abs(image - turned).sum()) / (2.0 * float(image.sum()))


def _overlap(shift: int, length: int) -> slice:
    return slice(max(shift, 0), length + min(shift, 0))


def _measure_peaks(
    image: NDArray[np.float64], centroid: NDArray[np.float64]
) -> tuple[int, float, float, float]:
    """Return how many peaks, the distance of the two highest in px, their ratio, and what they enclose.

    The last is the cosine of the angle at the centroid between the two: -1 for a straight double.
    """
    top = image >= np.maximum(ndimage.maximum_filter(image, footprint=ROUND, mode="constant"), 1e-12)
    top &= image >= LEAST_PEAK * image.max()
    labels, count = ndimage.label(top, np.ones((3, 3)))
    index = np.arange(1, count + 1)
    height = np.asarray(ndimage.maximum(image, labels, index))
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float64)
    places = np.stack(
        [
            ndimage.mean(x - 0.5 * (image.shape[1] - 1), labels, index),
            ndimage.mean(y - 0.5 * (image.shape[0] - 1), labels, index),
        ],
        1,
    )
    if count < 2:
        return count, 0.0, 0.0, 1.0
    away = np.hypot(*(places - centroid).T)
    # Of equal heights the outermost, so that a turn chooses the same.
    first = np.lexsort((-np.round(away, 9), -height))[0]
    between = np.hypot(*(places - places[first]).T)
    rest = np.where(np.arange(count) == first, -1.0, height)
    second = np.lexsort((-np.round(between, 9), -rest))[0]
    one, two = places[first] - centroid, places[second] - centroid
    norm = float(np.hypot(*one) * np.hypot(*two))
    cosine = float(one @ two) / norm if norm > 1e-6 else 1.0
    return count, float(between[second]), float(height[second] / height[first]), cosine
