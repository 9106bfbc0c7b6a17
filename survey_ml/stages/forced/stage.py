"""The forced stage: fluxes at the positions of a given catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Setting
from pydantic import field_validator

from survey_ml.data.catalogues import read_catalogue
from survey_ml.errors import InputError
from survey_ml.field import Field, Window
from survey_ml.stage import Inputs, Options, Stage
from survey_ml.stages.extraction.options import measure_fwhm
from survey_ml.stages.extraction.projection import beam_precision, locate, measure_jacobians
from survey_ml.stages.forced.photometry import measure_positions

REACH_BEAMS = 2.5
"""Neighbours nearer than this many beam FWHM are solved for together."""

LEAST_PX = 1.5
"""Least radius of the pixels that count: a sparsely sampled beam needs enough of them."""


class ForcedOptions(Options):
    """Which positions are measured, and from which pixels."""

    catalogue: Path
    """Full path of a FITS, VOTable, Parquet or CSV file with columns ra and dec in degrees."""
    aperture: float = Setting(1.1, gt=0.5, le=5)
    """Radius of the pixels that a flux is measured from, in sigma of the beam."""

    @field_validator("catalogue")
    @classmethod
    def _must_be_full(cls, path: Path) -> Path:
        # Workers run in other folders than the one the command was typed in.
        full = path.expanduser()
        if not full.is_absolute():
            raise ValueError(f"must be a full path, not {path}")
        return full


class Forced(Stage):
    """Measure points at given positions; the positions and the beam's shape are not fitted."""

    options_type: ClassVar[type[Options]] = ForcedOptions

    def setup(self) -> None:
        """Read the catalogue.

        Raises
        ------
        InputError
            When it cannot be read, or a row holds no position.
        """
        path = cast(ForcedOptions, self.options).catalogue
        columns = read_catalogue(str(path), Path("/"), ("ra", "dec"))
        self.ra, self.dec = (np.asarray(columns[name], dtype=np.float64) for name in ("ra", "dec"))
        wrong = ~(np.isfinite(self.ra) & (np.abs(self.dec) <= 90.0))
        if wrong.any():
            raise InputError(
                f"{path} has no position in row {int(np.argmax(wrong))}",
                "ra and dec are expected in degrees; take the row out or correct it",
            )
        lon, lat = np.radians(self.ra), np.radians(self.dec)
        self.vectors = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)

    def halo(self, field: Field) -> int:
        """Return how far neighbours and their pixels are from the core."""
        fwhm = _measure_beam(field)
        return ceil((2.0 * REACH_BEAMS + 2.0) * fwhm) + 4

    def run(self, inputs: Inputs) -> Mapping[str, Any]:
        """Measure the positions whose nearest pixel lies in the tile's core, as table ``forced``."""
        options = cast(ForcedOptions, self.options)
        field, tile = inputs.field, inputs.tile
        if field is None or tile is None:
            raise ValueError("forced photometry works on one tile")
        window, core = tile.window, tile.core
        rows = self._select(field, window)
        x, y = _find_pixels(field, self.ra[rows], self.dec[rows])
        # What lies outside the image is no neighbour either: no tile may know more than another.
        order = np.lexsort((rows, x, y))
        order = order[_lie_inside(x[order], y[order], field.shape)]
        rows, x, y = rows[order], x[order], y[order]
        beams = beam_precision(field.beam, measure_jacobians(field.sky, x, y))
        points = np.column_stack([np.ones(len(x)), x, y, beams])
        column, row = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
        inside = (row >= core.y0) & (row < core.y1) & (column >= core.x0) & (column < core.x1)
        targets = np.flatnonzero(inside)
        fwhm = _measure_beam(field)
        image, background, rms = (
            np.ascontiguousarray(inputs.arrays[name], dtype=np.float32)
            for name in ("image", "background", "rms")
        )
        acf = np.asarray(inputs.summaries["noise_model"]["acf"], dtype=np.float64)
        fluxes, flags = measure_positions(
            image, background, rms, (window.y0, window.x0), points, targets, acf,
            options.aperture, LEAST_PX, REACH_BEAMS * fwhm, fwhm,
        )  # fmt: skip
        local = rms[row[targets] - window.y0, column[targets] - window.x0].astype(np.float64)
        return {
            "forced": {
                "forced_id": rows[targets],
                "ra": self.ra[rows[targets]],
                "dec": self.dec[rows[targets]],
                "x": x[targets],
                "y": y[targets],
                "peak_flux": fluxes[:, 0],
                "peak_flux_err": fluxes[:, 1],
                "total_flux": fluxes[:, 0].copy(),
                "total_flux_err": fluxes[:, 1].copy(),
                "local_rms": local,
                "flags": flags.astype(np.int32),
            }
        }

    def _select(self, field: Field, window: Window) -> NDArray[np.int64]:
        """Rows of the catalogue in a circle on the sky that holds the window, cheaply."""
        edge_x = np.linspace(window.x0 - 0.5, window.x1 - 0.5, 9)
        edge_y = np.linspace(window.y0 - 0.5, window.y1 - 0.5, 9)
        x, y = (grid.ravel() for grid in np.meshgrid(edge_x, edge_y))
        sky = np.radians(locate(field.sky, x, y))
        finite = np.isfinite(self.ra)
        if not np.isfinite(sky).all():
            return np.flatnonzero(finite)
        cosine = np.cos(sky[:, 1])
        around = np.stack([cosine * np.cos(sky[:, 0]), cosine * np.sin(sky[:, 0]), np.sin(sky[:, 1])], axis=1)
        middle = around.mean(axis=0)
        middle /= np.linalg.norm(middle)
        # Chords, not cosines: those of small angles have no digits left.
        radius = 1.05 * np.sqrt(((around - middle) ** 2).sum(axis=1)).max()
        with np.errstate(invalid="ignore"):
            near = ((self.vectors - middle) ** 2).sum(axis=1) <= radius**2
        return np.flatnonzero(finite & near)


def _measure_beam(field: Field) -> float:
    """Major FWHM of the beam in pixels at the centre of the field."""
    middle = np.array([0.5 * (field.shape[1] - 1)]), np.array([0.5 * (field.shape[0] - 1)])
    return measure_fwhm(beam_precision(field.beam, measure_jacobians(field.sky, *middle))[0])


def _lie_inside(x: NDArray[np.float64], y: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which positions lie on pixels of the field."""
    return (x > -0.5) & (x < shape[1] - 0.5) & (y > -0.5) & (y < shape[0] - 0.5)


def _find_pixels(
    field: Field, ra: NDArray[np.float64], dec: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return pixel positions; far outside where the projection has none."""
    if len(ra) == 0:
        return np.empty(0), np.empty(0)
    world = np.stack([ra, dec] if field.wcs.wcs.lng == 0 else [dec, ra], axis=1)
    pixels = np.asarray(field.wcs.all_world2pix(world, 0, quiet=True), dtype=np.float64)
    # On the far side of the sphere some projections fold back into the image.
    back = locate(field.sky, pixels[:, 0], pixels[:, 1])
    with np.errstate(invalid="ignore"):
        good = np.isfinite(back).all(axis=1) & (np.abs(back[:, 1] - dec) < 1e-4)
    pixels[~good] = -1e9
    return pixels[:, 0], pixels[:, 1]
