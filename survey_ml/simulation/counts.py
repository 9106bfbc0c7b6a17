"""How many radio sources of which flux density the sky holds, and a random draw of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HOPKINS = (0.859, 0.508, 0.376, -0.049, -0.121, 0.057, -0.008)
"""Sixth-order fit of log10(S^2.5 dN/dS / Jy^1.5 sr^-1) in powers of log10(S / mJy): Hopkins et al.
2003, AJ 125, 465, equation 8."""

LEAST_FITTED = 50e-6
"""Jy; the fit is held at its value here for fainter sources."""

BINS = 4000
"""Logarithmic bins of the cumulative counts."""


def evaluate_counts(flux: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the differential source counts dN/dS at 1.4 GHz.

    Parameters
    ----------
    flux : array
        Flux densities in Jy.

    Returns
    -------
    array
        Sources per Jy and steradian.

    References
    ----------
    Hopkins et al. 2003, AJ 125, 465.
    """
    logarithm = np.log10(np.maximum(flux, LEAST_FITTED) * 1e3)
    normalised = 10.0 ** np.polynomial.polynomial.polyval(logarithm, HOPKINS)
    return normalised * flux**-2.5


def draw_fluxes(
    rng: np.random.Generator, area: float, *, faintest: float = 10e-6, brightest: float = 1.0
) -> NDArray[np.float64]:
    """Draw the flux densities of a Poisson number of sources.

    Parameters
    ----------
    rng : Generator
    area : float
        Solid angle in steradian.
    faintest, brightest : float
        Limits in Jy.

    Returns
    -------
    (n,) array of float64
        Jy, in no order.
    """
    edges = np.geomspace(faintest, brightest, BINS + 1)
    centres = np.sqrt(edges[1:] * edges[:-1])
    cumulative = np.concatenate([[0.0], np.cumsum(evaluate_counts(centres) * np.diff(edges))])
    n = int(rng.poisson(cumulative[-1] * area))
    return np.exp(np.interp(rng.random(n) * cumulative[-1], cumulative, np.log(edges)))
