"""Background and rms maps on a mesh that is fixed to the field, so that tiles agree to the last bit.

The field is cut into square cells on a grid anchored at its pixel (0, 0). Each cell is first
measured by itself; a cell's *reference* is the quiet one (lower quartile of the rms) in the box of
cells around it. Pixels brighter than the reference by a threshold, and all within a fixed
distance of them, are left out as sources. The value at the centre of a cell then comes from what
remains in the box of cells around it, clipped to convergence, and pixels are interpolated between
four centres. Every step looks a bounded distance far: `support_radius`.

Boxes overlap but cells do not, so each cell is sorted once and keeps running sums of its sorted
samples: clipping a box is then a few binary searches a cell instead of a pass over its pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from survey_ml.stages.extraction.interpolation import interpolate_nodes
from survey_ml.stages.extraction.mesh import (
    find_references,
    gather_samples,
    mask_sources,
    measure_boxes,
    sum_sorted,
)

SOURCE_SNR = 4.0
"""Pixels this many rms above the background are sources; lower, and peaks of noise go as well."""

CLIP_SNR = (3.0, 2.0)
"""Samples farther below and above the mean than this are clipped; mean and rms are corrected for
what noise loses. Less is kept above, where faint sources hide: on a deep simulated sky they then
raise the rms by 0.7 instead of 1.0 %, and the samples lost add 0.2 % to its scatter of 2 %."""

ESCALATION = 1
"""Cells by which a box grows on each side where sources or blank pixels leave too little of it."""


LEAST_SIDE = 6
"""Samples along the side of a cell, at least: fewer tell no quartiles."""


class Mesh(NamedTuple):
    """The geometry of the mesh, in pixels; see `choose_mesh`.

    Parameters
    ----------
    step : int
        Side of a cell and distance of two nodes; a multiple of `stride`.
    box : int
        Side of the box that a node is measured in: an odd number of cells.
    stride : int
        Distance of the pixels that are used for statistics, in rows and columns.
    grow : int
        Radius around bright pixels that is left out; at most `step`.
    """

    step: int
    box: int
    stride: int
    grow: int


def choose_mesh(fwhm: float, shape: tuple[int, int]) -> Mesh:
    """Choose a mesh for a beam and a field.

    A box of five cells, each of six beams, holds some 1,600 independent samples: the scatter of the
    rms is 2 %. Larger cells in smaller numbers do as well but look farther. Small fields get at
    least five cells a side, but no cell below three beams.

    Parameters
    ----------
    fwhm : float
        Geometric mean of the beam's axes in pixels.
    shape : tuple of int
        Of the whole field, never of a tile.

    Returns
    -------
    Mesh
    """
    stride = max(1, round(fwhm / 2.0))
    cell = min(6.0 * fwhm, max(min(shape) / 5.0, 3.0 * fwhm))
    step = max(LEAST_SIDE, round(cell / stride)) * stride
    return Mesh(step, 5 * step, stride, min(step, max(2, round(fwhm))))


def support_radius(step: int, box: int) -> int:
    """Return how far around a pixel its background and rms look, in pixels.

    A pixel lies within one step of its four nodes; a node's box, with `ESCALATION`, reaches
    half a box and more; a bright pixel beside it counts by the reference of its cell, which looks as
    far as a box again.
    """
    return step + box // 2 + 1 + (ESCALATION + 1 + box // step // 2) * step


def measure_background(
    image: NDArray[np.float32],
    *,
    origin: tuple[int, int],
    step: int,
    box: int,
    stride: int = 1,
    grow: int = 4,
    mask: NDArray[np.bool_] | None = None,
    part: tuple[slice, slice] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Measure background and rms at every pixel of a window of a field.

    Parameters
    ----------
    image : (ny, nx) array
        The window; NaN where there is no data.
    origin : tuple of int
        Row and column in the field of ``image[0, 0]``.
    step, box, stride, grow : int
        See `Mesh`.
    mask : (ny, nx) array of bool, optional
        True where pixels are to be left out of the statistics.
    part : tuple of slice, optional
        Rows and columns of the window that are wanted, with start and stop; all by default.

    Returns
    -------
    background, rms : (ny, nx) arrays of float32
        Of the part. In the image's unit. NaN where the image is not finite, and where nothing within reach
        tells the noise. Equal, bit by bit, in all windows that hold the pixel with
        `support_radius` around it, or as much of that as the field has.

    Raises
    ------
    ValueError
        If the geometry is not that of a `Mesh`.
    """
    reach = box // step // 2
    if step % stride or step < LEAST_SIDE * stride or box != (2 * reach + 1) * step or not 0 <= grow <= step:
        raise ValueError(
            f"step {step} must be a multiple of stride {stride}, at least {LEAST_SIDE} of them and at "
            f"least grow {grow}; box {box} must be an odd number of steps"
        )
    image = np.ascontiguousarray(image, dtype=np.float32)
    if image.size == 0:
        return image.copy(), image.copy()
    data = image if mask is None else np.where(mask, np.float32(np.nan), image)
    inner = image if part is None else np.ascontiguousarray(image[part])
    corner = origin if part is None else (origin[0] + part[0].start, origin[1] + part[1].start)
    samples = gather_samples(data, origin[0], origin[1], step, stride)
    cells = sum_sorted(np.sort(samples, axis=-1))
    single = measure_boxes(cells, cells, None, 0, 0, CLIP_SNR)
    reference = find_references(single, reach)
    mask_sources(data, samples, reference, origin[0], origin[1], step, stride, grow, SOURCE_SNR)
    quiet = sum_sorted(np.sort(samples, axis=-1))
    first = origin[0] // step, origin[1] // step
    wanted = tuple(
        min(max(at, 0), most)
        for start, n, cell, most in zip(corner, inner.shape, first, quiet.counts.shape, strict=True)
        for at in _bound_nodes(start, n, step, cell)
    )
    nodes = measure_boxes(quiet, cells, reference, reach, ESCALATION, CLIP_SNR, wanted)
    background = np.empty_like(inner)
    rms = np.empty_like(inner)
    interpolate_nodes(inner, nodes, corner[0], corner[1], first, step, background, rms)
    return background, rms


def _bound_nodes(start: int, n: int, step: int, first: int) -> tuple[int, int]:
    """Return which nodes of an axis, half open, ``n`` pixels from ``start`` on lie between."""
    low, high = ((2 * at - (step - 1)) // (2 * step) - first for at in (start, start + n - 1))
    return low, high + 2
