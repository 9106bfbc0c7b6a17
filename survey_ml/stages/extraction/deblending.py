"""How many components an island has, and which of them need a shape of their own.

The peaks give a first model of points. Points whose shape differs significantly from the beam
get free shapes; elongated shapes are tried as two components (`splitting`); what the residual still
shows becomes a further component when it improves the fit by more than correlated noise would.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from survey_ml.stages.extraction.algebra import bound_precision
from survey_ml.stages.extraction.covariance import measure_shape_excess
from survey_ml.stages.extraction.fit import (
    APERTURE_GROWTH,
    APERTURES,
    CONVERGED,
    HELD,
    SINGULAR,
    fit_components,
    select_pixels,
)
from survey_ml.stages.extraction.model import FREE, FWHM, POINT, add_component
from survey_ml.stages.extraction.settings import BOUNDED, FROM_RESIDUAL, Settings

REACH = 5.0
"""Sigma out to which a component is subtracted."""


@njit(cache=True, nogil=True)
def subtract_components(data: NDArray[Any], theta: NDArray[Any], n: int, residual: NDArray[Any]) -> None:
    """Fill ``residual`` with ``data`` minus the first ``n`` components."""
    residual[:, :] = data
    for k in range(n):
        add_component(residual, theta[k], -1.0, REACH)


@njit(cache=True, nogil=True)
def sum_island(residual: NDArray[Any], weight: NDArray[Any], own: NDArray[Any]) -> float:
    """Chi^2 of a residual over the island's pixels, as if they were independent."""
    total = 0.0
    for y in range(own.shape[0]):
        for x in range(own.shape[1]):
            if own[y, x]:
                total += (residual[y, x] * weight[y, x]) ** 2
    return total


@njit(cache=True, nogil=True)
def fit_with_apertures(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    anchor: NDArray[Any],
    n: int,
    data: NDArray[Any],
    weight: NDArray[Any],
    valid: NDArray[Any],
    beam: NDArray[Any],
    settings: Settings,
) -> int:
    """Fit ``n`` components jointly; the apertures follow their positions and shapes."""
    radii = np.array([0.0, settings.point_radius, settings.free_radius])
    least = np.array([0.0, settings.point_least, settings.free_least])
    lowest, highest = bound_precision(beam, settings.max_scale)
    start = theta[:n].copy()
    status = SINGULAR
    # Beside blank pixels the aperture of a source by itself may hold too few: then it grows.
    for _attempt in range(APERTURES if n == 1 else 1):
        pixels = select_pixels(theta, kinds, n, valid, radii, least)
        for _ in range(4):
            status = fit_components(theta, kinds, n, data, weight, pixels, anchor, lowest, highest)
            if status == SINGULAR:
                break
            again = select_pixels(theta, kinds, n, valid, radii, least)
            if again.shape[0] == pixels.shape[0] and np.all(again == pixels):
                break
            pixels = again
        if status != SINGULAR:
            break
        theta[:n] = start
        radii *= APERTURE_GROWTH
        least *= APERTURE_GROWTH
    return status


@njit(cache=True, nogil=True)
def refit(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    anchor: NDArray[Any],
    n: int,
    data: NDArray[Any],
    weight: NDArray[Any],
    valid: NDArray[Any],
    beam: NDArray[Any],
    settings: Settings,
    residual: NDArray[Any],
) -> int:
    """Fit all components, jointly when there are few, else in turn, brightest first.

    ``residual`` receives data minus model. Returns the worst status.
    """
    if n <= settings.max_joint:
        status = fit_with_apertures(theta, kinds, anchor, n, data, weight, valid, beam, settings)
        subtract_components(data, theta, n, residual)
        return status
    subtract_components(data, theta, n, residual)
    worst = CONVERGED
    for sweep in range(3):
        worst = CONVERGED
        order = np.argsort(-theta[:n, 0], kind="mergesort")
        for k in order:
            add_component(residual, theta[k], 1.0, REACH)
            status = fit_with_apertures(
                theta[k : k + 1], kinds[k : k + 1], anchor[k : k + 1], 1, residual, weight,
                valid, beam, settings,
            )  # fmt: skip
            worst = max(worst, status)
            add_component(residual, theta[k], -1.0, REACH)
        if sweep == 0:
            # Adding and taking away rounds; starting afresh keeps the error from growing.
            subtract_components(data, theta, n, residual)
    return worst


@njit(cache=True, nogil=True)
def start_component(
    residual: NDArray[Any],
    own: NDArray[Any],
    row: int,
    column: int,
    beam: NDArray[Any],
    settings: Settings,
    theta: NDArray[Any],
    kinds: NDArray[Any],
    anchor: NDArray[Any],
    k: int,
) -> None:
    """Start component ``k`` at a pixel: as a point, or as wide as the region above half of it.

    The second moments of a Gaussian's pixels above half its peak are ``1 - ln 2`` of its own.
    """
    ny, nx = own.shape
    half = 0.5 * residual[row, column]
    bound = int(6.0 * settings.stray)
    low_y, high_y = max(0, row - bound), min(ny, row + bound + 1)
    low_x, high_x = max(0, column - bound), min(nx, column + bound + 1)
    seen = np.zeros((high_y - low_y, high_x - low_x), np.bool_)
    stack = np.empty(seen.size, np.int64)
    stack[0] = row * nx + column
    seen[row - low_y, column - low_x] = True
    end = 1
    total = sx = sy = xx = xy = yy = 0.0
    while end > 0:
        end -= 1
        y, x = stack[end] // nx, stack[end] % nx
        dx, dy = x - column, y - row
        value = residual[y, x]
        total += value
        sx += value * dx
        sy += value * dy
        xx += value * dx * dx
        xy += value * dx * dy
        yy += value * dy * dy
        for v in range(max(low_y, y - 1), min(high_y, y + 2)):
            for u in range(max(low_x, x - 1), min(high_x, x + 2)):
                if not seen[v - low_y, u - low_x] and own[v, u] and residual[v, u] > half:
                    seen[v - low_y, u - low_x] = True
                    stack[end] = v * nx + u
                    end += 1
    sx /= total
    sy /= total
    xx = (xx / total - sx * sx) / 0.307
    xy = (xy / total - sx * sy) / 0.307
    yy = (yy / total - sy * sy) / 0.307
    det = xx * yy - xy * xy
    theta[k, 0] = residual[row, column]
    anchor[k, 2] = settings.stray
    if det * (beam[0] * beam[2] - beam[1] * beam[1]) > settings.extent**2:
        kinds[k] = FREE
        theta[k, 1], theta[k, 2] = column + sx, row + sy
        theta[k, 3], theta[k, 4], theta[k, 5] = yy / det, -xy / det, xx / det
        anchor[k, 2] += sqrt(sqrt(det))
    else:
        kinds[k] = POINT
        theta[k, 1], theta[k, 2] = column, row
        theta[k, 3:] = beam
    anchor[k, :2] = theta[k, 1:3]


@njit(cache=True, nogil=True)
def free_alone(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    anchor: NDArray[Any],
    flags: NDArray[Any],
    k: int,
    residual: NDArray[Any],
    weight: NDArray[Any],
    valid: NDArray[Any],
    beam: NDArray[Any],
    settings: Settings,
) -> None:
    """Give one point of many a free shape if that fit succeeds; ``residual`` is kept up to date."""
    before = theta[k].copy()
    add_component(residual, theta[k], 1.0, REACH)
    kinds[k] = FREE
    part = slice(k, k + 1)
    status = fit_with_apertures(
        theta[part], kinds[part], anchor[part], 1, residual, weight, valid, beam, settings
    )
    if status != CONVERGED:
        theta[k] = before
        kinds[k] = POINT
        flags[k] |= BOUNDED
    add_component(residual, theta[k], -1.0, REACH)


@njit(cache=True, nogil=True)
def has_settled(status: int, anchor: NDArray[Any], held: NDArray[Any], n: int) -> bool:
    """Whether a fit is at a minimum and holds no component but those of ``held`` (n,)."""
    if status == HELD:
        for k in range(n):
            if anchor[k, 3] > held[k]:
                return False
    return status <= HELD


@njit(cache=True, nogil=True)
def free_shapes(
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
) -> None:
    """Give a free shape to every point that significantly differs from the beam, and refit.

    ``shapes`` (k, 9) receives what the test says of the points that stay points.
    """
    radii = np.array([0.0, settings.point_radius, settings.free_radius])
    least = np.array([0.0, settings.point_least, settings.free_least])
    probe = np.full(1, FREE)
    for _ in range(3):
        freed = np.zeros(n, np.bool_)
        for k in range(n):
            if kinds[k] != POINT:
                continue
            pixels = select_pixels(theta[k : k + 1], probe, 1, valid, radii, least)
            statistic = measure_shape_excess(theta, k, weight, pixels, acf, residual, shapes[k])
            if statistic > settings.free_threshold and not flags[k] & BOUNDED:
                freed[k] = True
        if not freed.any():
            break
        if n > settings.max_joint:
            # One by one with the others fixed: the work grows with their number, not its square.
            for k in range(n):
                if freed[k]:
                    free_alone(theta, kinds, anchor, flags, k, residual, weight, valid, beam, settings)
            refit(theta, kinds, anchor, n, data, weight, valid, beam, settings, residual)
            break
        before, places, held = theta[:n].copy(), anchor[:n].copy(), anchor[:n, 3].copy()
        for k in range(n):
            if freed[k]:
                kinds[k] = FREE
                held[k] = 0.0
        status = refit(theta, kinds, anchor, n, data, weight, valid, beam, settings, residual)
        if has_settled(status, anchor, held, n):
            continue
        # A free shape that runs into a bound or has too few pixels goes back to a point.
        theta[:n], anchor[:n] = before, places
        for k in range(n):
            if freed[k]:
                kinds[k] = POINT
        for k in range(n):
            if not freed[k]:
                continue
            kept, places, held = theta[:n].copy(), anchor[:n].copy(), anchor[:n, 3].copy()
            kinds[k] = FREE
            held[k] = 0.0
            status = refit(theta, kinds, anchor, n, data, weight, valid, beam, settings, residual)
            if not has_settled(status, anchor, held, n):
                # On a plateau the pixels of one beam have no curvature: start from its extent.
                theta[:n] = kept
                subtract_components(data, theta, n, residual)
                add_component(residual, theta[k], 1.0, REACH)
                start_component(
                    residual, own, seeds[k, 0], seeds[k, 1], beam, settings, theta, kinds, anchor, k
                )
                if kinds[k] == FREE:
                    status = refit(theta, kinds, anchor, n, data, weight, valid, beam, settings, residual)
            if kinds[k] == POINT or not has_settled(status, anchor, held, n):
                theta[:n], anchor[:n] = kept, places
                kinds[k] = POINT
                flags[k] |= BOUNDED
        refit(theta, kinds, anchor, n, data, weight, valid, beam, settings, residual)


@njit(cache=True, nogil=True)
def find_residual_peak(
    residual: NDArray[Any],
    data: NDArray[Any],
    weight: NDArray[Any],
    own: NDArray[Any],
    seeds: NDArray[Any],
    n: int,
    settings: Settings,
) -> tuple[int, int]:
    """Pixel of the island where the residual is highest, or ``(-1, -1)`` when it is low enough."""
    best, row, column = 0.0, -1, -1
    for y in range(own.shape[0]):
        for x in range(own.shape[1]):
            if not own[y, x]:
                continue
            value = residual[y, x] * weight[y, x]
            model = (data[y, x] - residual[y, x]) * weight[y, x]
            if value <= best or value < max(settings.residual_snr, settings.dynamic * model):
                continue
            taken = False
            for k in range(n):
                taken |= seeds[k, 0] == y and seeds[k, 1] == x
            if not taken:
                best, row, column = value, y, x
    return row, column


@njit(cache=True, nogil=True)
def nearest_free_pixel(own: NDArray[Any], seeds: NDArray[Any], n: int, y: float, x: float) -> tuple[int, int]:
    """Pixel of the island nearest to a position that no component starts from."""
    best, row, column = np.inf, -1, -1
    for v in range(own.shape[0]):
        for u in range(own.shape[1]):
            distance = (v - y) ** 2 + (u - x) ** 2
            if not own[v, u] or distance >= best:
                continue
            taken = False
            for k in range(n):
                taken |= seeds[k, 0] == v and seeds[k, 1] == u
            if not taken:
                best, row, column = distance, v, u
    return row, column


@njit(cache=True, nogil=True)
def stands_apart(theta: NDArray[Any], n: int, k: int, beam: NDArray[Any], apart: float) -> bool:
    """Whether component ``k`` of ``n`` is ``apart`` beam FWHM or more from every other."""
    for j in range(n):
        if j == k:
            continue
        dx, dy = theta[j, 1] - theta[k, 1], theta[j, 2] - theta[k, 2]
        if beam[0] * dx * dx + 2.0 * beam[1] * dx * dy + beam[2] * dy * dy < (apart * FWHM) ** 2:
            return False
    return True


@njit(cache=True, nogil=True)
def add_from_residual(
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
    """Add components where the residual stands out, one at a time; return the new count."""
    left = own.copy()
    last = n + settings.max_additions
    for _ in range(2 * settings.max_additions):
        if n >= min(last, theta.shape[0] - 1):
            break
        row, column = find_residual_peak(residual, data, weight, left, seeds, n, settings)
        if row < 0:
            break
        before, kinds_before, anchor_before = theta.copy(), kinds.copy(), anchor.copy()
        flags_before, shapes_before = flags.copy(), shapes.copy()
        chi2 = sum_island(residual, weight, own)
        start_component(residual, own, row, column, beam, settings, theta, kinds, anchor, n)
        flags[n] = FROM_RESIDUAL
        seeds[n, 0], seeds[n, 1] = row, column
        status = refit(theta, kinds, anchor, n + 1, data, weight, valid, beam, settings, residual)
        # A point that is worth it as a point may take any shape later; a shape must be worth more.
        drop = (chi2 - sum_island(residual, weight, own)) / settings.correlation
        apart = stands_apart(theta, n + 1, n, beam, settings.apart)
        proven = kinds[n] == POINT and apart and drop >= settings.gain
        free_shapes(
            theta, kinds, anchor, flags, shapes, seeds, n + 1, data, weight, valid, own, beam, acf,
            settings, residual,
        )  # fmt: skip
        drop = (chi2 - sum_island(residual, weight, own)) / settings.correlation
        proven |= kinds[n] == FREE and drop >= settings.free_gain
        if status == SINGULAR or not proven or theta[n, 0] < settings.seed * 0.7 / weight[row, column]:
            theta[:], kinds[:], anchor[:] = before, kinds_before, anchor_before
            flags[:], shapes[:] = flags_before, shapes_before
            subtract_components(data, theta, n, residual)
            # What was refused once is not asked again, but the rest of the island is.
            half = max(1, int(0.5 * settings.stray))
            left[max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1] = False
            continue
        n += 1
    return n
