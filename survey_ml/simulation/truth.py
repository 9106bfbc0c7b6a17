"""The truth table of a simulated sky, and how isolated each component is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from survey_ml.simulation.geometry import Array
from survey_ml.simulation.sources import KINDS, Components

LEAST_RIVAL = 0.1
"""A neighbour counts when its peak is above this share of a component's own..."""

LEAST_SNR = 1.0
"""...and above this many rms."""

REACH = 100.0
"""Pixels; farther neighbours are not told apart."""


def measure_isolation(x: Array, y: Array, peak: Array, snr: Array) -> Array:
    """Return the distance of each component to the nearest other one that matters to it.

    Parameters
    ----------
    x, y : (n,) array
        Pixels.
    peak : (n,) array
        Peaks after convolution.
    snr : (n,) array
        Peaks over the local rms.

    Returns
    -------
    (n,) array
        Pixels, `REACH` at most: to the nearest with a peak above 1 rms and above 10 % of its own.
    """
    isolation = np.full(len(x), REACH)
    rivals = np.flatnonzero(snr > LEAST_SNR)
    if rivals.size < 2 and len(x) < 2:
        return isolation
    positions = np.stack([x, y], axis=1)
    tree = cKDTree(positions[rivals])
    open_ = np.arange(len(x))
    # Nearly always one of the nearest few decides; the rest look at more and more neighbours.
    count = 8
    while open_.size and rivals.size:
        k = min(count, rivals.size)
        distance, near = tree.query(positions[open_], k=k, distance_upper_bound=REACH)
        distance, near = distance.reshape(open_.size, k), near.reshape(open_.size, k)
        missing = near == rivals.size
        other = rivals[np.where(missing, 0, near)]
        counts = ~missing & (other != open_[:, None]) & (peak[other] > LEAST_RIVAL * peak[open_, None])
        found = counts.any(axis=1)
        first = counts.argmax(axis=1)
        isolation[open_[found]] = distance[found, first[found]]
        open_ = open_[~found & ~missing[:, -1]]
        if k == rivals.size:
            break
        count *= 8
    return isolation


def build_truth(
    components: Components,
    peak: Array,
    rms: NDArray[np.float32],
    image: NDArray[np.float32],
    sky: NDArray[np.float64],
) -> dict[str, NDArray]:
    """Build the truth table: one row a component whose centre lies on a pixel that has data.

    Parameters
    ----------
    components : Components
    peak : (n,) array
        Peaks after convolution with the beam, Jy/beam.
    rms : (ny, nx) array
        True rms at every pixel.
    image : (ny, nx) array
        NaN where there is no data.
    sky : (n, 2) array
        Right ascension and declination in deg.

    Returns
    -------
    dict
        ``source_id``, ``kind``, ``x``, ``y``, ``ra``, ``dec``, ``total_flux`` (Jy), ``peak_flux``
        (Jy/beam), ``major``, ``minor`` (arcsec, intrinsic FWHM), ``pa`` (deg), ``local_rms``
        (Jy/beam), ``snr``, ``isolation`` (px).
    """
    column, row = np.rint(components.x).astype(np.int64), np.rint(components.y).astype(np.int64)
    inside = (column >= 0) & (row >= 0) & (column < rms.shape[1]) & (row < rms.shape[0])
    kept = np.flatnonzero(inside)
    kept = kept[np.isfinite(image[row[kept], column[kept]])]
    local = rms[row[kept], column[kept]].astype(np.float64)
    c, top = components.take(kept), peak[kept]
    return {
        "source_id": c.source,
        "kind": np.array(KINDS, dtype=object)[c.kind],
        "x": c.x,
        "y": c.y,
        "ra": sky[kept, 0],
        "dec": sky[kept, 1],
        "total_flux": c.flux,
        "peak_flux": top,
        "major": c.major,
        "minor": c.minor,
        "pa": c.pa,
        "local_rms": local,
        "snr": top / local,
        "isolation": measure_isolation(c.x, c.y, top, top / local),
    }
