"""From islands to rows: one compiled loop over all islands of a tile."""

from __future__ import annotations

from math import ceil, sqrt
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from survey_ml.stages.extraction.covariance import estimate_covariance, spread_covariance
from survey_ml.stages.extraction.decomposition import fit_island
from survey_ml.stages.extraction.fit import APERTURE_GROWTH, APERTURES, count_parameters, select_pixels
from survey_ml.stages.extraction.grouping import group_components
from survey_ml.stages.extraction.model import FREE, POINT, area_ratio, evaluate, span_ellipse
from survey_ml.stages.extraction.moments import sum_variance
from survey_ml.stages.extraction.settings import (
    BLENDED,
    EDGE,
    MOMENTS,
    POINT_MODEL,
    TOO_LARGE,
    TRUNCATED,
    Settings,
)


class Measured(NamedTuple):
    """Raw rows in the field's pixels; `survey_ml.stages.extraction.components` makes tables of them.

    Attributes
    ----------
    theta : (n, 6) float64
        ``(A, x, y, a, b, c)`` of each component.
    covariance : (n, 6, 6) float64
        Of the same; zero rows where a parameter was not fitted.
    shapes : (n, 9) float64
        Of points: what the shape test says; see `measure_shape_excess`.
    island, source : (n,) int64
        Index of the island among those given, and of the source among all sources.
    seeds : (n, 2) int64
        Row and column of the starting pixel.
    flags : (n,) int64
    rendered : (n,) bool
        Whether it belongs into the model image.
    source_moments : (s, 7) float64
        Total flux (in units of peak), x, y, and variances ``tt, xx, xy, yy`` of these.
    island_sums : (i, 7) float64
        Sum, x, y, variance of the sum, mean rms, rms of the residual, components.
    """

    theta: NDArray[Any]
    covariance: NDArray[Any]
    shapes: NDArray[Any]
    island: NDArray[Any]
    source: NDArray[Any]
    seeds: NDArray[Any]
    flags: NDArray[Any]
    rendered: NDArray[Any]
    source_moments: NDArray[Any]
    island_sums: NDArray[Any]


@njit(cache=True, nogil=True)
def _flag_position(
    row: NDArray[Any],
    image: NDArray[Any],
    y0: int,
    x0: int,
    box: tuple[int, int, int, int],
    near: float,
) -> int:
    """Set the flags of a component for blank pixels near it and under its model.

    ``row`` is in patch coordinates, the patch starting at ``(y0, x0)`` of ``image``; ``near`` is
    the distance in pixels that counts as near. Nothing outside ``box`` (``y0, y1, x0, x1``) is
    looked at; what of it is outside the image is blank.
    """
    flags = 0
    ny, nx = image.shape
    hx, hy = span_ellipse(row[3], row[4], row[5], 3.0)
    hx, hy = max(hx, near), max(hy, near)
    inside = total = 0.0
    for y in range(max(-y0 + box[0], ceil(row[2] - hy)), min(box[1] - y0, int(row[2] + hy) + 1)):
        for x in range(max(-x0 + box[2], ceil(row[1] - hx)), min(box[3] - x0, int(row[1] + hx) + 1)):
            dx, dy = x - row[1], y - row[2]
            q = row[3] * dx * dx + 2.0 * row[4] * dx * dy + row[5] * dy * dy
            v, u = y + y0, x + x0
            blank = v < 0 or u < 0 or v >= ny or u >= nx or not np.isfinite(image[v, u])
            if q <= 9.0:
                value = np.exp(-0.5 * q)
                total += value
                if not blank:
                    inside += value
            if blank and dx * dx + dy * dy <= near * near:
                flags |= EDGE
    if inside < 0.98 * total:
        flags |= TRUNCATED
    return flags


@njit(cache=True, nogil=True)
def _fill_covariances(
    theta: NDArray[Any],
    kinds: NDArray[Any],
    n: int,
    weight: NDArray[Any],
    valid: NDArray[Any],
    beam: NDArray[Any],
    acf: NDArray[Any],
    settings: Settings,
    residual: NDArray[Any],
    group: NDArray[Any],
    n_groups: int,
    blocks: NDArray[Any],
    sources: NDArray[Any],
) -> None:
    """Fill in the errors of the components (n, 6, 6) and of the sums over sources (g, 7)."""
    radii = np.array([0.0, settings.point_radius, settings.free_radius])
    least = np.array([0.0, settings.point_least, settings.free_least])
    ratios = np.empty(n)
    for k in range(n):
        ratios[k] = area_ratio(theta[k], beam)
        g = group[k]
        sources[g, 0] += theta[k, 0] * ratios[k]
        sources[g, 1] += theta[k, 0] * ratios[k] * theta[k, 1]
        sources[g, 2] += theta[k, 0] * ratios[k] * theta[k, 2]
    for g in range(n_groups):
        sources[g, 1] /= sources[g, 0]
        sources[g, 2] /= sources[g, 0]
    joint = n <= settings.max_joint
    size = n if joint else 1
    for first in range(0, n, size):
        p = count_parameters(kinds[first : first + size], size)
        step = np.empty(p)
        part = theta[first : first + size]
        good, matrix = False, np.empty((0, 0))
        for attempt in range(APERTURES if size == 1 else 1):
            wider = APERTURE_GROWTH**attempt
            pixels = select_pixels(
                part, kinds[first : first + size], size, valid, wider * radii, wider * least
            )
            good, matrix = estimate_covariance(
                part, kinds[first : first + size], size, weight, pixels, acf, residual, step
            )
            if good:
                break
        if not good:
            blocks[first : first + size] = np.nan
            for k in range(first, first + size):
                sources[group[k], 3:] = np.nan
            continue
        # Gradients of total, x and y of each source with respect to all parameters of the block.
        slopes = np.zeros((n_groups, 3, p))
        for k in range(first, first + size):
            p0 = spread_covariance(matrix, kinds[first : first + size], size, k - first, blocks[k])
            g = group[k]
            det = theta[k, 3] * theta[k, 5] - theta[k, 4] ** 2
            total = theta[k, 0] * ratios[k]
            slopes[g, 0, p0] = ratios[k]
            if kinds[k] == FREE:
                slopes[g, 0, p0 + 3] = -0.5 * total * theta[k, 5] / det
                slopes[g, 0, p0 + 4] = total * theta[k, 4] / det
                slopes[g, 0, p0 + 5] = -0.5 * total * theta[k, 3] / det
            width = 6 if kinds[k] == FREE else 3
            for axis in (1, 2):
                arm = (theta[k, axis] - sources[g, axis]) / sources[g, 0]
                for j in range(width):
                    slopes[g, axis, p0 + j] = slopes[g, 0, p0 + j] * arm
                slopes[g, axis, p0 + axis] += total / sources[g, 0]
        for g in range(n_groups):
            at = 3
            for one, two in ((0, 0), (1, 1), (1, 2), (2, 2)):
                value = 0.0
                for i in range(p):
                    if slopes[g, one, i] != 0.0:
                        for j in range(p):
                            value += slopes[g, one, i] * matrix[i, j] * slopes[g, two, j]
                sources[g, at] += value
                at += 1


@njit(cache=True, nogil=True)
def _fill_moments(
    row: NDArray[Any], beam: NDArray[Any], variance: float, block: NDArray[Any], source: NDArray[Any]
) -> None:
    """Fill in the errors of a component made of moments, from the variance of the sum of its pixels.

    ``block`` (6, 6) and ``source`` (7,) are as in `_fill_covariances`.
    """
    det = row[3] * row[5] - row[4] ** 2
    area = 2.0 * np.pi / sqrt(det)
    block[0, 0] = variance / area**2
    # The centroid of noise over the extent of the component, relative to its sum.
    spread = variance / (row[0] * area) ** 2
    block[1, 1], block[1, 2], block[2, 2] = (
        spread * row[5] / det,
        -spread * row[4] / det,
        spread * row[3] / det,
    )
    block[2, 1] = block[1, 2]
    ratio = area_ratio(row, beam)
    source[0], source[1], source[2] = row[0] * ratio, row[1], row[2]
    source[3], source[4] = block[0, 0] * ratio**2, block[1, 1]
    source[5], source[6] = block[1, 2], block[2, 2]


@njit(cache=True, nogil=True)
def _grow(array: NDArray[Any], length: int) -> NDArray[Any]:
    """Copy into an array of at least ``length`` rows, doubling."""
    size = array.shape[0]
    while size < length:
        size *= 2
    larger = np.empty((size, array.shape[1]), array.dtype)
    larger[: array.shape[0]] = array
    return larger


@njit(cache=True, nogil=True)
def measure_islands(
    image: NDArray[Any],
    background: NDArray[Any],
    rms: NDArray[Any],
    labels: NDArray[Any],
    boxes: NDArray[Any],
    numbers: NDArray[Any],
    beams: NDArray[Any],
    acf: NDArray[Any],
    pad: int,
    origin: tuple[int, int],
    settings: Settings,
) -> tuple[
    NDArray[Any],
    NDArray[Any],
    NDArray[Any],
    NDArray[Any],
]:
    """Measure islands one after the other; see `measure` for the arguments.

    Returns
    -------
    reals : (n, 51) float64
        theta, covariance, shapes.
    integers : (n, 7) int64
        island, source, seed row, seed column, flags, kind, rendered.
    sources : (s, 7) float64
    sums : (i, 7) float64
    """
    ny, nx = image.shape
    count = sources_count = 0
    reals = np.empty((256, 51))
    integers = np.empty((256, 7), np.int64)
    sources = np.empty((256, 7))
    sums = np.empty((boxes.shape[0], 7))
    for i in range(boxes.shape[0]):
        y0, y1 = max(0, boxes[i, 0] - pad), min(ny, boxes[i, 1] + pad)
        x0, x1 = max(0, boxes[i, 2] - pad), min(nx, boxes[i, 3] + pad)
        shape = (y1 - y0, x1 - x0)
        data, weight, residual = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        valid, own = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        beam = beams[i]
        n_pixels = 0
        total = sx = sy = mean_rms = 0.0
        for y in range(y0, y1):
            for x in range(x0, x1):
                value = np.float64(image[y, x]) - np.float64(background[y, x])
                sigma = np.float64(rms[y, x])
                if not (np.isfinite(value) and sigma > 0.0):
                    continue
                data[y - y0, x - x0] = value
                weight[y - y0, x - x0] = 1.0 / sigma
                # Pixels of other islands count too: what they add is small, and which island they
                # belong to may be known only in a larger window.
                valid[y - y0, x - x0] = True
                if labels[y, x] == numbers[i]:
                    own[y - y0, x - x0] = True
                    n_pixels += 1
                    total += value
                    sx += value * (x - x0)
                    sy += value * (y - y0)
                    mean_rms += sigma
        n, theta, kinds, flags, shapes, seeds = fit_island(
            data, weight, valid, own, n_pixels, beam, acf, settings, residual
        )
        squares = 0.0
        for y in range(shape[0]):
            for x in range(shape[1]):
                if own[y, x]:
                    squares += residual[y, x] ** 2
        sums[i, 0] = total
        # Whole numbers are added first, so that no window changes the last bit of a position.
        left, top = x0 + origin[1], y0 + origin[0]
        sums[i, 1] = sx / total + left
        sums[i, 2] = sy / total + top
        sums[i, 3] = sum_variance(weight, own, acf)
        sums[i, 4] = mean_rms / n_pixels
        sums[i, 5] = sqrt(squares / n_pixels)
        sums[i, 6] = n
        # What is described by moments is the last row, and a source of its own.
        fitted = n - 1 if n > 0 and flags[n - 1] & MOMENTS else n
        group = np.empty(n, np.int64)
        group[:fitted] = group_components(theta, fitted, weight, settings.flood)
        n_groups = group[:fitted].max() + 1 if fitted > 0 else 0
        if fitted < n:
            group[fitted] = n_groups
            n_groups += 1
        blocks = np.zeros((n, 6, 6))
        if sources_count + n_groups > sources.shape[0]:
            sources = _grow(sources, sources_count + n_groups)
        if count + n > reals.shape[0]:
            reals = _grow(reals, count + n)
            integers = _grow(integers, count + n)
        part = sources[sources_count : sources_count + n_groups]
        part[:, :] = 0.0
        if fitted > 0:
            _fill_covariances(
                theta, kinds, fitted, weight, valid, beam, acf, settings, residual, group,
                group[:fitted].max() + 1, blocks, part,
            )  # fmt: skip
        if fitted < n:
            _fill_moments(theta[fitted], beam, sums[i, 3], blocks[fitted], part[n_groups - 1])
        near = float(pad) / 2.5
        box = (boxes[i, 0] - pad, boxes[i, 1] + pad, boxes[i, 2] - pad, boxes[i, 3] + pad)
        for k in range(n):
            flag = flags[k] | _flag_position(theta[k], image, y0, x0, box, near)
            if kinds[k] == POINT and not flag & MOMENTS:
                flag |= POINT_MODEL
            others = evaluate(theta, fitted, theta[k, 1], theta[k, 2]) - theta[k, 0]
            if k < fitted and others > 0.05 * theta[k, 0]:
                flag |= BLENDED
            reals[count, :6] = theta[k]
            reals[count, 6:42] = blocks[k].ravel()
            reals[count, 42:] = shapes[k]
            reals[count, 1] += left
            reals[count, 2] += top
            integers[count, 0] = i
            integers[count, 1] = sources_count + group[k]
            integers[count, 2] = seeds[k, 0] + top
            integers[count, 3] = seeds[k, 1] + left
            integers[count, 4] = flag
            integers[count, 5] = kinds[k]
            integers[count, 6] = 0 if flag & MOMENTS and flag & TOO_LARGE else 1
            count += 1
        part[:, 1] += left
        part[:, 2] += top
        sources_count += n_groups
    return reals[:count], integers[:count], sources[:sources_count], sums


def measure(
    image: NDArray[np.float32],
    background: NDArray[np.float32],
    rms: NDArray[np.float32],
    labels: NDArray[np.int32],
    boxes: NDArray[Any],
    numbers: NDArray[Any],
    beams: NDArray[np.float64],
    acf: NDArray[np.float64],
    pad: int,
    origin: tuple[int, int],
    settings: Settings,
) -> Measured:
    """Measure islands.

    Parameters
    ----------
    image, background, rms : (ny, nx) float32
        A window; NaN where there is no data.
    labels : (ny, nx) int32
        Island number of each pixel; zero outside islands.
    boxes : (i, 4) int
        ``y0, y1, x0, x1`` (half open) of the islands to measure.
    numbers : (i,) int
        Their labels.
    beams : (i, 3) float64
        Precision matrix ``(a, b, c)`` of the beam at each, in pixels^-2.
    acf : (2 k + 1, 2 k + 1) float64
        Noise autocorrelation.
    pad : int
        Pixels around an island that its measurement may look at: 2.5 times the beam's FWHM.
    origin : tuple of int
        Row and column in the field of the window's first pixel.
    settings : Settings

    Returns
    -------
    Measured
    """
    reals, integers, sources, sums = measure_islands(
        np.ascontiguousarray(image, np.float32),
        np.ascontiguousarray(background, np.float32),
        np.ascontiguousarray(rms, np.float32),
        np.ascontiguousarray(labels, np.int32),
        np.ascontiguousarray(boxes, np.int64),
        np.ascontiguousarray(numbers, np.int64),
        np.ascontiguousarray(beams, np.float64),
        np.ascontiguousarray(acf, np.float64),
        pad,
        origin,
        settings,
    )
    return Measured(
        theta=reals[:, :6],
        covariance=reals[:, 6:42].reshape(-1, 6, 6),
        shapes=reals[:, 42:],
        island=integers[:, 0],
        source=integers[:, 1],
        seeds=integers[:, 2:4],
        flags=integers[:, 4],
        rendered=integers[:, 6] != 0,
        source_moments=sources,
        island_sums=sums,
    )
