"""Hold what a stage returns against what it declared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.columns import expand_columns, part_columns
from survey_ml.errors import PluginError
from survey_ml.field import Tile
from survey_ml.products import Column, Kind, Product
from survey_ml.specs import NAME
from survey_ml.stage import Table


def check_outputs(
    stage: str, writes: Sequence[Product], outputs: Mapping[str, Any], tile: Tile | None
) -> tuple[dict[str, NDArray[Any]], dict[str, tuple[Table, Product]], dict[str, Any]]:
    """Split what a stage returned into arrays, tables and summaries that keep its declaration.

    Parameters
    ----------
    stage : str
        Name of the stage, for messages.
    writes : sequence of Product
        What it declared.
    outputs : mapping
        What it returned.
    tile : Tile or None
        Arrays must have the shape of its core.

    Returns
    -------
    arrays, tables, summaries
        As `write_commit` takes them.

    Raises
    ------
    PluginError
        Names the stage and the product that breaks its declaration.
    """
    wanted = {product.name: product for product in writes}
    missing = sorted(set(wanted) - set(outputs))
    extra = sorted(set(outputs) - set(wanted))
    if missing or extra:
        said = [f"did not return {', '.join(missing)}"] if missing else []
        said += [f"returned {', '.join(extra)}, which it does not declare"] if extra else []
        raise _fault(stage, " and ".join(said), "return exactly the products under `writes`")
    arrays: dict[str, NDArray[Any]] = {}
    tables: dict[str, tuple[Table, Product]] = {}
    summaries: dict[str, Any] = {}
    for name, product in wanted.items():
        value = outputs[name]
        if product.kind is Kind.ARRAY:
            arrays[name] = _check_array(stage, product, value, tile)
        elif product.kind is Kind.TABLE:
            tables[name] = (_check_table(stage, product, value), product)
        else:
            summaries[name] = _check_summary(stage, product, value)
    return arrays, tables, summaries


def _fault(stage: str, what: str, hint: str) -> PluginError:
    return PluginError(f"stage {stage} {what}", hint, stage=stage)


def _check_array(stage: str, product: Product, value: Any, tile: Tile | None) -> NDArray[Any]:
    if not isinstance(value, np.ndarray):
        raise _fault(
            stage, f"returned {type(value).__name__} for array {product.name}", "return a numpy array"
        )
    if tile is None:
        raise _fault(stage, f"returned array {product.name} without a tile", "write arrays at tile scope")
    if value.shape != tile.core.shape:
        raise _fault(
            stage,
            f"returned {product.name} with shape {value.shape}, the core has {tile.core.shape}",
            "cut the window back: array[tile.core.inside(tile.window)]",
        )
    if product.dtype and value.dtype != np.dtype(product.dtype):
        raise _fault(
            stage,
            f"returned {product.name} as {value.dtype}, declared as {product.dtype}",
            f"return {product.name}.astype({product.dtype!r})",
        )
    return np.ascontiguousarray(value)


def _columns(stage: str, product: Product) -> tuple[Column, ...]:
    if product.columns:
        return product.columns
    try:
        return part_columns(product.name)
    except KeyError:
        raise _fault(
            stage, f"writes table {product.name}, which has no columns", "declare its columns in the spec"
        ) from None


def _expand(stage: str, product: Product, rows: Table) -> tuple[Column, ...]:
    """Return the columns that rows must have, with members in place of families."""
    columns = _columns(stage, product)
    try:
        expanded = expand_columns(columns, rows)
    except PluginError as error:
        raise _fault(stage, f"returned {product.name} whose {error.message}", error.hint) from None
    for name in {column.name for column in expanded} - {column.name for column in columns}:
        if not NAME.fullmatch(name):
            raise _fault(
                stage,
                f"returned column {name!r} of {product.name}, which is no name of a column",
                "use lower-case letters, digits and '_', starting with a letter",
            )
    return expanded


def _check_table(stage: str, product: Product, value: Any) -> Table:
    if not isinstance(value, Mapping):
        raise _fault(
            stage,
            f"returned {type(value).__name__} for table {product.name}",
            "return a mapping of column name to numpy array",
        )
    rows: dict[str, NDArray[Any]] = {name: np.asarray(values) for name, values in value.items()}
    columns = {column.name: column for column in _expand(stage, product, rows)}
    missing, extra = sorted(set(columns) - set(value)), sorted(set(value) - set(columns))
    if missing or extra:
        said = [f"without column {', '.join(missing)}"] if missing else []
        said += [f"with undeclared column {', '.join(extra)}"] if extra else []
        raise _fault(stage, f"returned {product.name} {' and '.join(said)}", "return exactly its columns")
    rows = {name: _check_column(stage, product, column, rows[name]) for name, column in columns.items()}
    lengths = {name: len(values) for name, values in rows.items()}
    if len(set(lengths.values())) > 1:
        raise _fault(
            stage, f"returned {product.name} with columns of lengths {lengths}", "one row, one value"
        )
    return rows


def _check_column(stage: str, product: Product, column: Column, values: NDArray[Any]) -> NDArray[Any]:
    base, _, length = column.dtype.partition("[")
    shape = (int(length[:-1]),) if length else ()
    place = f"column {column.name} of {product.name}"
    if values.ndim != 1 + len(shape) or values.shape[1:] != shape:
        want = f"(n, {shape[0]})" if shape else "(n,)"
        raise _fault(
            stage, f"returned {place} with shape {values.shape}, declared {want}", "one row, one value"
        )
    if base == "string":
        if values.dtype.kind not in "OUT":
            raise _fault(stage, f"returned {place} as {values.dtype}, declared as string", "return strings")
        return values
    # An empty Python list arrives as float64; it holds nothing that could be lost.
    if len(values) and not np.can_cast(values.dtype, np.dtype(base), "same_kind"):
        raise _fault(stage, f"returned {place} as {values.dtype}, declared as {base}", f"return it as {base}")
    return values.astype(base, copy=False)


def _check_summary(stage: str, product: Product, value: Any) -> Any:
    try:
        # Reading it back gives what every later reader will see: lists for tuples, plain numbers.
        return json.loads(json.dumps(value, default=_plain))
    except (TypeError, ValueError) as error:
        raise _fault(
            stage,
            f"returned summary {product.name} that is not JSON: {error}",
            "return plain numbers and text",
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
