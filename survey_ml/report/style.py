"""How figures look: one set of sizes and colours for all panels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any colour vision tell apart.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
# The last is called red in their palette, but reads as orange: captions say so.
SKY, PURPLE, GREY, INK = "#56B4E9", "#CC79A7", "#6b7280", "#1f2933"

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.edgecolor": "#52606d",
    "axes.labelcolor": INK,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
WIDTH = 10.0
"""Inches across the page: 960 px on screen."""


def make_figure(
    rows: int = 1, columns: int = 1, *, width: float = WIDTH, height: float = 3.6
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a grid of axes, row by row, laid out without overlaps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.ravel())


def make_grid(
    n: int, *, most: int = 3, aspect: float = 1.0, title: float = 0.35
) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``n`` image axes in up to ``most`` columns; fewer are drawn larger.

    Parameters
    ----------
    n : int
        Images.
    most : int
        Columns at most.
    aspect : float
        Height over width of an image.
    title : float
        Inches for titles and labels of each row.
    """
    # Four look better as two rows of two than as three and one.
    columns = 2 if n == 4 and most == 3 else min(n, most)
    rows = -(-n // columns)
    width = {1: 6.4, 2: 9.0}.get(columns, WIDTH)
    height = rows * (width / columns * min(1.6, max(0.4, aspect)) + title)
    figure, axes = make_figure(rows, columns, width=width, height=height)
    for axis in axes[n:]:
        axis.remove()
    return figure, axes[:n]


def stretch(image: NDArray[np.floating[Any]], softness: float = 4.0) -> NDArray[np.float32]:
    """Map an image to 0..1 with an asinh, so that noise and bright sources both show.

    Parameters
    ----------
    image : ndarray
        Shape (ny, nx); NaN stays NaN.
    softness : float
        Noise widths at which the scale turns from linear to logarithmic.

    Returns
    -------
    ndarray
        Shape (ny, nx). 0 is two noise widths below the median, 1 the 99.95 % level or twenty noise widths.
    """
    valid = image[np.isfinite(image)]
    if not len(valid):
        return np.full(image.shape, np.nan, np.float32)
    middle = float(np.median(valid))
    noise = float(1.4826 * np.median(np.abs(valid - middle))) or float(np.std(valid)) or 1.0
    top = max(float(np.percentile(valid, 99.95)), middle + 20.0 * noise)
    low, high = middle - 2.0 * noise, top

    def scale(value: Any) -> Any:
        return np.arcsinh((value - low) / (softness * noise))

    return np.asarray(np.clip(scale(image) / scale(high), 0.0, 1.0), np.float32)


def label_plainly(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers, and between the decades where it spans few."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low) if low > 0 else np.inf
    between = (2, 3, 5) if decades < 1.1 else (2, 5) if decades < 2.2 else ()

    def label(value: float, _: Any = None) -> str:
        return f"{value:g}"

    def label_between(value: float, _: Any = None) -> str:
        first = round(value / 10 ** np.floor(np.log10(value) + 1e-9), 3)
        return label(value) if first in between else ""

    axis.set_major_formatter(FuncFormatter(label))
    if decades < 0.7:
        # Too short for powers of ten and their multiples. These steps all meet 1, where ratios are read.
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.set_minor_locator(NullLocator())
        return
    axis.set_minor_formatter(FuncFormatter(label_between))


def format_value(value: float, digits: int = 3) -> str:
    """Return a number for a table, with thin thousands separators; a dash where it is not finite."""
    if not np.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", " ")
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}".replace(",", " ")


def format_seconds(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 1:
        return f"{seconds:.1g} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
