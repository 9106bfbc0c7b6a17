"""Gather what a stage reads: windows of arrays, tables and summaries, by scope."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from survey_ml.data.commit import Commit, Unit, read_commit, read_table
from survey_ml.engine.work import FIELD_TILE, RELEASE, RELEASE_TILE, Job, StageWork
from survey_ml.errors import DamagedError, PluginError
from survey_ml.field import Field, Tile
from survey_ml.products import Kind
from survey_ml.stage import Inputs, Scope, Table

if TYPE_CHECKING:
    from survey_ml.data.store import ReleaseStore


class _Fields(Protocol):
    """Where fields and their tiles are looked up."""

    def field(self, name: str) -> Field: ...
    def tiles(self, work: StageWork, field: str) -> dict[str, Tile]: ...


def gather(
    store: ReleaseStore,
    work: StageWork,
    job: Job,
    field: Field | None,
    tile: Tile | None,
    tiles: Mapping[str, Tile],
    seed: int,
    fields: _Fields,
) -> Inputs:
    """Read all that a stage declared, but the windows of tile stages (see `read_tile`).

    Returns
    -------
    Inputs
        Summaries of tile stages are handed to field stages as a mapping of tile name to object;
        at release scope everything is a mapping of field name to what a field stage would get,
        except tables, which are one for all with a column ``field``.
    """
    kinds = {product.name: product.kind for product in work.spec.reads}
    arrays: dict[str, Any] = {}
    tables: dict[str, Table] = {}
    summaries: dict[str, Any] = {}
    if field is None:
        names = sorted(job.made_by["field"])
        known = {name: fields.field(name) for name in names}
        for product, (writer, scope) in work.reads.items():
            kind = kinds[product]
            if scope is Scope.RELEASE:
                unit = Unit(RELEASE, writer, RELEASE_TILE)
                if kind is Kind.TABLE:
                    tables[product] = _freeze(read_table(store, unit, product))
                else:
                    summaries[product] = _commit(store, unit).summaries[product]
            elif kind is Kind.ARRAY:
                arrays[product] = {name: store.lazy(name, product) for name in names}
            elif kind is Kind.TABLE:
                parts = []
                for name in names:
                    rows = _rows(store, name, writer, scope, fields.tiles(work, name), product)
                    count = len(next(iter(rows.values()))) if rows else 0
                    parts.append({"field": np.full(count, name, dtype=object), **rows})
                tables[product] = _freeze(_stack(parts))
            else:
                summaries[product] = {
                    name: _summary(store, name, writer, scope, fields.tiles(work, name), product)
                    for name in names
                }
        return Inputs(None, None, arrays, tables, summaries, known, seed)
    for product, (writer, scope) in work.reads.items():
        kind = kinds[product]
        own = tile is not None and scope in (Scope.TILE, Scope.SOURCE)
        if kind is Kind.ARRAY:
            if work.spec.scope is not Scope.TILE:
                arrays[product] = store.lazy(field.name, product)
            continue
        near = {tile.name: tile} if own and tile is not None else tiles
        if kind is Kind.TABLE:
            tables[product] = _freeze(_rows(store, field.name, writer, scope, near, product))
        else:
            found = _summary(store, field.name, writer, scope, near, product)
            summaries[product] = found[tile.name] if own and tile is not None else found
    return Inputs(field, tile, arrays, tables, summaries, {field.name: field}, seed)


def read_tile(
    store: ReleaseStore, work: StageWork, inputs: Inputs, field: Field, tile: Tile, halo: int
) -> Inputs:
    """Return the inputs with the arrays of a tile's window read, ``halo`` pixels around its core."""
    window = tile.core.grow(halo, field.shape)
    kinds = {product.name: product.kind for product in work.spec.reads}
    arrays = {}
    for product in work.reads:
        if kinds[product] is Kind.ARRAY:
            values = store.read(field.name, product, window)
            values.flags.writeable = False
            arrays[product] = values
    return dataclasses.replace(inputs, tile=Tile(tile.name, tile.core, window), arrays=arrays)


def _commit(store: ReleaseStore, unit: Unit) -> Commit:
    found = read_commit(store, unit)
    if found is None:
        raise DamagedError(
            f"{unit.stage} has no commit",
            "it is made again",
            field=unit.field,
            tile=unit.tile,
            stage=unit.stage,
        )
    return found


def _units(field: str, writer: str, scope: Scope, tiles: Iterable[str]) -> list[Unit]:
    if scope is Scope.RELEASE:
        return [Unit(RELEASE, writer, RELEASE_TILE)]
    if scope is Scope.FIELD:
        return [Unit(field, writer, FIELD_TILE)]
    return [Unit(field, writer, tile) for tile in tiles]


def _rows(
    store: ReleaseStore, field: str, writer: str, scope: Scope, tiles: Iterable[str], product: str
) -> dict[str, NDArray[Any]]:
    """Return the rows of a table over some tiles, in the order of the tiles."""
    parts = [dict(read_table(store, unit, product)) for unit in _units(field, writer, scope, tiles)]
    return _stack(parts)


def _stack(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    if len(parts) == 1:
        return dict(parts[0])
    for part in parts[1:]:
        if lost := sorted(parts[0].keys() ^ part.keys()):
            raise PluginError(
                f"the tiles of a table have different columns: only some have {', '.join(lost)}",
                "the stage that writes it must return the same columns for every tile",
            )
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def _freeze(rows: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Make columns read-only: a stage must not change what it is given."""
    frozen = {}
    for name, values in rows.items():
        view = values.view()
        view.flags.writeable = False
        frozen[name] = view
    return frozen


def _summary(
    store: ReleaseStore, field: str, writer: str, scope: Scope, tiles: Iterable[str], product: str
) -> Any:
    units = _units(field, writer, scope, tiles)
    if scope in (Scope.FIELD, Scope.RELEASE):
        return _commit(store, units[0]).summaries[product]
    return {unit.tile: _commit(store, unit).summaries[product] for unit in units}
