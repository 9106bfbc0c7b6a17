"""Images of fields with what was found drawn on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.report.style import RED, stretch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from survey_ml.field import Field

MOST_ELLIPSES = 4000
"""Drawn on one image at most, the brightest first."""


def show_image(
    axis: Axes, image: NDArray[Any], field: Field, *, window: tuple[int, int, int, int] | None = None
) -> None:
    """Draw an image in grey with offsets from its centre in arcmin (arcsec when small) on the axes.

    Parameters
    ----------
    axis : Axes
        Where to.
    image : ndarray
        Shape (ny, nx), possibly thinned.
    field : Field
        Whose image it is.
    window : tuple of int, optional
        ``(y0, y1, x0, x1)`` that the image covers; the whole field when not given.
    """
    y0, y1, x0, x1 = window or (0, field.shape[0], 0, field.shape[1])
    extent = (x0 - 0.5, x1 - 0.5, y0 - 0.5, y1 - 0.5)
    shown = np.ma.masked_invalid(stretch(image))
    axis.imshow(shown, origin="lower", extent=extent, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axis.set_facecolor("#dbe7f3")
    set_offsets(axis, field, extent)


def set_offsets(axis: Axes, field: Field, extent: tuple[float, float, float, float]) -> None:
    """Label pixel axes with offsets on the sky from the middle of ``extent``."""
    from matplotlib.ticker import FixedLocator

    side = max(extent[1] - extent[0], extent[3] - extent[2]) * field.pixel_scale
    unit, factor = ("arcsec", 1.0) if side < 180 else ("arcmin", 60.0) if side < 4 * 3600 else ("deg", 3600.0)
    step = _choose_step(side / factor / 4)
    sign = -1.0 if field.wcs.pixel_scale_matrix[0, 0] < 0 else 1.0
    for which, low, high, direction in (
        (axis.xaxis, extent[0], extent[1], sign),
        (axis.yaxis, extent[2], extent[3], 1.0),
    ):
        middle = (low + high) / 2
        half = (high - low) / 2 * field.pixel_scale / factor
        offsets = np.arange(-np.floor(half / step), np.floor(half / step) + 1) * step
        which.set_major_locator(FixedLocator(list(middle + direction * offsets * factor / field.pixel_scale)))
        which.set_ticklabels([f"{value + 0.0:g}".replace("-", "−") for value in offsets])
    # Offsets grow to the east whichever way the pixels run.
    axis.set_xlabel(f"East offset ({unit})")
    axis.set_ylabel(f"North offset ({unit})")
    axis.grid(visible=False)
    axis.set_xlim(extent[0], extent[1])
    axis.set_ylim(extent[2], extent[3])


def _choose_step(rough: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above ``rough``."""
    power = 10.0 ** np.floor(np.log10(rough))
    return float(next(m * power for m in (5, 2, 1) if m * power <= rough * (1 + 1e-9)))


def shorten(name: str, most: int = 30) -> str:
    """Return a name that fits above an image: its middle left out when it is long."""
    if len(name) <= most:
        return name
    tail = most // 3
    return f"{name[: most - tail - 1]}…{name[-tail:]}"


def draw_ellipses(
    axis: Axes,
    field: Field,
    rows: dict[str, NDArray[Any]],
    *,
    color: str = RED,
    grow: float = 1.0,
    least_px: float = 0.0,
    width: float = 0.8,
) -> None:
    """Draw fitted shapes, or circles where rows have none.

    Parameters
    ----------
    axis : Axes
        With pixel coordinates.
    field : Field
        For its WCS.
    rows : dict
        ``ra``, ``dec`` and perhaps ``major``, ``minor``, ``pa``; shape (n,) each.
    color : str
        Of the lines.
    grow : float
        Factor on the full widths at half maximum.
    least_px : float
        Least diameter, so that shapes can be seen on a thinned image.
    width : float
        Of the lines in points.
    """
    from matplotlib.collections import EllipseCollection

    ra, dec = rows["ra"], rows["dec"]
    good = np.isfinite(ra) & np.isfinite(dec)
    if not good.any():
        return
    ra, dec = ra[good], dec[good]
    x, y = field.wcs.all_world2pix(ra, dec, 0, ra_dec_order=True)
    size = field.beam.major / field.pixel_scale
    if "major" in rows:
        major, minor = (rows[name][good] / field.pixel_scale for name in ("major", "minor"))
        pa = rows["pa"][good]
    else:
        major = minor = np.full(len(x), size)
        pa = np.zeros(len(x))
    major, minor = (np.nan_to_num(axis_, nan=size) for axis_ in (major, minor))
    above = np.minimum(dec + 1.0 / 3600, 90.0)
    north_x, north_y = field.wcs.all_world2pix(ra, above, 0, ra_dec_order=True)
    flipped = -1.0 if np.linalg.det(field.wcs.pixel_scale_matrix) > 0 else 1.0
    north = np.rad2deg(np.arctan2(north_y - y, north_x - x))
    angle = north + flipped * np.nan_to_num(pa)
    axis.add_collection(
        EllipseCollection(
            np.maximum(major * grow, least_px),
            np.maximum(minor * grow, least_px),
            angle,
            units="xy",
            offsets=np.stack([x, y], axis=1),
            transOffset=axis.transData,
            facecolors="none",
            edgecolors=color,
            linewidths=width,
        )
    )


def draw_beam(axis: Axes, field: Field, extent: tuple[float, float, float, float]) -> None:
    """Draw the beam in the lower left corner."""
    from matplotlib.patches import Ellipse

    major, minor = (side / field.pixel_scale for side in (field.beam.major, field.beam.minor))
    width = extent[1] - extent[0]
    middle = (extent[0] + 0.06 * width + major / 2, extent[2] + 0.06 * width + major / 2)
    flipped = -1.0 if np.linalg.det(field.wcs.pixel_scale_matrix) > 0 else 1.0
    angle = 90.0 + flipped * field.beam.pa
    axis.add_patch(Ellipse(middle, major, minor, angle=angle, facecolor="#52606d", edgecolor="white", lw=0.8))
