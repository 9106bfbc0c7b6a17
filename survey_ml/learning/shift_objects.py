"""Sources that stand for objects: each object counts once, however many pieces it was found in."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from survey_ml import morphology_flags as known_flags

SPOILT = (
    known_flags.EDGE
    | known_flags.BLANK
    | known_flags.TOO_LARGE
    | known_flags.EMPTY
    | known_flags.NO_DATA
    | known_flags.FAINT
    | known_flags.OUTSHONE
)
"""Flags of sources that no model can tell the class of: no reference has such. A coarse beam is none of
them: that is what is looked for."""


def leave_spoilt(known: NDArray[np.bool_], flags: ArrayLike) -> NDArray[np.int64]:
    """Return the rows of sources that a model says something of (n,), but for those with a `SPOILT` flag."""
    return np.flatnonzero(known & ((np.asarray(flags, np.int64) & SPOILT) == 0)).astype(np.int64)


def choose_objects(ra: ArrayLike, dec: ArrayLike, flux: ArrayLike, reach: float) -> NDArray[np.int64]:
    """Choose the brightest of sources that are near each other.

    The lobes of one galaxy are sources of their own, and a model is shown the same galaxy for each. Counted
    each time, twenty galaxies would pass for sixty, chance would be judged too small, and large galaxies
    would weigh as much as they have pieces.

    Parameters
    ----------
    ra, dec : (n,) array
        deg; a source whose position is not finite stands for itself.
    flux : (n,) array
        What the brightest is told by.
    reach : float
        arcsec; half the side of what a model looks at. Of two objects within that, the fainter is outshone
        in its picture, and its flag says so.

    Returns
    -------
    (k,) ndarray of int64
        Rows in their order; no two are within reach of each other.
    """
    values = np.nan_to_num(np.asarray(flux, np.float64), nan=-np.inf)
    longitude, latitude = (np.radians(np.asarray(side, np.float64)) for side in (ra, dec))
    placed = np.flatnonzero(np.isfinite(longitude) & np.isfinite(latitude))
    points = np.stack(
        [
            np.cos(latitude[placed]) * np.cos(longitude[placed]),
            np.cos(latitude[placed]) * np.sin(longitude[placed]),
            np.sin(latitude[placed]),
        ],
        axis=1,
    )
    kept = np.ones(len(values), bool)
    if len(placed):
        chord = 2.0 * np.sin(0.5 * np.radians(reach / 3600.0))
        near = cKDTree(points).query_ball_point(points, chord)
        free = np.ones(len(placed), bool)
        # Of equal ones the first: no answer may depend on anything else.
        for number in np.lexsort((placed, -values[placed])):
            if free[number]:
                free[near[number]] = False
                free[number] = True
            else:
                kept[placed[number]] = False
    return np.flatnonzero(kept).astype(np.int64)
