"""What a model is shown of a source: a part of a wide cutout, clipped, and what is to be known of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from survey_ml.field import Field
from survey_ml.learning.preparation import COARSE_BEAM, COARSE_PIXEL
from survey_ml.learning.preprocessing import Preprocessing, clip_image, fit_image, measure_noise
from survey_ml.stage import Table
from survey_ml.stages.morphology import flags
from survey_ml.stages.morphology.cutouts import Cutout
from survey_ml.stages.morphology.extent import Extent
from survey_ml.stages.morphology.sampling import Sampling, Target

LEAST_PIXELS = 500
"""Pixels with data that the noise is measured from; with fewer the source's own local rms is taken."""


def measure_level(wide: Cutout, side: int, local_rms: float) -> float:
    """Return the noise around a source; the local rms where it cannot be measured."""
    enough = np.isfinite(wide.pixels[find_window(side, (0, 0))]).sum() >= LEAST_PIXELS
    noise = measure_noise(wide.around) if enough else 0.0
    # Of few pixels the noise is not known; that of an image without noise is zero.
    return local_rms if not noise > 0.0 and local_rms > 0.0 else noise


def find_shift(extent: Extent, side: int) -> tuple[int, int]:
    """Return rows and columns from a source's position to its middle, which stays in its cutout."""
    half = side // 2
    row, column = (min(max(place - side, -half), half) for place in extent.middle)
    return row, column


def find_window(side: int, shift: tuple[int, int]) -> tuple[slice, slice]:
    """Return the part of a cutout of twice the side whose middle is shifted."""
    row, column = (slice(side - side // 2 + by, side - side // 2 + by + side) for by in shift)
    return row, column


def prepare_view(
    wide: Cutout,
    extent: Extent,
    window: tuple[slice, slice],
    noise: float,
    wanted: Preprocessing,
    shown: str,
) -> tuple[NDArray[np.float32], int]:
    """Return what the model is shown of a cutout, and the flags of its pixels."""
    pixels, inside, own = wide.pixels[window], wide.inside[window], extent.own[window]
    has_data = np.isfinite(pixels)
    flag = 0 if inside.all() else flags.EDGE
    if not has_data.any():
        return np.zeros((wanted.side, wanted.side), np.float32), flag | flags.NO_DATA
    if not has_data[inside].all():
        flag |= flags.BLANK
    if shown == "source" and extent.n_islands:
        pixels = np.where(own, pixels, np.float32(0.0))
    elif shown != "all":
        pixels = np.where(extent.islands[window], pixels, np.float32(0.0))
    clipped = clip_image(pixels, noise, wanted.clip_sigma, subtract=wanted.subtract_clip)
    made, _ = fit_image(clipped, wanted.side)
    if not made.any():
        return made, flag | flags.EMPTY
    peak = float(np.nanmax(pixels, where=own, initial=0.0))
    if peak < flags.FAINT_SIGMA * noise:
        flag |= flags.FAINT
    if extent.n_islands and float(np.nanmax(pixels, initial=0.0)) > peak:
        flag |= flags.OUTSHONE
    return made, flag


def flag_sources(field: Field, sources: Table, sampling: Sampling, target: Target) -> NDArray[np.int32]:
    """Return the flags that follow from the catalogue and the field, without pixels."""
    found = np.zeros(len(sources["source_id"]), np.int32)
    point = ~np.asarray(sources["resolved"], bool) & (np.asarray(sources["n_components"]) == 1)
    found[point] |= flags.UNRESOLVED
    beam = np.sqrt(field.beam.major * field.beam.minor)
    coarse = sampling.scale > COARSE_PIXEL * target.pixel_arcsec
    found[coarse | (beam > COARSE_BEAM * target.beam_arcsec)] |= flags.COARSE
    return found


def place_islands(sources: Table, islands: Table, sampling: Sampling) -> NDArray[np.float64]:
    """Return the box of each source's island on its cutout.

    Returns
    -------
    (n, 4) array
        First and last row, first and last column, in pixels of the cutout from the source's; NaN
        where the island is not listed.
    """
    n = len(sources["source_id"])
    number = np.asarray(islands["island_id"])
    if not n or not len(number):
        return np.full((n, 4), np.nan)
    order = np.argsort(number, kind="stable")
    place = np.minimum(np.searchsorted(number[order], sources["island_id"]), len(number) - 1)
    row = order[place]
    inverse = np.linalg.inv(sampling.step)
    corners = []
    for px in ("x_min", "x_max"):
        for py in ("y_min", "y_max"):
            offset = np.stack([islands[px][row] - sampling.x, islands[py][row] - sampling.y], axis=1)
            corners.append(np.einsum("nij,nj->ni", inverse, offset))
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    box = np.stack([low[:, 1], high[:, 1], low[:, 0], high[:, 0]], axis=1)
    return np.where((number[row] == sources["island_id"])[:, None], box, np.nan)


def exceeds(box: NDArray[np.float64], shift: tuple[int, int], side: int) -> bool:
    """Tell whether the box of an island reaches beyond a cutout; NaN never does."""
    low, high = -(side // 2) - 0.5, side - side // 2 - 0.5
    rows, columns = box[:2] - shift[0], box[2:] - shift[1]
    return bool(min(rows[0], columns[0]) < low or max(rows[1], columns[1]) > high)
