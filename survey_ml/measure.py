"""Source extraction on an image in memory, without a store: for notebooks and trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from survey_ml.collection import collect_seldom
from survey_ml.errors import ConfigError, WindowTooSmallError
from survey_ml.explain import explain
from survey_ml.field import Field, Tile, split_tiles
from survey_ml.padding import find_padding
from survey_ml.plugins import get_manager, load_factory
from survey_ml.products import Kind
from survey_ml.stage import Inputs, Options, Stage, StageSpec

ROW_IDS = {"components": "component_id", "inverted": "component_id", "sources": "source_id"}
"""Column that a table is ordered by, so that the tiling does not show."""


@collect_seldom()
def measure_image(
    image: NDArray[np.floating],
    field: Field,
    options: Options | Mapping[str, Any] | None = None,
    *,
    core: int | None = None,
    halo: int = 128,
    noise_model: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Find and measure the sources of an image.

    It calls the same stages as a release run, tile by tile in this process.

    Parameters
    ----------
    image : (ny, nx) array
        Jy/beam; NaN where there is no data. Padding of constant value counts as NaN.
    field : Field
        Gives WCS and beam; its shape must be the image's.
    options : Options or mapping, optional
        Of the extraction stage, such as ``{"seed_snr": 5.0}``.
    core : int, optional
        Side of a tile's core in pixels; the whole image when not given.
    halo : int
        Least halo in pixels; a stage that needs more gets more.
    noise_model : mapping, optional
        Summary of the noise stage; measured when not given.
    seed : int
        For the noise stage.

    Returns
    -------
    dict
        The arrays ``background``, ``rms``, ``residual``, ``model`` and ``island_mask`` with the
        image's shape; the tables ``components``, ``sources``, ``islands`` and ``inverted``, ordered
        by their numbers; the ``noise_model``.

    Raises
    ------
    ConfigError
        When the image does not have the field's shape, or an option is unknown or out of its range.
    """
    if image.shape != field.shape:
        raise ConfigError(
            f"the image has {image.shape} pixels, its field {field.shape}",
            "describe this image",
            field=field.name,
        )
    stage, spec = _make_stage("extraction", options)
    pixels = np.ascontiguousarray(image, dtype=np.float32)
    if (padding := find_padding(pixels)) is not None:
        pixels = np.where(padding, np.float32(np.nan), pixels)
    if noise_model is None:
        noise, _ = _make_stage("noise", None)
        inputs = Inputs(field, None, {"image": pixels}, fields={field.name: field}, seed=seed)
        noise_model = cast("Mapping[str, Any]", noise.run(inputs)["noise_model"])
    results: dict[str, Any] = {}
    parts: dict[str, list[Mapping[str, NDArray[Any]]]] = {}
    for tile in split_tiles(field.shape, core or max(field.shape), max(halo, stage.halo(field))):
        outputs = _run_tile(stage, pixels, field, tile, noise_model)
        for product in spec.writes:
            value = outputs[product.name]
            if product.kind is Kind.ARRAY:
                whole = results.setdefault(product.name, np.empty(field.shape, value.dtype))
                whole[tile.core.slices] = value
            elif product.kind is Kind.TABLE:
                parts.setdefault(product.name, []).append(value)
    for name, tables in parts.items():
        joined = {column: np.concatenate([part[column] for part in tables]) for column in tables[0]}
        order = np.argsort(joined[ROW_IDS.get(name, "island_id")], kind="stable")
        results[name] = {column: values[order] for column, values in joined.items()}
    return {**results, "noise_model": noise_model}


def _make_stage(name: str, options: Options | Mapping[str, Any] | None) -> tuple[Stage, StageSpec]:
    """Return a stage that is ready to run, and what it announces."""
    spec = get_manager().stage(name)
    kind: type[Stage] = load_factory(spec.factory, f"stage {name}")
    if not isinstance(options, Options):
        given = dict(options or {})
        try:
            options = kind.options_type.model_validate(given)
        except ValidationError as error:
            raise explain(error, kind.options_type, given, stage=name) from None
    stage = kind(options)
    stage.setup()
    return stage, spec


def _run_tile(
    stage: Stage,
    image: NDArray[np.float32],
    field: Field,
    tile: Tile,
    noise_model: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Run a stage on a tile, in a larger window as often as it asks."""
    while True:
        inputs = Inputs(
            field,
            tile,
            {"image": image[tile.window.slices]},
            summaries={"noise_model": noise_model},
            fields={field.name: field},
        )
        try:
            return stage.run(inputs)
        except WindowTooSmallError as error:
            larger = tile.core.grow(error.halo, field.shape)
            if larger == tile.window:
                raise
            tile = Tile(tile.name, tile.core, larger)
