"""The noise stage: one model of the noise correlation for each field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Setting

from survey_ml.field import Field, Window
from survey_ml.stage import Inputs, LazyArray, Options, Stage
from survey_ml.stages.noise.autocorrelation import NoiseModel, Patch, combine_patches, measure_patch
from survey_ml.stages.noise.beam import project_beam

TRIES = 4
"""Patches looked at for each one wanted, before blank ones make it give up."""


class NoiseOptions(Options):
    """How much of a field is read to learn its noise."""

    patches: int = Setting(64, ge=1)
    """Patches measured, spread over the field; fewer where it has no more."""

    patch_px: int = Setting(128, ge=32)
    """Side of a patch in pixels, about."""


class Noise(Stage):
    """Measure the autocorrelation of each field's noise."""

    options_type: ClassVar[type[Options]] = NoiseOptions

    def run(self, inputs: Inputs) -> Mapping[str, Any]:
        """Measure patches of ``image`` and return their ``noise_model``."""
        options = cast(NoiseOptions, self.options)
        if inputs.field is None:
            raise ValueError("the noise stage works on one field")
        model = measure_autocorrelation(
            inputs.arrays["image"],
            inputs.field,
            n_patches=options.patches,
            patch_px=options.patch_px,
            seed=inputs.seed,
        )
        return {"noise_model": model.to_summary()}


def measure_autocorrelation(
    image: LazyArray, field: Field, *, n_patches: int = 64, patch_px: int = 128, seed: int = 0
) -> NoiseModel:
    """Measure the noise of a field from patches spread all over it.

    Parameters
    ----------
    image : LazyArray
        The whole field; only the patches are read.
    field : Field
    n_patches, patch_px : int
        See `NoiseOptions`.
    seed : int
        Shifts the order in which patches are tried.

    Returns
    -------
    NoiseModel
    """
    covariance = project_beam(field)
    patches: list[Patch] = []
    for window in spread_patches(field.shape, patch_px, TRIES * n_patches, seed):
        pixels = np.asarray(image[window.slices], dtype=np.float32)
        patch = measure_patch(pixels, (window.y0, window.x0), covariance)
        if patch is not None:
            patches.append(patch)
        if len(patches) == n_patches:
            break
    return combine_patches(patches, covariance)


def spread_patches(shape: tuple[int, int], side: int, count: int, seed: int) -> list[Window]:
    """Cut a field into nearly square patches and list some, each far from those before it.

    The order is that of an additive recurrence with the plastic number, which fills the unit square
    evenly at any length (Roberts 2018, "The unreasonable effectiveness of quasirandom sequences").

    Parameters
    ----------
    shape : tuple of int
        Of the field.
    side : int
        Side of a patch in pixels, about.
    count : int
        Patches wanted; all of them where the field has no more.
    seed : int
        Shifts the sequence.

    Returns
    -------
    list of Window
        No patch twice.
    """
    rows, columns = (max(1, round(n / side)) for n in shape)
    edges_y = np.linspace(0, shape[0], rows + 1).round().astype(int)
    edges_x = np.linspace(0, shape[1], columns + 1).round().astype(int)
    order: NDArray[np.int64]
    if rows * columns <= count:
        order = np.arange(rows * columns)
    else:
        start = np.random.default_rng(seed).random(2)
        steps = np.arange(8 * count)[:, None] * np.array([0.7548776662466927, 0.5698402909980532])
        y, x = ((start + steps) % 1.0 * [rows, columns]).astype(np.int64).T
        flat = y * columns + x
        order = flat[np.sort(np.unique(flat, return_index=True)[1])][:count]
    return [
        Window(
            int(edges_y[i // columns]),
            int(edges_y[i // columns + 1]),
            int(edges_x[i % columns]),
            int(edges_x[i % columns + 1]),
        )
        for i in order
    ]
