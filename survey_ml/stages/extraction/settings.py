"""What the measurement kernels need to know beside the pixels, and the bits of ``flags``."""

from __future__ import annotations

from typing import NamedTuple

EDGE = 1
TRUNCATED = 2
BLENDED = 4
MOMENTS = 8
TOO_LARGE = 16
POINT_MODEL = 32
BOUNDED = 64
FROM_RESIDUAL = 128
WIDENED = 256


class Settings(NamedTuple):
    """Parameters of the fits; lengths in pixels, brightness in units of the local rms.

    Attributes
    ----------
    seed, flood : float
        Detection thresholds; no component may be fainter than a share of ``seed``.
    prominence : float
        Least height of a peak above the saddle to a higher one.
    point_radius, free_radius : float
        Aperture radius in sigma of the component.
    point_least, free_least : float
        Least aperture radius in pixels.
    free_threshold : float
        Statistic (chi^2, 3 degrees of freedom) above which a shape is fitted.
    residual_snr, dynamic : float
        What the residual must reach for a further component: in rms, and as a share of the model.
    gain, free_gain, split_gain : float
        Least drop of chi^2 that a further point, a further component with a shape, or two points
        for one shape, must bring; chi^2 is divided by ``correlation``.
    correlation : float
        Variance of a beam-weighted mean over that of independent pixels.
    max_peaks, max_additions, max_joint, max_pixels : int
        Bounds on the work: peaks an island, further components an island, components in one
        joint fit, and pixels above which an island's rest is described by moments.
    stray : float
        How far a component may move from its start.
    extent : float
        Area above half maximum, in beams, from which a component starts with a shape of its own.
    apart : float
        Least distance, in beam FWHM, of a point found in the residual from other components.
    max_scale : float
        Largest FWHM of a component in beams.
    whole_chi2, whole_area : float
        Mean square of the residual, and pixels, from which an island of several components is
        fitted as a whole.
    """

    seed: float
    flood: float
    prominence: float
    point_radius: float
    free_radius: float
    point_least: float
    free_least: float
    free_threshold: float
    residual_snr: float
    dynamic: float
    gain: float
    free_gain: float
    split_gain: float
    shaped_gain: float
    shaped_area: float
    correlation: float
    max_peaks: int
    max_additions: int
    max_joint: int
    max_pixels: int
    stray: float
    extent: float
    apart: float
    max_scale: float
    whole_chi2: float
    whole_area: float
