"""What images look like before any model sees them: beam, noise, signal and size, of two sets side by side.

Most of what differs between surveys is the beam. A model's embedding only says that something differs;
these say what, and are looked at first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from survey_ml.learning.preparation import FWHM

NAMES = ("beam", "rms", "signal_to_noise", "size")
"""In the order in which they cause each other: another beam also changes what follows."""
OF_IMAGES = ("beam", "rms")
"""Those that the survey makes; how bright and how large sources are goes with their classes."""
LEAST_RATIO = 1.3
"""Medians that differ by less are not named as a cause, whatever the number of images."""
LEAST_KNOWN = 8
"""Images with a value that are needed on either side."""
LEAST_FAINTEST = 1e-4
"""What is left above a clip is a larger share of the peak; less is from resampling."""
LEAST_PEAK = 0.2
"""What is fainter than this share of the brightest pixel tells too little of beam and size."""


@dataclass(frozen=True)
class Covariate:
    """One quantity of two sets.

    Attributes
    ----------
    reference, sample : float
        Medians: ``beam`` and ``size`` in pixels, ``rms`` in the unit of the image.
    distance : float
        Kolmogorov and Smirnov's: largest difference of the two cumulative distributions.
    p_value : float
        Corrected for the number of quantities that were looked at (Holm 1979).
    shifted : bool
        Significant, and the medians differ by `LEAST_RATIO`.
    n : int
        Images with a value, of the smaller set.
    """

    reference: float
    sample: float
    distance: float
    p_value: float
    shifted: bool
    n: int


def measure_covariates(
    images: NDArray[np.float32], clip_sigma: float, *, subtracted: bool = False
) -> dict[str, NDArray[np.float64]]:
    """Measure images that are clipped and scaled.

    Parameters
    ----------
    images : (n, y, x) ndarray
        From 0 to 1, zero where the sky is empty.
    clip_sigma : float
        Multiple of the noise below which sky was emptied.
    subtracted : bool
        Whether the clip was taken off: how bright a source was above the noise is not known then.

    Returns
    -------
    dict
        ``beam``: FWHM of the sharpest peak in px; ``signal_to_noise`` of the brightest pixel; ``size``: the
        diagonal of what is above a fifth of it, in px. NaN where it cannot be told.
    """
    found = {name: np.full(len(images), np.nan) for name in ("beam", "signal_to_noise", "size")}
    for number, image in enumerate(np.asarray(images, np.float64)):
        y, x = np.nonzero(image > 0.0)
        if not len(y):
            continue
        found["beam"][number] = measure_beam(image)
        # Noise peaks lie all over an image, and would make any source as large as its cutout.
        bright = image[y, x] >= LEAST_PEAK * image.max()
        found["size"][number] = np.hypot(np.ptp(y[bright]) + 1, np.ptp(x[bright]) + 1)
        faintest = image[y, x].min() / image.max()
        if not subtracted and clip_sigma > 0.0 and faintest > LEAST_FAINTEST:
            found["signal_to_noise"][number] = clip_sigma / faintest
    return found


def measure_beam(image: NDArray[np.float64]) -> float:
    """Return the FWHM of the sharpest peak of an image (y, x) in px; NaN without a peak inside.

    A Gaussian's logarithm falls by 1 / 2 sigma^2 from its peak to the next pixel. Nothing is sharper than
    the beam, and of the peaks of a few sources some are as sharp.
    """
    top = (image >= ndimage.maximum_filter(image, size=3)) & (image >= LEAST_PEAK * image.max())
    y, x = np.nonzero(top[1:-1, 1:-1])
    middle = image[1:-1, 1:-1][y, x]
    widths = []
    for one, other in (
        (image[:-2, 1:-1][y, x], image[2:, 1:-1][y, x]),
        (image[1:-1, :-2][y, x], image[1:-1, 2:][y, x]),
    ):
        least = np.maximum(np.minimum(one, other), 1e-6 * middle)
        fall = np.log(middle) - 0.5 * (np.log(least) + np.log(np.maximum(one, other).clip(min=1e-6 * middle)))
        widths.append(FWHM / np.sqrt(2.0 * np.maximum(fall, 1e-9)))
    if not len(middle):
        return float("nan")
    return float(min(np.sqrt(widths[0] * widths[1]).min(), float(max(image.shape))))


def compare_covariates(
    reference: Mapping[str, NDArray[np.float64]],
    sample: Mapping[str, NDArray[np.float64]],
    alpha: float,
    matched: NDArray[np.int64] | None = None,
) -> dict[str, Covariate]:
    """Compare what is known of both sets.

    Parameters
    ----------
    reference, sample : mapping
        Name to values (n,), NaN where not known.
    alpha : float
        Level of significance of all together.
    matched : (k,) array of int, optional
        Rows of the reference that have the sample's mix of classes, each at most once. What is not
        `OF_IMAGES` is compared with these: point sources are smaller than galaxies in any survey, and more
        of them are no other looks. All rows unless given.

    Returns
    -------
    dict
        In the order of `NAMES`; without those that are not known of enough images.
    """
    pairs = {}
    for name in NAMES:
        sides = [np.asarray(side.get(name, ()), np.float64) for side in (reference, sample)]
        if matched is not None and name not in OF_IMAGES and len(sides[0]):
            sides[0] = sides[0][matched]
        one, other = (side[np.isfinite(side)] for side in sides)
        if min(len(one), len(other)) >= LEAST_KNOWN:
            pairs[name] = one, other
    tests = {name: stats.ks_2samp(*pair, method="asymp") for name, pair in pairs.items()}
    adjusted = adjust_holm({name: float(one.pvalue) for name, one in tests.items()})
    found = {}
    for name, (one, other) in pairs.items():
        first, second = float(np.median(one)), float(np.median(other))
        ratio = max(first, second) / max(min(first, second), 1e-300)
        found[name] = Covariate(
            first, second, float(tests[name].statistic), adjusted[name],
            adjusted[name] <= alpha and ratio >= LEAST_RATIO, min(len(one), len(other)),
        )  # fmt: skip
    return found


def adjust_holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values that may each be held against the level of all together (Holm 1979)."""
    largest, found = 0.0, {}
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        found[name] = largest
    return {name: found[name] for name in p_values}


def name_cause(covariates: Mapping[str, Covariate]) -> str:
    """Return the first quantity of `NAMES` that is shifted; empty for none."""
    return next((name for name in NAMES if name in covariates and covariates[name].shifted), "")
