"""How compact each source is: total over peak flux, and the concentration of its light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from survey_ml.stage import Inputs, LazyArray, Options, Stage


class CompactnessOptions(Options):
    """The two circles that light is summed in."""

    inner_beams: PositiveFloat = 0.5
    """Radius of the inner circle in beams (geometric-mean FWHM)."""
    outer_beams: PositiveFloat = 1.0
    """Radius of the outer circle in beams."""


class Compactness(Stage):
    """Measures compactness source by source; see `measure_concentration`."""

    options_type: ClassVar[type[Options]] = CompactnessOptions
    options: CompactnessOptions

    def run(self, inputs: Inputs) -> Mapping[str, Any]:
        """Return one row a source of the tile."""
        assert inputs.field is not None
        sources = inputs.tables["sources"]
        beam = inputs.field.beam
        fwhm = float(np.sqrt(beam.major * beam.minor)) / inputs.field.pixel_scale
        radii = self.options.inner_beams * fwhm, self.options.outer_beams * fwhm
        image, background = inputs.arrays["image"], inputs.arrays.get("background")
        concentration = np.full(len(sources["source_id"]), np.nan)
        for i, (x, y) in enumerate(zip(sources["x"], sources["y"], strict=True)):
            concentration[i] = measure_concentration(image, background, float(x), float(y), *radii)
        return {
            "compactness": {
                "source_id": np.asarray(sources["source_id"], dtype=np.int64),
                "total_to_peak": np.asarray(sources["total_flux"] / sources["peak_flux"], dtype=np.float64),
                "concentration": concentration,
            }
        }


def measure_concentration(
    image: LazyArray | NDArray[np.floating],
    background: LazyArray | NDArray[np.floating] | None,
    x: float,
    y: float,
    inner: float,
    outer: float,
) -> float:
    """Return the light within ``inner`` over that within ``outer`` pixels of a position.

    Parameters
    ----------
    image, background : array (y, x)
        Read only around the position; no background means zero.
    x, y : float
        Zero-based position in pixels.
    inner, outer : float
        Radii in pixels.

    Returns
    -------
    float
        0.533 for a point source with radii of 0.5 and 1 FWHM: a Gaussian beam has
        1 - exp(-4 ln 2 r^2) of its light within r FWHM. NaN where the outer circle leaves the
        image, touches a blank pixel or holds no light.
    """
    reach = int(np.ceil(outer)) + 1
    row, column = round(y), round(x)
    rows, columns = slice(row - reach, row + reach + 1), slice(column - reach, column + reach + 1)
    ny, nx = image.shape
    if rows.start < 0 or columns.start < 0 or rows.stop > ny or columns.stop > nx:
        return float("nan")
    light = np.asarray(image[rows, columns], dtype=np.float64)
    if background is not None:
        light = light - background[rows, columns]
    distance = np.hypot(*np.ogrid[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x])
    # A pixel on the edge of a circle counts with the part of it inside, to first order.
    total = float(np.sum(light * np.clip(outer - distance + 0.5, 0.0, 1.0)))
    core = float(np.sum(light * np.clip(inner - distance + 0.5, 0.0, 1.0)))
    return core / total if total > 0 else float("nan")
