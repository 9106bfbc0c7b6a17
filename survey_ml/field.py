"""A field (one survey image), its tiles, and where things lie on its pixel grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log, pi
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from astropy.wcs import WCS

    from survey_ml.zenithal import Zenithal


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels, half open: rows ``y0:y1`` and columns ``x0:x1``."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this window into the field's array."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def grow(self, px: int, shape: tuple[int, int]) -> Window:
        """Return this window with ``px`` more on each side, clipped to a field of ``shape``."""
        return Window(
            max(0, self.y0 - px),
            min(shape[0], self.y1 + px),
            max(0, self.x0 - px),
            min(shape[1], self.x1 + px),
        )

    def inside(self, outer: Window) -> tuple[slice, slice]:
        """Index of this window into an array that holds ``outer``."""
        return (
            slice(self.y0 - outer.y0, self.y1 - outer.y0),
            slice(self.x0 - outer.x0, self.x1 - outer.x0),
        )


@dataclass(frozen=True)
class Tile:
    """A tile of a field: the core it owns, and the window it reads (core plus halo, clipped).

    ``name`` is ``<row>_<column>`` of the core on the tile grid, such as ``0_3``.
    """

    name: str
    core: Window
    window: Window


@dataclass(frozen=True)
class Beam:
    """The synthesised beam: full widths at half maximum in arcsec, position angle in deg E of N."""

    major: float
    minor: float
    pa: float

    @property
    def solid_angle(self) -> float:
        """Gaussian beam area in arcsec^2."""
        return pi / (4.0 * log(2.0)) * self.major * self.minor


@dataclass(frozen=True)
class Field:
    """All that is known of a field beside its pixels; cheap to pickle.

    Parameters
    ----------
    name : str
        Unique in the release; from the file name unless the configuration names it.
    shape : tuple of int
        ``(ny, nx)``.
    header : str
        Celestial WCS as FITS header cards (80 characters each, no line breaks), 2 axes.
    beam : Beam
        In sky units.
    frequency : float
        Hz; NaN when unknown.
    unit : str
        Unit of the stored image, ``Jy/beam``.
    """

    name: str
    shape: tuple[int, int]
    header: str
    beam: Beam
    frequency: float
    unit: str = "Jy/beam"

    @cached_property
    def wcs(self) -> WCS:
        """The celestial WCS (axes x, y; zero-based pixels in numpy order on request)."""
        from astropy.wcs import WCS

        return WCS(self.header.encode("ascii"), naxis=2)

    @cached_property
    def sky(self) -> Zenithal | WCS:
        """Where pixels lie on the sky: in closed form where there is one, else as `wcs`."""
        from survey_ml.zenithal import parse_cards, read_zenithal

        return read_zenithal(parse_cards(self.header)) or self.wcs

    @cached_property
    def pixel_scale(self) -> float:
        """Geometric-mean pixel side in arcsec at the reference pixel."""
        from survey_ml.zenithal import Zenithal

        if isinstance(self.sky, Zenithal):
            return self.sky.pixel_area**0.5 * 3600.0
        from astropy.wcs.utils import proj_plane_pixel_area

        return float(proj_plane_pixel_area(self.wcs) ** 0.5 * 3600.0)

    @property
    def beam_area(self) -> float:
        """Beam area in pixels."""
        return self.beam.solid_angle / self.pixel_scale**2


def split_tiles(shape: tuple[int, int], core: int, halo: int) -> list[Tile]:
    """Cut a field into tiles whose cores lie on a grid anchored at pixel (0, 0).

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)`` of the field.
    core, halo : int
        Side of a core and width of the halo in pixels.

    Returns
    -------
    list of Tile
        Row by row. Cores cover the field once; the last of a row or column may be smaller.
    """
    ny, nx = shape
    tiles = []
    for row, y0 in enumerate(range(0, ny, core)):
        for column, x0 in enumerate(range(0, nx, core)):
            window = Window(y0, min(y0 + core, ny), x0, min(x0 + core, nx))
            tiles.append(Tile(f"{row}_{column}", window, window.grow(halo, shape)))
    return tiles
