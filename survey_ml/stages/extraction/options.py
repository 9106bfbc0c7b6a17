"""What a user can set for source extraction."""

from __future__ import annotations

from functools import lru_cache
from math import erfc, exp, log, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Setting
from pydantic import PositiveFloat, model_validator

from survey_ml.stage import Options
from survey_ml.stages.extraction.model import FWHM
from survey_ml.stages.extraction.settings import Settings


class ExtractionOptions(Options):
    """Detection thresholds, background mesh, deblending and apertures."""

    seed_snr: float = Setting(5.0, gt=0)
    """An island needs a pixel this many rms above the background."""
    flood_snr: float = Setting(3.0, gt=0)
    """An island grows over neighbouring pixels down to this many rms."""
    mesh_step_px: int | None = Setting(None, ge=8, le=100_000)
    """Side of a cell of the background mesh in pixels; about six beams when not given."""
    mesh_box_px: int | None = Setting(None, ge=8, le=100_000)
    """Side of the box that a node of the mesh is measured in, an odd number of cells; five cells
    when not given."""
    prominence: float = Setting(1.5, gt=0)
    """A peak inside an island counts when it stands this many rms above the saddle to a higher one."""
    residual_snr: float = Setting(5.0, gt=0)
    """A further component is tried where the residual of an island exceeds this many rms."""
    dynamic_limit: float = Setting(0.02, ge=0)
    """...and this share of the model there: real beams are not exactly Gaussian."""
    max_additions: int = Setting(12, ge=0, le=10_000)
    """Further components that an island may get beyond its peaks."""
    max_joint: int = Setting(10, ge=1, le=100)
    """Components that are fitted together; larger islands are fitted in turn, brightest first."""
    max_peaks: int = Setting(2000, ge=1, le=1_000_000)
    """Peaks that an island may have; fainter ones are left to the residual."""
    max_island_px: int = Setting(20000, ge=100, le=1_000_000_000)
    """Islands with more pixels get their peaks fitted and moments for the rest."""
    point_aperture: float = Setting(1.1, gt=0.5, le=5)
    """Radius of the pixels that a point is fitted to, in sigma of the beam."""
    free_aperture: float = Setting(1.4, gt=0.5, le=5)
    """Radius of the pixels that a shape is fitted to, in sigma of that shape."""
    free_shape_sigma: float = Setting(2.0, gt=0)
    """A source gets a shape of its own when it differs from the beam by this many sigma."""
    max_size_beams: float = Setting(12.0, gt=1)
    """Largest FWHM of one component, in beams."""
    whole_chi2: PositiveFloat | None = None
    """Islands of two components and ten beams or more are fitted again as a whole, with few and wide
    components, where the mean square of the residual is above this many squared rms; never when not
    given. 2 agrees best with catalogues made that way, such as FIRST's."""
    point_arcsec: tuple[PositiveFloat, PositiveFloat, float] | None = None
    """Shape of a point source (FWHM axes in arcsec, position angle in deg) where smearing or the
    pixels make it wider than the beam that the unit refers to; the beam when not given."""
    inverted: bool = False
    """Also search the inverted image: what is found there is false, so it measures reliability."""

    @model_validator(mode="after")
    def _check_thresholds(self) -> ExtractionOptions:
        if self.flood_snr > self.seed_snr:
            raise ValueError("flood_snr must not be above seed_snr")
        return self


def make_settings(
    options: ExtractionOptions, beam: NDArray[np.float64], acf: NDArray[np.float64]
) -> Settings:
    """Translate options into what the kernels work with.

    Parameters
    ----------
    beam : (3,) float64
        Precision matrix ``(a, b, c)`` of the beam at the field's centre, pixels^-2.
    acf : (2 k + 1, 2 k + 1) float64
        Noise autocorrelation.
    """
    return Settings(
        seed=options.seed_snr,
        flood=options.flood_snr,
        prominence=options.prominence,
        point_radius=options.point_aperture,
        free_radius=options.free_aperture,
        point_least=1.5,
        free_least=2.3,
        free_threshold=find_chi2_threshold(options.free_shape_sigma),
        residual_snr=options.residual_snr,
        dynamic=options.dynamic_limit,
        gain=36.0,
        free_gain=200.0,
        split_gain=9.0,
        shaped_gain=25.0,
        shaped_area=2.2,
        correlation=measure_correlation(beam, acf),
        max_peaks=options.max_peaks,
        max_additions=options.max_additions,
        max_joint=options.max_joint,
        max_pixels=options.max_island_px,
        stray=measure_fwhm(beam),
        extent=2.0,
        apart=0.6,
        max_scale=options.max_size_beams,
        whole_chi2=options.whole_chi2 or float("inf"),
        whole_area=10.0 * 2.0 * pi / sqrt(beam[0] * beam[2] - beam[1] ** 2),
    )


def measure_fwhm(beam: NDArray[np.float64]) -> float:
    """Major FWHM in pixels of a precision matrix ``(a, b, c)``."""
    mean, half = 0.5 * (beam[0] + beam[2]), np.hypot(0.5 * (beam[0] - beam[2]), beam[1])
    return float(FWHM / sqrt(mean - half))


@lru_cache
def find_chi2_threshold(sigma: float) -> float:
    """Chi^2 of 3 degrees of freedom with the tail of a normal variable beyond ``sigma`` on either side.

    The tail is ``erfc(r / sqrt 2) + r sqrt(2 / pi) exp(-r^2 / 2)`` of the square root r; its
    logarithm is concave, so that Newton's method cannot miss from above. It starts from 2 at least:
    from far below, where the tail is flat, it would jump to where the tail underflows.
    """
    wanted = erfc(sigma / sqrt(2.0))
    if wanted <= 0.0:
        return float("inf")
    root = max(sigma, 2.0)
    for _ in range(100):
        rest = root * sqrt(2.0 / pi) * exp(-0.5 * root * root)
        tail = erfc(root / sqrt(2.0)) + rest
        step = tail * log(tail / wanted) / (rest * root) if rest > 0.0 else 0.0
        root += step
        if abs(step) <= 1e-15 * root:
            break
    return root * root


def measure_correlation(beam: NDArray[np.float64], acf: NDArray[np.float64]) -> float:
    """Variance of a beam-weighted sum over what independent pixels would give: b^T A b / b^T b."""
    lag = acf.shape[0] // 2
    y, x = np.mgrid[-lag : lag + 1, -lag : lag + 1]
    shape = np.exp(-0.5 * (beam[0] * x * x + 2.0 * beam[1] * x * y + beam[2] * y * y))
    # Pairs of pixels by their lag, from the spectrum of the shape, padded so that nothing wraps.
    spectrum = np.fft.rfft2(shape, (4 * lag + 2, 4 * lag + 2))
    pairs = np.fft.irfft2(np.abs(spectrum) ** 2)[np.ix_(y[:, 0], x[0])]
    return max(1.0, float((pairs * acf).sum() / (shape * shape).sum()))
