"""Offsets and flux ratios between a catalogue and a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.validation.match import match_sky
from survey_ml.validation.pulls import Spread, measure_spread


@dataclass(frozen=True)
class ReferenceComparison:
    """Pairs of a catalogue and a reference.

    Attributes
    ----------
    first, second : (n,) array of int64
        Rows of the catalogue and the reference.
    offset_east, offset_north : (n,) array
        arcsec, catalogue minus reference.
    flux_ratio : (n,) array
        Peak in the catalogue over peak in the reference; NaN where the reference has none.
    east, north, ratio : Spread
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    offset_east: NDArray[np.float64]
    offset_north: NDArray[np.float64]
    flux_ratio: NDArray[np.float64]
    east: Spread
    north: Spread
    ratio: Spread


def compare_with_reference(
    catalogue: Mapping[str, Any], reference: Mapping[str, Any], *, radius: float
) -> ReferenceComparison:
    """Match one to one, nearest pair first, and compare positions and peaks.

    Parameters
    ----------
    catalogue, reference : mapping
        Columns ``ra``, ``dec`` (deg) and ``peak_flux`` (both in one unit; optional in the reference).
    radius : float
        arcsec.
    """
    ra, dec, other_ra, other_dec = (
        np.asarray(table[name], np.float64) for table in (catalogue, reference) for name in ("ra", "dec")
    )
    pairs = match_sky(ra, dec, other_ra, other_dec, radius)
    east = (ra[pairs.first] - other_ra[pairs.second] + 180.0) % 360.0 - 180.0
    east *= np.cos(np.radians(other_dec[pairs.second])) * 3600.0
    north = (dec[pairs.first] - other_dec[pairs.second]) * 3600.0
    ratio = np.full(pairs.first.size, np.nan)
    if "peak_flux" in reference:
        below = np.asarray(reference["peak_flux"], np.float64)[pairs.second]
        above = np.asarray(catalogue["peak_flux"], np.float64)[pairs.first]
        np.divide(above, below, out=ratio, where=below > 0)
    return ReferenceComparison(
        pairs.first, pairs.second, east, north, ratio,
        measure_spread(east), measure_spread(north), measure_spread(ratio),
    )  # fmt: skip
