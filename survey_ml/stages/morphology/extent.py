"""Which islands around a position make up one source, and where the middle of it is.

Extraction joins components of one island. The lobes of a double often lie in islands of their own, and
the brightest pixel of a source is seldom its middle, while images that models are trained on show a whole
galaxy about its host.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

SEED_SIGMA = 5.0
"""Multiple of the noise that a pixel of an island must reach; other blobs above the clip are noise peaks."""

REACH_BEAMS = 2.0
"""FWHM around its position within which a source has its island."""

LINK_ARCSEC = 100.0
LINK_FLUX = 0.1
"""Islands of a total of so many Jy belong together within that distance, fainter ones within less: it goes
with the root of the flux (Magliocchetti et al. 1998, MNRAS 300, 257, for FIRST)."""

MOST_ARCSEC = 120.0
"""Nothing farther apart is linked, however bright: a cutout could not show it."""

LINK_RATIO = 4.0
"""Islands whose fluxes differ by a larger factor are not the lobes of one source (ibid.)."""

FREQUENCY = 1.4e9
SPECTRAL_INDEX = -0.7
"""The fluxes above are of this frequency; this brings others there."""


@dataclass(frozen=True)
class Extent:
    """The islands of a cutout, told apart.

    Attributes
    ----------
    own : (ny, nx) array of bool
        Pixels above the clip that belong to the source; none where there is no island at its place.
    islands : (ny, nx) array of bool
        Those of all islands, the source's included; what is left is noise peaks.
    n_islands : int
        Islands of the source.
    middle : tuple of int
        Row and column of the middle of the box around the source; its place without an island.
    """

    own: NDArray[np.bool_]
    islands: NDArray[np.bool_]
    n_islands: int
    middle: tuple[int, int]


def find_extent(
    pixels: NDArray[np.float32],
    noise: float,
    clip_sigma: float,
    *,
    pixel_arcsec: float,
    beam: tuple[float, float],
    frequency: float = FREQUENCY,
) -> Extent:
    """Find the islands that belong to the source in the middle of a cutout.

    That is the island at the middle and all that are linked to it, directly or by others.

    Parameters
    ----------
    pixels : (ny, nx) array of float32
        Jy/beam; NaN where there is no data. The source is on pixel ``(ny // 2, nx // 2)``.
    noise : float
        In the same unit.
    clip_sigma : float
        Multiple of the noise from which pixels count.
    pixel_arcsec : float
        Side of a pixel.
    beam : tuple of float
        FWHM of both axes, arcsec.
    frequency : float
        Hz; NaN, where it is not known, counts as `FREQUENCY`.

    Returns
    -------
    Extent
    """
    place = pixels.shape[0] // 2, pixels.shape[1] // 2
    values = np.nan_to_num(pixels, nan=0.0, posinf=0.0, neginf=0.0)
    labels, n = ndimage.label((values > 0.0) & (values >= clip_sigma * noise), np.ones((3, 3)))
    peak = np.asarray(ndimage.maximum(values, labels, np.arange(1, n + 1))) if n else np.empty(0)
    bright = peak >= SEED_SIGMA * noise
    start = int(labels[place]) or _find_nearest(labels, bright, place, REACH_BEAMS * beam[0] / pixel_arcsec)
    if start:
        # A source that extraction found is an island, whatever the noise here says.
        bright[start - 1] = True
    listed = np.flatnonzero(bright) + 1
    islands = np.isin(labels, listed)
    if not start:
        return Extent(np.zeros(labels.shape, bool), islands, 0, place)
    centre = np.asarray(ndimage.center_of_mass(values, labels, listed)) * pixel_arcsec
    area = np.pi / (4.0 * np.log(2.0)) * beam[0] * beam[1] / pixel_arcsec**2
    flux = np.asarray(ndimage.sum_labels(values, labels, listed)) / area
    if frequency > 0.0:
        flux *= (FREQUENCY / frequency) ** SPECTRAL_INDEX
    _, group = connected_components(link_islands(centre, flux), directed=False)
    members = listed[group == group[listed == start]]
    own = np.isin(labels, members)
    rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
    middle = (int(rows[0]) + int(rows[-1]) + 1) // 2, (int(columns[0]) + int(columns[-1]) + 1) // 2
    return Extent(own, islands, len(members), middle)


def link_islands(centre: NDArray[np.float64], flux: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which islands are near and alike enough to be parts of one source.

    Parameters
    ----------
    centre : (n, 2) array
        arcsec.
    flux : (n,) array
        Jy at `FREQUENCY`, positive.

    Returns
    -------
    (n, n) array of bool
    """
    apart = np.hypot(*(centre[:, None, :] - centre[None, :, :]).transpose(2, 0, 1))
    both = flux[:, None] + flux[None, :]
    ratio = np.maximum(flux[:, None], flux[None, :]) / np.minimum(flux[:, None], flux[None, :])
    reach = np.minimum(LINK_ARCSEC * np.sqrt(both / LINK_FLUX), MOST_ARCSEC)
    return np.asarray((apart <= reach) & (ratio <= LINK_RATIO))


def _find_nearest(
    labels: NDArray[np.int32], bright: NDArray[np.bool_], place: tuple[int, int], reach: float
) -> int:
    """Return the number of the bright blob nearest to a place; 0 where none is within reach."""
    y, x = np.nonzero(np.isin(labels, np.flatnonzero(bright) + 1))
    if not len(y):
        return 0
    away = np.hypot(y - place[0], x - place[1])
    nearest = int(away.argmin())
    return int(labels[y[nearest], x[nearest]]) if away[nearest] <= reach else 0
