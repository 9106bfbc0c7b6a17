"""Large islands that the fits around peaks leave unexplained: a few Gaussians to all of their pixels.

The apertures of `deblending` are compact, as they have to be for sources near the beam's size. What
is spread out between peaks then falls to no component. Here up to four shapes are fitted to all
pixels of an island at once, as for the FIRST catalogue (White et al. 1997, ApJ 475, 479, section 4);
what is left gets further components one by one; a last joint fit shares out the light.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from survey_ml.stages.extraction.algebra import bound_precision
from survey_ml.stages.extraction.deblending import (
    find_residual_peak,
    nearest_free_pixel,
    start_component,
    subtract_components,
    sum_island,
)
from survey_ml.stages.extraction.fit import SINGULAR, fit_components, select_pixels
from survey_ml.stages.extraction.model import FREE
from survey_ml.stages.extraction.peaks import find_peaks
from survey_ml.stages.extraction.settings import FROM_RESIDUAL, Settings

MOST, LIMIT = 4, 12
"""Shapes that are fitted to all pixels of an island from the start, and with those added later."""

WORSE = 1.5
"""How much more misfit the shapes may leave than the components around the peaks did."""

ROOM, NUDGE = 5.0, 0.2
"""How far, in beam FWHM, a shape may move from its start in each fit, and in the last one."""

COMPACTNESS = 1.5
"""Shapes of several peaks start narrower than the beam, so that each finds its own peak."""


@njit(cache=True, nogil=True)
def widen_island(own: NDArray[Any], valid: NDArray[Any], steps: int) -> NDArray[Any]:
    """Return (m, 2) row and column of the island's pixels and the valid ones within ``steps`` pixels."""
    ny, nx = own.shape
    n = 0
    pixels = np.empty((own.size, 2), np.int64)
    for y in range(ny):
        for x in range(nx):
            near = own[y, x]
            if not near and valid[y, x]:
                for v in range(max(0, y - steps), min(ny, y + steps + 1)):
                    for u in range(max(0, x - steps), min(nx, x + steps + 1)):
                        near |= own[v, u]
            if near:
                pixels[n, 0], pixels[n, 1] = y, x
                n += 1
    return pixels[:n]


@njit(cache=True, nogil=True)
def find_smooth_peak(
    residual: NDArray[Any], weight: NDArray[Any], own: NDArray[Any], beam: NDArray[Any], reach: int
) -> tuple[int, int]:
    """Pixel of the island where the mean residual over a beam is highest, ``(-1, -1)`` if not positive.

    The mean is over the island's pixels up to ``reach`` away in row and column.
    """
    best, row, column = 0.0, -1, -1
    for y in range(own.shape[0]):
        for x in range(own.shape[1]):
            if not own[y, x]:
                continue
            total = norm = 0.0
            for v in range(max(0, y - reach), min(own.shape[0], y + reach + 1)):
                for u in range(max(0, x - reach), min(own.shape[1], x + reach + 1)):
                    if own[v, u]:
                        dx, dy = u - x, v - y
                        q = beam[0] * dx * dx + 2.0 * beam[1] * dx * dy + beam[2] * dy * dy
                        share = np.exp(-0.5 * q)
                        total += share * residual[v, u] * weight[v, u]
                        norm += share
            if total > best * norm:
                best, row, column = total / norm, y, x
    return row, column


@njit(cache=True, nogil=True)
def measure_misfit(
    residual: NDArray[Any], data: NDArray[Any], weight: NDArray[Any], own: NDArray[Any], dynamic: float
) -> float:
    """Mean square of an island's residual in units of the noise.

    The noise includes a share ``dynamic`` of the brightness: real beams are not exactly Gaussian.
    """
    total, n = 0.0, 0
    for y in range(own.shape[0]):
        for x in range(own.shape[1]):
            if own[y, x]:
                floor = dynamic * data[y, x] * weight[y, x]
                total += (residual[y, x] * weight[y, x]) ** 2 / (1.0 + floor * floor)
                n += 1
    return total / n


@njit(cache=True, nogil=True)
def _set_anchors(anchor: NDArray[Any], theta: NDArray[Any], n: int, room: float) -> None:
    """Let the first ``n`` components move ``room`` pixels from where they are."""
    anchor[:n, :2] = theta[:n, 1:3]
    anchor[:n, 2] = room


@njit(cache=True, nogil=True)
def _fit_all(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    anchor: NDArray[Any],
    seeds: NDArray[Any],
    data: NDArray[Any],
    weight: NDArray[Any],
    own: NDArray[Any],
    pixels: NDArray[Any],
    beam: NDArray[Any],
    bounds: tuple[float, float],
    settings: Settings,
    residual: NDArray[Any],
) -> int:
    """Fit up to `MOST` shapes to ``pixels`` jointly; return how many, none where no fit succeeds.

    They start from the brightest peaks; where there are fewer, from the highest residual smoothed
    with the beam, until the misfit is low enough.
    """
    most = MOST
    room = ROOM * settings.stray
    peaks = find_peaks(data * weight, own, settings.prominence, 0.8 * settings.seed, most)
    n = peaks.shape[0]
    for k in range(n):
        y, x = peaks[k, 0], peaks[k, 1]
        seeds[k] = peaks[k]
        start_component(data, own, y, x, beam, settings, theta, kinds, anchor, k)
        theta[k, 1], theta[k, 2] = x, y
        if n > 1:
            theta[k, 3:] = beam / COMPACTNESS
    kinds[:] = FREE
    _set_anchors(anchor, theta, n, room)
    status = fit_components(theta, kinds, n, data, weight, pixels, anchor, bounds[0], bounds[1])
    if status == SINGULAR:
        return 0
    subtract_components(data, theta, n, residual)
    misfit = measure_misfit(residual, data, weight, own, 0.0)
    while n < most and misfit > settings.whole_chi2:
        y, x = find_smooth_peak(residual, weight, own, beam, ceil(1.5 * settings.stray))
        y, x = nearest_free_pixel(own, seeds, n, y, x) if y >= 0 else (-1, -1)
        if y < 0:
            break
        before = theta.copy()
        start_component(residual, own, y, x, beam, settings, theta, kinds, anchor, n)
        kinds[n] = FREE
        seeds[n, 0], seeds[n, 1] = y, x
        _set_anchors(anchor, theta, n + 1, room)
        status = fit_components(theta, kinds, n + 1, data, weight, pixels, anchor, bounds[0], bounds[1])
        subtract_components(data, theta, n + 1, residual)
        lower = measure_misfit(residual, data, weight, own, 0.0)
        if status == SINGULAR or not lower < misfit:
            theta[:] = before
            subtract_components(data, theta, n, residual)
            break
        misfit = lower
        n += 1
    return n


@njit(cache=True, nogil=True)
def _add_shapes(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    anchor: NDArray[Any],
    seeds: NDArray[Any],
    n: int,
    data: NDArray[Any],
    weight: NDArray[Any],
    valid: NDArray[Any],
    own: NDArray[Any],
    bounds: tuple[float, float],
    beam: NDArray[Any],
    settings: Settings,
    residual: NDArray[Any],
) -> int:
    """Fit shapes to what stands out of the residual, each by itself; return the new count."""
    radii = np.array([0.0, settings.point_radius, settings.free_radius])
    least = np.array([0.0, settings.point_least, settings.free_least])
    left = own.copy()
    chi2 = sum_island(residual, weight, own)
    for _ in range(3 * theta.shape[0]):
        if n >= theta.shape[0] - 1:
            break
        row, column = find_residual_peak(residual, data, weight, left, seeds, n, settings)
        if row < 0:
            break
        part = slice(n, n + 1)
        start_component(residual, own, row, column, beam, settings, theta, kinds, anchor, n)
        kinds[n] = FREE
        anchor[n, 2] = 1.5 * settings.stray
        seeds[n, 0], seeds[n, 1] = row, column
        status = SINGULAR
        for _sweep in range(3):
            pixels = select_pixels(theta[part], kinds[part], 1, valid, radii, least)
            status = fit_components(
                theta[part], kinds[part], 1, residual, weight, pixels, anchor[part], bounds[0], bounds[1]
            )
            if status == SINGULAR:
                break
        subtract_components(data, theta, n + 1, residual)
        lower = sum_island(residual, weight, own)
        drop = (chi2 - lower) / settings.correlation
        bright = theta[n, 0] * weight[row, column] > 0.7 * settings.seed
        if status != SINGULAR and bright and drop >= settings.gain:
            n += 1
            chi2 = lower
            continue
        subtract_components(data, theta, n, residual)
        half = max(1, int(0.5 * settings.stray))
        left[max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1] = False
    return n


@njit(cache=True, nogil=True)
def _share_out(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    anchor: NDArray[Any],
    flags: NDArray[Any],
    seeds: NDArray[Any],
    n: int,
    data: NDArray[Any],
    weight: NDArray[Any],
    pixels: NDArray[Any],
    bounds: tuple[float, float],
    settings: Settings,
) -> int:
    """Fit all shapes to ``pixels`` jointly, near where they are, without faint ones; return the count."""
    while n > 0:
        before = theta.copy()
        _set_anchors(anchor, theta, n, NUDGE * settings.stray)
        status = fit_components(theta, kinds, n, data, weight, pixels, anchor, bounds[0], bounds[1])
        if status == SINGULAR:
            theta[:] = before
        worst, lowest = -1, 0.7 * settings.seed
        for k in range(n):
            level = theta[k, 0] * weight[seeds[k, 0], seeds[k, 1]]
            if not level >= lowest:
                worst, lowest = k, level
        if worst < 0:
            break
        n -= 1
        for k in range(worst, n):
            theta[k], flags[k], seeds[k] = theta[k + 1], flags[k + 1], seeds[k + 1]
    return n


@njit(cache=True, nogil=True)
def fit_whole(
    data: NDArray[Any],
    weight: NDArray[Any],
    valid: NDArray[Any],
    own: NDArray[Any],
    beam: NDArray[Any],
    settings: Settings,
    residual: NDArray[Any],
) -> tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Fit shapes to all pixels of an island and half a beam around it.

    Parameters
    ----------
    data, weight : (ny, nx) float64
        Background-subtracted image and ``1 / rms`` of the island's patch; 0 where blank.
    valid, own : (ny, nx) bool
        Pixels that a fit may use, and those of the island.
    beam : (3,) float64
        Precision matrix of the beam.
    residual : (ny, nx) float64
        Receives data minus model.

    Returns
    -------
    n, theta, flags, seeds
        As of `survey_ml.stages.extraction.decomposition.fit_island`; all are `FREE`. None where no
        fit succeeds.
    """
    room = LIMIT + 1
    theta, anchor = np.empty((room, 6)), np.zeros((room, 4))
    kinds, flags, seeds = np.full(room, FREE), np.zeros(room, np.int64), np.zeros((room, 2), np.int64)
    bounds = bound_precision(beam, settings.max_scale)
    pixels = widen_island(own, valid, ceil(0.5 * settings.stray))
    first = _fit_all(theta, kinds, anchor, seeds, data, weight, own, pixels, beam, bounds, settings, residual)
    if first == 0:
        return 0, theta, flags, seeds
    n = _add_shapes(
        theta, kinds, anchor, seeds, first, data, weight, valid, own, bounds, beam, settings, residual
    )
    flags[first:n] = FROM_RESIDUAL
    n = _share_out(theta, kinds, anchor, flags, seeds, n, data, weight, pixels, bounds, settings)
    subtract_components(data, theta, n, residual)
    return n, theta, flags, seeds
