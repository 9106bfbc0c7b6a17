"""Elongated shapes that are two sources."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from survey_ml.stages.extraction.deblending import (
    REACH,
    fit_with_apertures,
    free_shapes,
    has_settled,
    nearest_free_pixel,
    refit,
    stands_apart,
    subtract_components,
    sum_island,
)
from survey_ml.stages.extraction.fit import CONVERGED, SINGULAR, UNCONVERGED
from survey_ml.stages.extraction.model import FREE, POINT, add_component, area_ratio
from survey_ml.stages.extraction.settings import FROM_RESIDUAL, Settings


@njit(cache=True, nogil=True)
def split_shape(
    theta: NDArray[Any], k: int, new: int, beam: NDArray[Any], anchor: NDArray[Any], seeds: NDArray[Any]
) -> bool:
    """Replace the shape of component ``k`` by two points with the same moments (``k``, ``new``).

    The half that is nearer to the pixel that the component started from keeps its place.
    Returns False when it is not elongated once the beam is removed.
    """
    det = theta[k, 3] * theta[k, 5] - theta[k, 4] ** 2
    det0 = beam[0] * beam[2] - beam[1] ** 2
    xx = theta[k, 5] / det - beam[2] / det0
    xy = -theta[k, 4] / det + beam[1] / det0
    yy = theta[k, 3] / det - beam[0] / det0
    mean, half = 0.5 * (xx + yy), sqrt(0.25 * (xx - yy) ** 2 + xy * xy)
    if mean + half <= 0.0 or mean - half > 0.7 * (mean + half):
        return False
    along = sqrt(mean + half)
    angle = 0.5 * np.arctan2(2.0 * xy, xx - yy)
    x, y = theta[k, 1], theta[k, 2]
    first = 1.0 if (seeds[k, 1] - x) * np.cos(angle) + (seeds[k, 0] - y) * np.sin(angle) > 0.0 else -1.0
    peak = 0.5 * theta[k, 0] * area_ratio(theta[k], beam)
    # Never more than the source's own peak: two points far apart keep most of it each.
    peak = min(peak, theta[k, 0])
    for index, sign in ((k, first), (new, -first)):
        theta[index, 0] = peak
        theta[index, 1] = x + sign * along * np.cos(angle)
        theta[index, 2] = y + sign * along * np.sin(angle)
        theta[index, 3:] = beam
        anchor[index, :2] = theta[index, 1:3]
    return True


@njit(cache=True, nogil=True)
def place_seeds(
    theta: NDArray[Any],
    weight: NDArray[Any],
    own: NDArray[Any],
    seeds: NDArray[Any],
    n: int,
    k: int,
    beam: NDArray[Any],
    settings: Settings,
) -> bool:
    """Give the later half ``n`` of component ``k`` a pixel to start from.

    Returns False when the halves are not both bright enough, or not apart from all others.
    """
    row, column = nearest_free_pixel(own, seeds, n, theta[n, 2], theta[n, 1])
    if row < 0:
        return False
    seeds[n, 0], seeds[n, 1] = row, column
    faintest = 0.7 * settings.seed / weight[row, column]
    bright = theta[k, 0] > faintest and theta[n, 0] > faintest
    return bright and stands_apart(theta, n + 1, n, beam, settings.apart)


@njit(cache=True, nogil=True)
def fit_pair(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    anchor: NDArray[Any],
    k: int,
    n: int,
    whole: NDArray[Any],
    weight: NDArray[Any],
    valid: NDArray[Any],
    beam: NDArray[Any],
    settings: Settings,
    residual: NDArray[Any],
) -> bool:
    """Fit shapes to the halves ``k`` and ``n`` of ``whole`` with all others as they are.

    Parameters
    ----------
    whole : (6,) float64
        The component that was split.
    residual : (ny, nx) float64
        Of the model that holds it; afterwards it is that plus ``whole``.

    Returns
    -------
    bool
        Whether it converged; the halves are then in ``theta``, as free shapes.
    """
    add_component(residual, whole, 1.0, REACH)
    pair, places = np.empty((2, 6)), np.empty((2, 4))
    for i, j in ((0, k), (1, n)):
        pair[i], places[i] = theta[j], anchor[j]
    status = UNCONVERGED
    for kind in (POINT, FREE):
        status = fit_with_apertures(
            pair, np.full(2, kind), places, 2, residual, weight, valid, beam, settings
        )
    if status != CONVERGED:
        return False
    theta[k], theta[n] = pair[0], pair[1]
    kinds[k], kinds[n] = FREE, FREE
    return True


@njit(cache=True, nogil=True)
def split_elongated(
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
    own: NDArray[Any],
    beam: NDArray[Any],
    acf: NDArray[Any],
    settings: Settings,
    residual: NDArray[Any],
) -> int:
    """Try two components for each elongated shape; return the new count.

    Two points have as many parameters as one shape. Where both are wider than the beam, two
    shapes are tried; they must improve the fit by more, and each be not much larger than the
    beam: parts of one extended source are no two sources.
    """
    limit = min(n + settings.max_additions, theta.shape[0])
    for k in range(n):
        if kinds[k] != FREE or n >= limit or n + 1 > settings.max_joint:
            continue
        before, kinds_before, anchor_before = theta.copy(), kinds.copy(), anchor.copy()
        flags_before, shapes_before = flags.copy(), shapes.copy()
        chi2 = sum_island(residual, weight, own)
        for kind in (POINT, FREE):
            if not split_shape(theta, k, n, beam, anchor, seeds):
                break
            anchor[k, 2], anchor[n, 2] = settings.stray, settings.stray
            flags[n] = FROM_RESIDUAL
            wanted = settings.split_gain
            kinds[k], kinds[n] = POINT, POINT
            good = True
            if kind == FREE:
                wanted = settings.shaped_gain
                good = fit_pair(
                    theta, kinds, anchor, k, n, before[k], weight, valid, beam, settings, residual
                )
            if good:
                status = refit(theta, kinds, anchor, n + 1, data, weight, valid, beam, settings, residual)
                drop = (chi2 - sum_island(residual, weight, own)) / settings.correlation
                held = anchor_before[:, 3].copy()
                held[k], held[n] = 0.0, 0.0
                # Shapes have converged as a pair; others of the island need not have.
                good = drop > wanted and (
                    has_settled(status, anchor, held, n + 1) or (kind == FREE and status != SINGULAR)
                )
            if good and kind == FREE:
                size = max(area_ratio(theta[k], beam), area_ratio(theta[n], beam))
                good = size < settings.shaped_area
            if good and place_seeds(theta, weight, own, seeds, n, k, beam, settings):
                n += 1
                free_shapes(
                    theta, kinds, anchor, flags, shapes, seeds, n, data, weight, valid, own, beam, acf,
                    settings, residual,
                )  # fmt: skip
                break
            theta[:], kinds[:], anchor[:] = before, kinds_before, anchor_before
            flags[:], shapes[:] = flags_before, shapes_before
            subtract_components(data, theta, n, residual)
    return n
