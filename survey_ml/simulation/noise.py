"""Correlated Gaussian noise of exactly known statistics, and an rms that varies over the image."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Correlation = Literal["beam", "psf"]
"""``beam``: the autocorrelation is the beam, as with natural weights; ``psf``: it is the beam
convolved with itself, as for white noise smoothed with the beam."""


def draw_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    beam: NDArray[np.float64],
    correlation: Correlation = "beam",
) -> NDArray[np.float32]:
    """Draw correlated Gaussian noise of unit variance.

    Parameters
    ----------
    rng : Generator
    shape : tuple of int
        ``(ny, nx)``; the noise is periodic over it.
    beam : (3,) array
        Covariance ``(xx, xy, yy)`` of the beam in pixels^2.
    correlation : {"beam", "psf"}
        White noise is smoothed with a Gaussian of half the beam's covariance, or with the beam.

    Returns
    -------
    (ny, nx) array of float32
        The expected variance is one; a sample's own differs as it must.
    """
    kernel = beam * (0.5 if correlation == "beam" else 1.0)
    spectrum = fft.rfft2(rng.standard_normal(shape, dtype=np.float32), workers=1)
    columns = np.fft.rfftfreq(shape[1]).astype(np.float32)
    # Each frequency but the first (and the last of an even number) stands for its mirror too.
    weight = np.full(columns.size, 2.0)
    weight[0] = 1.0
    if shape[1] % 2 == 0:
        weight[-1] = 1.0
    power = 0.0
    factor = -2.0 * np.pi**2
    for row, v in enumerate(np.fft.fftfreq(shape[0])):
        phase = kernel[0] * columns**2 + 2.0 * kernel[1] * columns * v + kernel[2] * v * v
        transfer = np.exp(factor * phase).astype(np.float32)
        power += float(weight @ (transfer.astype(np.float64) ** 2))
        spectrum[row] *= transfer
    noise: NDArray[np.float32] = fft.irfft2(spectrum, s=shape, overwrite_x=True, workers=1)
    noise *= np.float32(1.0 / np.sqrt(power / (shape[0] * shape[1])))
    return noise


def vary_rms(shape: tuple[int, int], least: float = 20e-6) -> NDArray[np.float32]:
    """Return an rms map that rises like a primary beam, with ripples.

    Parameters
    ----------
    shape : tuple of int
    least : float
        Jy/beam; the map is 0.8 to 3 times this.

    Returns
    -------
    (ny, nx) array of float32
        ``least * clip(exp(2.2 r^2) + 0.15 sin(6 pi x) sin(5 pi y), 0.8, 3)`` with x and y in image
        widths and r from the point (0.45, 0.55).
    """
    y = ((np.arange(shape[0], dtype=np.float32) + 0.5) / np.float32(shape[0]))[:, None]
    x = ((np.arange(shape[1], dtype=np.float32) + 0.5) / np.float32(shape[1]))[None, :]
    rise = np.exp(2.2 * (y - 0.55) ** 2) * np.exp(2.2 * (x - 0.45) ** 2)
    ripple = 0.15 * np.sin(5.0 * np.pi * y) * np.sin(6.0 * np.pi * x)
    rise += ripple
    rms: NDArray[np.float32] = np.clip(rise, 0.8, 3.0, out=rise)
    rms *= np.float32(least)
    return rms
