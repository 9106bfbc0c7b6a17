"""A simulated survey image with its truth, from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from survey_ml.field import Beam, Field
from survey_ml.simulation.geometry import convolve_peaks, make_covariances
from survey_ml.simulation.noise import Correlation, draw_noise, vary_rms
from survey_ml.simulation.rendering import FLOOR, render_gaussians, render_stripes
from survey_ml.simulation.sources import Components, draw_grid, draw_sky
from survey_ml.simulation.truth import build_truth

Content = Literal["sky", "grid", "noise"]
"""A realistic sky, isolated points on a grid, or noise alone."""


BEAM = Beam(8.0, 6.4, 35.0)
"""Of an image unless its recipe says otherwise."""


@dataclass(frozen=True)
class Recipe:
    """All that a simulated image depends on.

    Attributes
    ----------
    size : int or tuple of int
        Pixels: a side, or ``(ny, nx)``.
    seed : int
        Fixes sources and noise.
    content : {"sky", "grid", "noise"}
    correlation : {"beam", "psf"}
        Autocorrelation of the noise.
    rms : float
        Jy/beam; the map is 0.8 to 3 times this, or this everywhere.
    uniform : bool
        The same rms everywhere.
    blank : bool
        NaN beyond a circle, in a slit and in a hole.
    inverted : bool
        Change the sign of the image, sky and noise alike.
    artefacts : bool
        Radial stripes around bright sources.
    pixel_scale : float
        arcsec.
    beam : Beam
    frequency : float
        Hz.
    centre : tuple of float
        Right ascension and declination of the middle, deg.
    """

    size: int | tuple[int, int] = 4096
    seed: int = 1
    content: Content = "sky"
    correlation: Correlation = "beam"
    rms: float = 20e-6
    uniform: bool = False
    blank: bool = False
    inverted: bool = False
    artefacts: bool = False
    pixel_scale: float = 2.0
    beam: Beam = BEAM
    frequency: float = 1.4e9
    centre: tuple[float, float] = (150.0, 2.2)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def beam_covariance(self) -> NDArray[np.float64]:
        """Covariance ``(xx, xy, yy)`` of the beam in pixels^2."""
        b = self.beam
        one = make_covariances(np.array([b.major]), np.array([b.minor]), np.array([b.pa]), self.pixel_scale)
        return np.asarray(one[0], dtype=np.float64)

    def describe(self, name: str = "simulated") -> Field:
        """Return the field: SIN projection, ICRS, north up, reference pixel in the middle."""
        header = "".join(card.ljust(80) for card in make_cards(self.shape, self.pixel_scale, self.centre))
        return Field(name, self.shape, header, self.beam, self.frequency)


@dataclass(frozen=True)
class SimulatedSky:
    """A simulated image and what is true about it.

    Attributes
    ----------
    recipe : Recipe
    field : Field
    image : (ny, nx) array of float32
        Jy/beam; NaN where there is no data.
    rms : (ny, nx) array of float32
        True rms at every pixel.
    truth : dict
        One row a component; see `survey_ml.simulation.truth.build_truth`.
    """

    recipe: Recipe
    field: Field
    image: NDArray[np.float32]
    rms: NDArray[np.float32]
    truth: dict[str, NDArray]


def simulate_sky(recipe: Recipe, name: str = "simulated") -> SimulatedSky:
    """Simulate an image.

    Sources and noise have generators of their own, so that the same seed gives the same sources
    with another noise correlation.

    Parameters
    ----------
    recipe : Recipe
    name : str
        Of the field.

    Returns
    -------
    SimulatedSky
    """
    source_seed, noise_seed = np.random.SeedSequence(recipe.seed).spawn(2)
    shape, beam = recipe.shape, recipe.beam_covariance
    rms = np.full(shape, recipe.rms, np.float32) if recipe.uniform else vary_rms(shape, recipe.rms)
    components = draw_components(np.random.default_rng(source_seed), recipe, rms)
    intrinsic = make_covariances(components.major, components.minor, components.pa, recipe.pixel_scale)
    peak = convolve_peaks(components.flux, intrinsic, beam)
    image = draw_noise(np.random.default_rng(noise_seed), shape, beam, recipe.correlation)
    image *= rms
    if recipe.artefacts:
        bright = peak > 50e-3
        render_stripes(image, components.x[bright], components.y[bright], peak[bright], 0.002, 12, 120.0)
    render_gaussians(image, components.x, components.y, peak, intrinsic + beam, FLOOR)
    if recipe.inverted:
        np.negative(image, out=image)
    if recipe.blank:
        blank_pixels(image)
    field = recipe.describe(name)
    pixels = np.stack([components.x, components.y], axis=1)
    sky = np.asarray(field.wcs.all_pix2world(pixels, 0)) if len(pixels) else np.empty((0, 2))
    return SimulatedSky(recipe, field, image, rms, build_truth(components, peak, rms, image, sky))


def draw_components(rng: np.random.Generator, recipe: Recipe, rms: NDArray[np.float32]) -> Components:
    """Draw what the recipe asks for; nothing for noise alone."""
    if recipe.content == "grid":
        return draw_grid(rng, rms)
    components = draw_sky(rng, recipe.shape, recipe.pixel_scale)
    if recipe.content == "noise":
        return components.take(np.zeros(len(components), dtype=bool))
    return components


def blank_pixels(image: NDArray[np.float32]) -> None:
    """Set pixels to NaN: beyond 0.52 image widths, in a slit of 3 rows, in a hole of 150 by 220.

    The slit lies at a third of the height, the hole right of the middle; the hole is at most a
    sixth of the image each way.
    """
    ny, nx = image.shape
    y = (np.arange(ny) - 0.5 * (ny - 1))[:, None] / ny
    x = (np.arange(nx) - 0.5 * (nx - 1))[None, :] / nx
    image[y * y + x * x > 0.52**2] = np.nan
    slit = ny // 3
    image[slit : slit + 3] = np.nan
    height, width = min(150, ny // 6), min(220, nx // 6)
    top, left = int(0.55 * ny), int(0.6 * nx)
    image[top : top + height, left : left + width] = np.nan


def make_cards(
    shape: tuple[int, int],
    pixel_scale: float,
    centre: tuple[float, float],
    reference: tuple[float, float] | None = None,
) -> list[str]:
    """Return FITS header cards of a SIN projection in ICRS, north up and east left.

    Parameters
    ----------
    shape : tuple of int
    pixel_scale : float
        arcsec.
    centre : tuple of float
        deg, of the reference pixel.
    reference : tuple of float, optional
        One-based ``(x, y)`` of the reference pixel; the middle of the image when not given.
    """
    x, y = reference or (0.5 * (shape[1] + 1), 0.5 * (shape[0] + 1))
    step = pixel_scale / 3600.0
    values = {
        "CTYPE1": "'RA---SIN'",
        "CRPIX1": f"{x:20.6f}",
        "CDELT1": f"{-step:20.13E}",
        "CRVAL1": f"{centre[0]:20.10f}",
        "CUNIT1": "'deg     '",
        "CTYPE2": "'DEC--SIN'",
        "CRPIX2": f"{y:20.6f}",
        "CDELT2": f"{step:20.13E}",
        "CRVAL2": f"{centre[1]:20.10f}",
        "CUNIT2": "'deg     '",
        "RADESYS": "'ICRS    '",
    }
    return [f"{key:<8}= {value}" for key, value in values.items()]
