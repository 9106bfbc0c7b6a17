"""Noise and sources for the stages' tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft

from survey_ml.field import Beam, Field

Noise = Callable[[tuple[int, int], NDArray, int], NDArray]


def smooth_noise(shape: tuple[int, int], covariance: NDArray, seed: int) -> NDArray:
    """White noise smoothed with a Gaussian of a covariance in px (x first), to unit variance."""
    white = np.random.default_rng(seed).standard_normal(shape)
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])
    form = covariance[0, 0] * fx**2 + 2 * covariance[0, 1] * fx * fy + covariance[1, 1] * fy**2
    transfer = np.exp(-2 * np.pi**2 * form)
    noise = fft.ifft2(fft.fft2(white) * transfer).real / np.sqrt((transfer**2).mean())
    return noise.astype(np.float32)


def add_gaussian(image: NDArray, y: float, x: float, peak: float, covariance: NDArray) -> None:
    """Add a Gaussian source, in place."""
    inverse = np.linalg.inv(covariance)
    reach = int(7 * np.sqrt(np.linalg.eigvalsh(covariance)[-1])) + 1
    y0, y1 = max(0, int(y) - reach), min(image.shape[0], int(y) + reach + 2)
    x0, x1 = max(0, int(x) - reach), min(image.shape[1], int(x) + reach + 2)
    dy, dx = np.arange(y0, y1)[:, None] - y, np.arange(x0, x1) - x
    form = inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
    image[y0:y1, x0:x1] += (peak * np.exp(-0.5 * form)).astype(image.dtype)


@pytest.fixture(scope="session")
def make_noise() -> Noise:
    return smooth_noise


@pytest.fixture(scope="session")
def add_source() -> Callable[..., None]:
    return add_gaussian


@pytest.fixture(scope="session")
def beam_covariance() -> NDArray:
    """The beam of `make_field` in pixels: 4.0 by 3.2 px at PA 35 deg, RA growing to the left."""
    angle = np.deg2rad(35.0)
    along, across = np.array([-np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), np.sin(angle)])
    return (16.0 * np.outer(along, along) + 10.24 * np.outer(across, across)) / (8 * np.log(2))


@pytest.fixture(scope="session")
def make_field() -> Callable[[tuple[int, int]], Field]:
    def make(shape: tuple[int, int]) -> Field:
        cards = {
            "WCSAXES": 2,
            "CTYPE1": "'RA---SIN'",
            "CTYPE2": "'DEC--SIN'",
            "CRVAL1": 150.0,
            "CRVAL2": -30.0,
            "CRPIX1": shape[1] / 2,
            "CRPIX2": shape[0] / 2,
            "CDELT1": -2.0 / 3600.0,
            "CDELT2": 2.0 / 3600.0,
            "CUNIT1": "'deg'",
            "CUNIT2": "'deg'",
            "RADESYS": "'ICRS'",
        }
        header = "".join(f"{key:<8}= {value!s:>20}".ljust(80) for key, value in cards.items())
        return Field("sky", shape, header, Beam(8.0, 6.4, 35.0), 1.4e9)

    return make
