"""Draw the pictures of the documentation from the demo release: ``make pictures``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from survey_ml import Release
from survey_ml.report.panels.sky import draw_beam, draw_ellipses, show_image
from survey_ml.report.style import ORANGE, RC, RED

WIDE = 620
"""Pixels a side of the left picture."""
NEAR = 84
"""Pixels a side of the close-ups."""


def main(out: str, folder: str) -> None:
    """Draw one field with its sources, and its two largest ones close up."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    release = Release.open(out)
    sources, components = release.catalogue(), release.components()
    name = release.fields[0]
    view = release.field(name)
    field = view.info
    image = np.asarray(view.image)
    mine = sources[sources["field"] == name]
    parts = components[components["field"] == name]
    many = mine[(mine["n_components"] > 1) & (mine["peak_flux"] > 0)]
    close = many[np.argsort(many["major"])[::-1]]
    inner = np.minimum.reduce(
        [close["x"], close["y"], image.shape[1] - close["x"], image.shape[0] - close["y"]]
    )
    close = close[inner > NEAR][:2]

    with mpl.rc_context(RC):
        figure = Figure(figsize=(10.0, 6.2), layout="constrained")
        axes = figure.subplot_mosaic([["wide", "a"], ["wide", "b"]], width_ratios=[2, 1])
        y0, x0 = (image.shape[0] - WIDE) // 2, (image.shape[1] - WIDE) // 2
        show(axes["wide"], image, field, mine, (y0, y0 + WIDE, x0, x0 + WIDE), RED)
        axes["wide"].set_title(f"Sources in a part of field {name}")
        for axis, row in zip((axes["a"], axes["b"]), close, strict=False):
            y, x = int(row["y"]), int(row["x"])
            half = NEAR // 2
            show(axis, image, field, parts, (y - half, y + half, x - half, x + half), ORANGE)
            axis.set_title(str(row["name"]))
        Path(folder).mkdir(parents=True, exist_ok=True)
        figure.savefig(Path(folder) / "sources.png", dpi=110, metadata={"Software": None})


def show(axis, image, field, table, window, color) -> None:  # noqa: ANN001
    """Draw a window of an image and what was measured in it."""
    y0, y1, x0, x1 = window
    show_image(axis, image[y0:y1, x0:x1], field, window=window)
    inside = (table["x"] > x0) & (table["x"] < x1) & (table["y"] > y0) & (table["y"] < y1)
    rows = {name: np.asarray(table[name])[inside] for name in ("ra", "dec", "major", "minor", "pa")}
    draw_ellipses(axis, field, rows, color=color, grow=1.5)
    draw_beam(axis, field, (x0 - 0.5, x1 - 0.5, y0 - 0.5, y1 - 0.5))


if __name__ == "__main__":
    main(*sys.argv[1:])
