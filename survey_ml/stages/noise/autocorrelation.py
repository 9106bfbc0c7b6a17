"""Autocorrelation of an image's noise, from half the mean square difference of pairs of pixels.

The difference of two pixels does not see a background that is the same under both, so diffuse
emission much wider than the largest lag does not leak into the result, and no high-pass filter
changes it. With D(d) half the mean square difference at lag d and D_far the same between 2 and 2.5
beams, where noise is no longer correlated, the autocorrelation is 1 - D(d) / D_far. In
geostatistics D is the variogram (Matheron 1963, Economic Geology 58, 1246).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, pi, sqrt

import numpy as np
from numpy import fft
from numpy.typing import NDArray

from survey_ml.stages.extraction.background import choose_mesh, measure_background

SOURCE_SNR = 4.0
"""Pixels above it are sources: they and what lies within one beam of them are left out."""

EXTREME_SNR = 4.5
"""Pixels below minus this are artefacts and left out."""

NEAR, FAR = 2.0, 2.5
"""Noise is uncorrelated between these distances, in beam FWHM; the result is zero beyond `FAR`."""

LEAST_BEAMS = 50.0
"""Independent beams that the beam itself counts for, against the measured width."""

SIGNIFICANCE = 2.0
"""Departures from a Gaussian shape count from this many standard errors on."""

WIDEST = 2.2
"""Largest ratio of the area of the autocorrelation to the beam's: 2 is white noise smoothed with
the beam; more is emission."""


@dataclass(frozen=True)
class NoiseModel:
    """Autocorrelation of the noise and how it came about.

    Parameters
    ----------
    acf : (2 lag + 1, 2 lag + 1) array of float64
        By row and column lag; one in the middle, symmetric, positive semi-definite.
    lag : int
        Largest lag in pixels.
    n_patches : int
        Patches that were quiet enough to count.
    n_independent : float
        Beam areas that they hold.
    source : str
        ``measured``, ``blended`` (the beam counts for more than a tenth) or ``beam`` (nothing else
        was to be had).
    rms : float
        Median rms of the patches, in the image's unit; NaN without patches.
    """

    acf: NDArray[np.float64]
    lag: int
    n_patches: int
    n_independent: float
    source: str
    rms: float

    def to_summary(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            "acf": [[round(float(v), 6) for v in row] for row in self.acf],
            "lag": self.lag,
            "n_patches": self.n_patches,
            "n_independent": round(self.n_independent, 1),
            "source": self.source,
            "rms": None if np.isnan(self.rms) else self.rms,
        }


@dataclass(frozen=True)
class Patch:
    """What one patch tells: half the mean square difference by lag, and how much it holds."""

    variogram: NDArray[np.float64]
    n_pixels: int
    rms: float


def choose_lag(covariance: NDArray[np.float64]) -> int:
    """Return the largest lag in pixels that is measured: `FAR` beams along the major axis."""
    major = sqrt(8.0 * np.log(2.0) * float(np.linalg.eigvalsh(covariance)[-1]))
    return max(2, ceil(FAR * major))


def shape_gaussian(covariance: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """Return ``exp(-d^T C^-1 d / 2)`` for all lags d = (x, y): a beam of covariance C, peak one."""
    return np.exp(-0.5 * _measure_distance(covariance, lag))


def _measure_distance(covariance: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """Return ``d^T C^-1 d`` by row and column lag."""
    dy, dx = np.mgrid[-lag : lag + 1, -lag : lag + 1].astype(np.float64)
    inverse = np.linalg.inv(covariance)
    return inverse[0, 0] * dx * dx + 2.0 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy * dy


def measure_patch(
    image: NDArray[np.float32], origin: tuple[int, int], covariance: NDArray[np.float64]
) -> Patch | None:
    """Measure the variogram of one patch without its sources.

    Parameters
    ----------
    image : (ny, nx) array
        NaN where there is no data.
    origin : tuple of int
        Row and column in the field of its first pixel.
    covariance : (2, 2) array
        Of the beam, in pixels, x first.

    Returns
    -------
    Patch or None
        None where less than a third of the pixels are quiet.
    """
    lag = choose_lag(covariance)
    fwhm = sqrt(8.0 * np.log(2.0)) * float(np.linalg.det(covariance)) ** 0.25
    mesh = choose_mesh(fwhm, image.shape)
    background, rms = measure_background(image, origin=origin, **mesh._asdict())
    snr = np.full(image.shape, np.nan)
    np.divide(image - background, rms, out=snr, where=rms > 0.0)
    quiet = np.isfinite(snr) & (np.where(np.isfinite(snr), snr, 0.0) > -EXTREME_SNR)
    bright = np.where(np.isfinite(snr), snr, 0.0) > SOURCE_SNR
    if bright.any():
        quiet &= ~_grow(bright, ceil(fwhm))
    n_pixels = int(quiet.sum())
    if n_pixels < max(image.size // 3, 4 * (2 * lag + 1)):
        return None
    # Differences over a rough S/N weigh all parts of a patch alike, whatever its rms does.
    value = np.where(quiet, snr, 0.0)
    shape = tuple(find_fast_length(n + lag) for n in image.shape)
    one = fft.rfft2(quiet.astype(np.float64), s=shape)
    linear = fft.rfft2(value, s=shape)
    square = fft.rfft2(value * value, s=shape)

    lags = np.arange(-lag, lag + 1)

    def crop(spectrum: NDArray[np.complex128]) -> NDArray[np.float64]:
        # Only the rows that are wanted are transformed back along the other axis.
        return fft.irfft(fft.ifft(spectrum, axis=0)[lags], shape[1], axis=1)[:, lags]

    pairs = np.rint(crop(one * one.conj()))
    sums = crop(2.0 * (square * one.conj()).real - 2.0 * linear * linear.conj())
    with np.errstate(divide="ignore", invalid="ignore"):
        variogram = np.where(pairs > 0, 0.5 * sums / pairs, np.nan)
    return Patch(variogram, n_pixels, float(np.median(rms[quiet])))


def find_fast_length(n: int) -> int:
    """Return the least length from ``n`` on that has no prime factor above 5: Fourier transforms like it."""
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 1


def _grow(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return a mask with all within ``radius`` rows and columns of it."""
    rows = mask.copy()
    for shift in range(1, radius + 1):
        rows[shift:] |= mask[:-shift]
        rows[:-shift] |= mask[shift:]
    grown = rows.copy()
    for shift in range(1, radius + 1):
        grown[:, shift:] |= rows[:, :-shift]
        grown[:, :-shift] |= rows[:, shift:]
    return grown


def combine_patches(patches: list[Patch], covariance: NDArray[np.float64]) -> NoiseModel:
    """Turn the patches of a field into its noise model.

    Each patch gives 1 - D / D_far; the mean of the middle half of them is taken lag by lag, so
    that a few patches with emission or artefacts do no harm. The width of the Gaussian that fits
    best is averaged with the beam's, which counts as `LEAST_BEAMS` beams. From it the result
    departs only where that is significant, after Bartlett's formula for the variance of a measured
    autocorrelation (Bartlett 1946, J. R. Stat. Soc. Suppl. 8, 27): a departure r with standard
    error s is taken times max(0, 1 - (2 s / r)^2).

    Parameters
    ----------
    patches : list of Patch
        May be empty.
    covariance : (2, 2) array
        Of the beam, in pixels, x first.

    Returns
    -------
    NoiseModel
    """
    lag = choose_lag(covariance)
    beam_area = 2.0 * pi * sqrt(float(np.linalg.det(covariance)))
    n_pixels = sum(p.n_pixels for p in patches)
    n_independent = n_pixels / beam_area
    distance = np.sqrt(_measure_distance(covariance, lag) / (8.0 * np.log(2.0)))
    measured = _average(patches, (distance >= NEAR) & (distance <= FAR))
    if measured is None:
        acf = _make_definite(shape_gaussian(covariance, lag) * _fade(distance))
        return NoiseModel(acf, lag, 0, 0.0, "beam", np.nan)
    share = n_independent / (n_independent + LEAST_BEAMS)
    fitted = _fit_gaussian(measured, distance <= 1.2, lag, covariance)
    width = share * fitted + (1.0 - share) * covariance
    smooth = shape_gaussian(width, lag)
    area = pi * sqrt(float(np.linalg.det(width)))
    variance = area / n_pixels * (1.0 + 3.0 * smooth**2 - 4.0 * smooth**1.5)
    departure = measured - smooth
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = 1.0 - SIGNIFICANCE**2 * variance / departure**2
    acf = smooth + departure * np.where(kept > 0.0, kept, 0.0)
    source = "measured" if share > 0.9 else "blended"
    rms = float(np.median([p.rms for p in patches]))
    acf = _make_definite(acf * _fade(distance))
    return NoiseModel(acf, lag, len(patches), n_independent, source, rms)


def _fade(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a weight that falls smoothly from one at `NEAR` to zero at `FAR`: no edge, no ripples."""
    return 0.5 + 0.5 * np.cos(pi * np.clip((distance - NEAR) / (FAR - NEAR), 0.0, 1.0))


def _average(patches: list[Patch], far: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Return the mean over the middle half of the patches' autocorrelations; None without any."""
    found = []
    for patch in patches:
        sill = float(np.nanmean(patch.variogram[far])) if np.isfinite(patch.variogram[far]).any() else 0.0
        acf = 1.0 - patch.variogram / sill if sill > 0.0 else np.full(far.shape, np.nan)
        if np.isfinite(acf).all():
            found.append(0.5 * (acf + acf[::-1, ::-1]))
    if not found:
        return None
    cut = len(found) // 4
    return np.sort(np.array(found), axis=0)[cut : len(found) - cut].mean(axis=0)


def _fit_gaussian(
    acf: NDArray[np.float64], near: NDArray[np.bool_], lag: int, covariance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fit the covariance of a Gaussian to a measured autocorrelation within about one beam.

    ``ln acf`` is linear in the inverse covariance; weights ``acf^2`` undo the logarithm. The
    result is kept between a quarter of the beam's area and `WIDEST` times it.
    """
    dy, dx = np.mgrid[-lag : lag + 1, -lag : lag + 1].astype(np.float64)
    use = near & (acf > 0.1) & ((dx != 0) | (dy != 0))
    if use.sum() < 8:
        return covariance
    design = -0.5 * np.stack([dx[use] ** 2, 2.0 * dx[use] * dy[use], dy[use] ** 2], axis=1)
    weight = acf[use]
    a, b, c = np.linalg.lstsq(design * weight[:, None], np.log(np.minimum(weight, 0.999)) * weight)[0]
    determinant = a * c - b * b
    if not (a > 0.0 and determinant > 0.0):
        return covariance
    fitted = np.array([[c, -b], [-b, a]]) / determinant
    ratio = sqrt(float(np.linalg.det(fitted) / np.linalg.det(covariance)))
    return fitted * (min(max(ratio, 0.25), WIDEST) / ratio)


def _make_definite(acf: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make an autocorrelation positive semi-definite, changing it as little as it takes.

    Its spectrum, on a grid eight times as large, is clipped at zero and cut to the support again a
    few times; what is still negative then is balanced by white noise.
    """
    lag = acf.shape[0] // 2
    size = find_fast_length(8 * lag + 4) * 2
    lags = np.ix_(np.arange(-lag, lag + 1), np.arange(-lag, lag + 1))
    support = acf != 0.0
    support |= support[::-1, ::-1]
    for attempt in range(20):
        grid = np.zeros((size, size))
        grid[lags] = acf
        spectrum = fft.fft2(grid).real
        lowest = float(spectrum.min())
        if lowest >= 0.0 or attempt == 19:
            break
        cropped = fft.ifft2(np.maximum(spectrum, 0.0)).real[lags]
        acf = np.where(support, cropped, 0.0)
        acf /= acf[lag, lag]
    acf = acf.copy()
    acf[lag, lag] += 1.01 * max(0.0, -lowest)
    acf /= acf[lag, lag]
    return 0.5 * (acf + acf[::-1, ::-1])
