"""The baseline finder: every local maximum above a threshold is a source."""

from __future__ import annotations

from collections.abc import Mapping
from math import log, sqrt
from typing import Any, ClassVar, cast

import numpy as np
from pydantic import Field as Setting

from survey_ml.field import Field
from survey_ml.stage import Inputs, Options, Stage
from survey_ml.stages.baseline.peaks import find_peaks, refine_peaks
from survey_ml.stages.extraction.background import Mesh, choose_mesh, measure_background, support_radius


class BaselineOptions(Options):
    """When a local maximum counts."""

    seed_snr: float = Setting(5.0, gt=0)
    """Peak over local rms that a source must exceed."""


class Baseline(Stage):
    """List the local maxima of each tile."""

    options_type: ClassVar[type[Options]] = BaselineOptions

    def halo(self, field: Field) -> int:
        """Return how far the background of a peak's neighbours looks."""
        mesh = _find_mesh(field)
        return support_radius(mesh.step, mesh.box) + 1

    def run(self, inputs: Inputs) -> Mapping[str, Any]:
        """Find the peaks of ``image`` in the tile's core and return them as ``peaks``."""
        options = cast(BaselineOptions, self.options)
        field, tile = inputs.field, inputs.tile
        if field is None or tile is None:
            raise ValueError("the baseline stage works on one tile")
        window = tile.window
        image = np.ascontiguousarray(inputs.arrays["image"], dtype=np.float32)
        background, rms = measure_background(
            image, origin=(window.y0, window.x0), **_find_mesh(field)._asdict()
        )
        rows, columns = tile.core.inside(window)
        peaks = find_peaks(
            image, background, rms, options.seed_snr, rows.start, rows.stop, columns.start, columns.stop
        )
        shift_y, shift_x, value = refine_peaks(image - background, peaks)
        row, column = peaks[:, 0] + window.y0, peaks[:, 1] + window.x0
        # Shifts are added to places in the field, not the window: rounding must not know the tile.
        y, x = row + shift_y, column + shift_x
        local = rms[peaks[:, 0], peaks[:, 1]].astype(np.float64)
        ra, dec = field.wcs.all_pix2world(x, y, 0, ra_dec_order=True) if len(x) else (x, y)
        return {
            "peaks": {
                "peak_id": row * field.shape[1] + column,
                "ra": np.asarray(ra, dtype=np.float64) % 360.0,
                "dec": np.asarray(dec, dtype=np.float64),
                "x": x,
                "y": y,
                "peak_flux": value,
                "local_rms": local,
                "snr": value / local,
            }
        }


def _find_mesh(field: Field) -> Mesh:
    """Return the background mesh of a field."""
    return choose_mesh(sqrt(field.beam_area * 4.0 * log(2.0) / np.pi), field.shape)
