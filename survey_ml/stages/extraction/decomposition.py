"""All components of one island: from its peaks to the last fit."""

from __future__ import annotations

from math import ceil, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from survey_ml.stages.extraction.deblending import (
    REACH,
    add_from_residual,
    free_shapes,
    refit,
    subtract_components,
)
from survey_ml.stages.extraction.fit import CONVERGED, SINGULAR
from survey_ml.stages.extraction.model import FIXED, FREE, POINT, add_component
from survey_ml.stages.extraction.moments import measure_moments
from survey_ml.stages.extraction.peaks import find_peaks
from survey_ml.stages.extraction.settings import BOUNDED, MOMENTS, TOO_LARGE, Settings
from survey_ml.stages.extraction.splitting import split_elongated
from survey_ml.stages.extraction.whole import WORSE, fit_whole, measure_misfit


@njit(cache=True, nogil=True)
def _drop_component(
    k: int,
    n: int,
    theta: NDArray[Any],
    kinds: NDArray[Any],
    anchor: NDArray[Any],
    flags: NDArray[Any],
    shapes: NDArray[Any],
    seeds: NDArray[Any],
) -> None:
    """Close the gap that component ``k`` of ``n`` leaves."""
    for i in range(k, n - 1):
        theta[i] = theta[i + 1]
        kinds[i] = kinds[i + 1]
        anchor[i] = anchor[i + 1]
        flags[i] = flags[i + 1]
        shapes[i] = shapes[i + 1]
        seeds[i] = seeds[i + 1]


@njit(cache=True, nogil=True)
def _drop_faint(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    anchor: NDArray[Any],
    flags: NDArray[Any],
    shapes: NDArray[Any],
    seeds: NDArray[Any],
    n: int,
    data: NDArray[Any],
    weight: NDArray[Any],
    valid: NDArray[Any],
    beam: NDArray[Any],
    settings: Settings,
    residual: NDArray[Any],
) -> int:
    """Take out components that the fit left below the noise or far off; return how many stay."""
    for _ in range(max(3, n) if n <= settings.max_joint else 3):
        if n == 1:
            break
        if n > settings.max_joint:
            before = n
            for k in range(n - 1, -1, -1):
                if n > 1 and not theta[k, 0] * weight[seeds[k, 0], seeds[k, 1]] >= 0.7 * settings.seed:
                    _drop_component(k, n, theta, kinds, anchor, flags, shapes, seeds)
                    n -= 1
            if n == before:
                break
            refit(theta, kinds, anchor, n, data, weight, valid, beam, settings, residual)
            continue
        worst, lowest = -1, 0.7 * settings.seed
        for k in range(n):
            level = theta[k, 0] * weight[seeds[k, 0], seeds[k, 1]]
            if not level >= lowest:
                worst, lowest = k, level
        if worst < 0:
            break
        _drop_component(worst, n, theta, kinds, anchor, flags, shapes, seeds)
        n -= 1
        refit(theta, kinds, anchor, n, data, weight, valid, beam, settings, residual)
    return n


@njit(cache=True, nogil=True)
def _drop_outside(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    anchor: NDArray[Any],
    flags: NDArray[Any],
    shapes: NDArray[Any],
    seeds: NDArray[Any],
    n: int,
    valid: NDArray[Any],
    stray: float,
    residual: NDArray[Any],
) -> int:
    """Take out components of which only a flank is on the image; return how many stay.

    Peak and position of such a source are extrapolated. Its centre is on no pixel with data, and
    there is none behind it as seen from the pixel that it started from: a source around a hole
    stays. The others are left as they are, fitted together with it.
    """
    for k in range(n - 1, -1, -1):
        dx, dy = theta[k, 1] - seeds[k, 1], theta[k, 2] - seeds[k, 0]
        distance = sqrt(dx * dx + dy * dy)
        shown = distance == 0.0
        if not shown:
            for step in range(ceil(2.0 * stray)):
                row = round(theta[k, 2] + step * dy / distance)
                column = round(theta[k, 1] + step * dx / distance)
                if 0 <= row < valid.shape[0] and 0 <= column < valid.shape[1]:
                    shown |= valid[row, column]
        if not shown:
            add_component(residual, theta[k], 1.0, REACH)
            _drop_component(k, n, theta, kinds, anchor, flags, shapes, seeds)
            n -= 1
    return n


@njit(cache=True, nogil=True)
def _describe_rest(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    flags: NDArray[Any],
    shapes: NDArray[Any],
    seeds: NDArray[Any],
    n: int,
    own: NDArray[Any],
    beam: NDArray[Any],
    residual: NDArray[Any],
) -> int:
    """Put what the fits leave of a large island into one component by its moments."""
    total, best = 0.0, 0.0
    row, column = -1, -1
    for y in range(own.shape[0]):
        for x in range(own.shape[1]):
            if not own[y, x]:
                continue
            total += residual[y, x]
            if residual[y, x] > best:
                taken = False
                for k in range(n):
                    taken |= seeds[k, 0] == y and seeds[k, 1] == x
                if not taken:
                    best, row, column = residual[y, x], y, x
    positive = measure_moments(residual, own, beam, theta[n])
    if row < 0 or not total > 0.0 or not positive > 0.0:
        return n
    # Only bright pixels have moments, but the flux is that of all pixels.
    theta[n, 0] *= total / positive
    kinds[n] = FIXED
    flags[n] = MOMENTS | TOO_LARGE
    shapes[n] = np.nan
    seeds[n, 0], seeds[n, 1] = row, column
    return n + 1


@njit(cache=True, nogil=True)
def fit_island(
    data: NDArray[Any],
    weight: NDArray[Any],
    valid: NDArray[Any],
    own: NDArray[Any],
    n_pixels: int,
    beam: NDArray[Any],
    acf: NDArray[Any],
    settings: Settings,
    residual: NDArray[Any],
) -> tuple[int, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Decide on the components of one island and fit them.

    Parameters
    ----------
    data, weight : (ny, nx) float64
        Background-subtracted image and ``1 / rms`` of the island's patch; 0 where blank.
    valid, own : (ny, nx) bool
        Pixels that a fit may use, and those of the island.
    beam : (3,) float64
        Precision matrix of the beam.
    acf : (2 k + 1, 2 k + 1) float64
        Noise autocorrelation.
    residual : (ny, nx) float64
        Receives data minus model.

    Returns
    -------
    n, theta, kinds, flags, shapes, seeds
        The first ``n`` rows count; none where all that shows is the flank of a source outside the
        image. Only the last may hold moments instead of a fit.
    """
    snr = data * weight
    large = n_pixels > settings.max_pixels
    least = settings.seed * 0.8
    peaks = find_peaks(snr, own, settings.prominence, least, settings.max_peaks)
    n = peaks.shape[0]
    room = n + settings.max_additions + 1
    theta = np.empty((room, 6))
    kinds = np.full(room, POINT)
    flags = np.zeros(room, np.int64)
    shapes = np.full((room, 9), np.nan)
    seeds = np.zeros((room, 2), np.int64)
    anchor = np.zeros((room, 4))
    anchor[:, 2] = settings.stray
    for k in range(n):
        y, x = peaks[k, 0], peaks[k, 1]
        theta[k, 0] = data[y, x]
        theta[k, 1], theta[k, 2] = x, y
        theta[k, 3:] = beam
        anchor[k, 0], anchor[k, 1] = x, y
        seeds[k, 0], seeds[k, 1] = y, x
    status = refit(theta, kinds, anchor, n, data, weight, valid, beam, settings, residual)
    while status == SINGULAR and 1 < n <= settings.max_joint:
        n -= 1
        status = refit(theta, kinds, anchor, n, data, weight, valid, beam, settings, residual)
    if n == 1 and (status == SINGULAR or not theta[0, 0] > 0.0):
        measure_moments(data, own, beam, theta[0])
        flags[0] |= MOMENTS
        subtract_components(data, theta, n, residual)
        return n, theta, kinds, flags, shapes, seeds
    if n == 1 and status != CONVERGED:
        flags[0] |= BOUNDED
    n = _drop_faint(
        theta, kinds, anchor, flags, shapes, seeds, n, data, weight, valid, beam, settings, residual
    )
    free_shapes(
        theta, kinds, anchor, flags, shapes, seeds, n, data, weight, valid, own, beam, acf,
        settings, residual,
    )  # fmt: skip
    if not large:
        n = split_elongated(
            theta, kinds, anchor, flags, shapes, seeds, n, data, weight, valid, own, beam, acf,
            settings, residual,
        )  # fmt: skip
        n = add_from_residual(
            theta, kinds, anchor, flags, shapes, seeds, n, data, weight, valid, own, beam, acf,
            settings, residual,
        )  # fmt: skip
    n = _drop_faint(
        theta, kinds, anchor, flags, shapes, seeds, n, data, weight, valid, beam, settings, residual
    )
    several = n > 1 and n_pixels >= settings.whole_area and not large
    if several and measure_misfit(residual, data, weight, own, 0.0) > settings.whole_chi2:
        rest = np.empty_like(residual)
        count, rows, marks, starts = fit_whole(data, weight, valid, own, beam, settings, rest)
        left = measure_misfit(rest, data, weight, own, settings.dynamic)
        if count > 0 and left < WORSE * measure_misfit(residual, data, weight, own, settings.dynamic):
            n, theta, flags, seeds = count, rows, marks, starts
            kinds = np.full(rows.shape[0], FREE)
            shapes = np.full((rows.shape[0], 9), np.nan)
            residual[:, :] = rest
    if n == 1 and not theta[0, 0] * weight[seeds[0, 0], seeds[0, 1]] >= 0.7 * settings.seed:
        # A fit that ran away from the peak that was detected: take the peak as it is.
        y, x = seeds[0, 0], seeds[0, 1]
        if data[y, x] * weight[y, x] >= settings.seed:
            theta[0, 0], theta[0, 1], theta[0, 2] = data[y, x], x, y
            theta[0, 3:] = beam
            kinds[0] = POINT
            flags[0] |= BOUNDED
            subtract_components(data, theta, n, residual)
    n = _drop_outside(theta, kinds, anchor, flags, shapes, seeds, n, valid, settings.stray, residual)
    if large:
        for k in range(n):
            flags[k] |= TOO_LARGE
        n = _describe_rest(theta, kinds, flags, shapes, seeds, n, own, beam, residual)
    return n, theta, kinds, flags, shapes, seeds
