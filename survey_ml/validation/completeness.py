"""Completeness and reliability against a truth, by signal to noise, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from survey_ml.errors import InputError
from survey_ml.validation.match import find_nearest, match_sky

SNR_EDGES = (3.0, 4.0, 5.0, 6.0, 7.0, 10.0, 20.0, 50.0, np.inf)
"""Bins in which both are given when nothing else is asked for."""

LEAST_TRUE_SNR = 2.0
"""Fainter true sources are no explanation for a detection."""


@dataclass(frozen=True)
class Share:
    """A share with its 95 % Wilson score interval.

    Attributes
    ----------
    k, n : int
        How many of how many.
    value, low, high : float
        NaN without any.
    """

    k: int
    n: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] ({self.k}/{self.n})"


@dataclass(frozen=True)
class Bin:
    """A share in one bin of signal to noise, ``low <= snr < high``."""

    low: float
    high: float
    share: Share


@dataclass(frozen=True)
class Comparison:
    """A catalogue against a truth.

    Attributes
    ----------
    found : (n_true,) array of bool
        True sources that have a detection.
    real : (n_found,) array of bool
        Detections that have a true source.
    first, second : (n_pairs,) array of int64
        Rows of catalogue and truth in each one-to-one pair.
    separation : (n_pairs,) array
        arcsec.
    completeness, reliability : tuple of Bin
        By true and by measured signal to noise.
    """

    found: NDArray[np.bool_]
    real: NDArray[np.bool_]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    separation: NDArray[np.float64]
    completeness: tuple[Bin, ...]
    reliability: tuple[Bin, ...]

    @property
    def total_reliability(self) -> Share:
        """Over all detections."""
        return measure_share(self.real)


def measure_share(flags: ArrayLike, z: float = 1.959964) -> Share:
    """Return the share of true flags with its Wilson (1927) score interval.

    Parameters
    ----------
    flags : array of bool
    z : float
        Half width in sigma; 1.96 is 95 %.
    """
    values = np.asarray(flags, dtype=bool)
    k, n = int(values.sum()), values.size
    if n == 0:
        return Share(0, 0, np.nan, np.nan, np.nan)
    p = k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Share(k, n, p, 0.0 if k == 0 else middle - half, 1.0 if k == n else middle + half)


def measure_shares(
    flags: ArrayLike, snr: ArrayLike, edges: ArrayLike = SNR_EDGES, *, empty: bool = False
) -> tuple[Bin, ...]:
    """Return the share of true flags in bins of signal to noise.

    Parameters
    ----------
    flags : (n,) array of bool
    snr : (n,) array
    edges : (k + 1,) array
    empty : bool
        Keep bins without any.
    """
    values, ratio = np.asarray(flags, dtype=bool), np.asarray(snr, dtype=np.float64)
    limits = np.asarray(edges, dtype=np.float64)
    bins = []
    for low, high in pairwise(limits):
        chosen = (ratio >= low) & (ratio < high)
        if chosen.any() or empty:
            bins.append(Bin(float(low), float(high), measure_share(values[chosen])))
    return tuple(bins)


def compare_with_truth(
    catalogue: Mapping[str, Any],
    truth: Mapping[str, Any],
    *,
    radius: float | NDArray[np.float64],
    edges: ArrayLike = SNR_EDGES,
) -> Comparison:
    """Match a catalogue to a truth and measure completeness and reliability.

    A detection is real when it is paired one to one with a true source (nearest pair first), or
    when it lies within the extent of an extended one, which may break into several detections.
    An extended source is found when any detection lies within its extent.

    Parameters
    ----------
    catalogue : mapping
        Columns ``ra``, ``dec`` (deg) and ``snr``.
    truth : mapping
        Columns ``ra``, ``dec`` and ``snr``, or ``peak_flux`` and ``local_rms``; optionally
        ``extent``, the radius in arcsec within which a detection belongs to it, 0 for points.
    radius : float or (n_true,) array
        arcsec, for points.
    edges : array
        Bins of signal to noise.

    Raises
    ------
    InputError
        When a column is missing.
    """
    ra, dec, snr = (_column(catalogue, name, "the catalogue") for name in ("ra", "dec", "snr"))
    true_ra, true_dec = (_column(truth, name, "the truth") for name in ("ra", "dec"))
    true_snr = _true_snr(truth)
    extent = np.asarray(truth["extent"], np.float64) if "extent" in truth else np.zeros(len(true_ra))
    usable = np.flatnonzero(true_snr > LEAST_TRUE_SNR)
    reach = np.maximum(extent, radius)
    pairs = match_sky(ra, dec, true_ra[usable], true_dec[usable], reach[usable])
    found = np.zeros(len(true_ra), dtype=bool)
    real = np.zeros(len(ra), dtype=bool)
    found[usable[pairs.second]] = True
    real[pairs.first] = True
    wide = usable[extent[usable] > 0]
    for row in wide[np.argsort(true_ra[wide])]:
        inside = find_nearest(ra, dec, true_ra[row : row + 1], true_dec[row : row + 1])[1] <= extent[row]
        real |= inside
        found[row] |= bool(inside.any())
    return Comparison(
        found,
        real,
        pairs.first,
        usable[pairs.second],
        pairs.separation,
        measure_shares(found, true_snr, edges),
        measure_shares(real, snr, edges),
    )


def find_radii(truth: Mapping[str, Any], beams: Mapping[str, float]) -> NDArray[np.float64]:
    """Return how far from each true source a detection of it may be: the major axis of the beam, arcsec.

    Parameters
    ----------
    truth : mapping
        ``ra``; optionally ``field``, where it lies.
    beams : mapping
        Major axis of each field. The largest counts where the field is not told: where beams differ, a
        coarse field would let sources of a sharp one match by chance.
    """
    largest = max(beams.values())
    if "field" not in truth:
        return np.full(len(truth["ra"]), largest)
    return np.array([beams.get(str(name), largest) for name in truth["field"]], np.float64)


def _true_snr(truth: Mapping[str, Any]) -> NDArray[np.float64]:
    if "snr" in truth:
        return np.asarray(truth["snr"], dtype=np.float64)
    peak, rms = (_column(truth, name, "the truth") for name in ("peak_flux", "local_rms"))
    return np.divide(peak, rms, out=np.zeros_like(peak), where=rms > 0)


def _column(table: Mapping[str, Any], name: str, what: str) -> NDArray[np.float64]:
    if name not in table:
        raise InputError(
            f"{what} has no column {name!r}",
            "a truth needs ra, dec and snr, or peak_flux and local_rms; a catalogue ra, dec and snr",
        )
    return np.asarray(table[name], dtype=np.float64)
