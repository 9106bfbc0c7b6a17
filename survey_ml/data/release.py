"""A finished (or running) release as an astronomer reads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from survey_ml.columns import columns_of, expand_columns, table_names
from survey_ml.config import ReleaseConfig
from survey_ml.data.commit import REPAIR, Commit, Unit, list_commits, read_part, walk_commits
from survey_ml.data.disk import MARKER
from survey_ml.data.quicklook import (
    Moments,
    bin_block,
    choose_factor,
    join_cells,
    measure_block,
    merge_moments,
)
from survey_ml.data.store import RELEASE, ReleaseStore
from survey_ml.data.stored_json import decode_object, has_kinds
from survey_ml.data.tables import from_arrow, read_parquet_bytes
from survey_ml.errors import DamagedError, StoreError
from survey_ml.field import Field, Window, split_tiles
from survey_ml.stage import Table as Rows

if TYPE_CHECKING:
    import dask.array as da
    from astropy.table import Table
    from astropy.wcs import WCS
    from numpy.typing import NDArray


CATALOGUE = "catalogue"
"""Folder of the assembled tables."""
SCOPE = "scope.json"
"""Names the fields and stages that make up the release as last run."""


def write_scope(store: ReleaseStore, fields: Iterable[str], stages: Iterable[str]) -> None:
    """Note which fields and stages make up a release, if that changed.

    Raises
    ------
    StoreError
        When it cannot be written.
    """
    data = json.dumps({"fields": sorted(fields), "stages": sorted(stages)}, indent=1).encode()
    if store.medium.read(SCOPE) != data:
        store.medium.replace(SCOPE, data)


@dataclass(frozen=True)
class FieldView:
    """One field of a release; its arrays are attributes: ``view.image``, ``view.rms`` ...

    Attributes
    ----------
    store : ReleaseStore
        Where it is.
    name : str
        Its name.
    """

    store: ReleaseStore
    name: str

    @cached_property
    def info(self) -> Field:
        """Shape, WCS, beam, frequency and unit."""
        return self.store.field(self.name)

    @property
    def wcs(self) -> WCS:
        """The celestial WCS."""
        return self.info.wcs

    @property
    def products(self) -> list[str]:
        """Names of its arrays."""
        return self.store.products(self.name)

    def array(self, product: str) -> da.Array:
        """Return an array as dask array, one chunk a tile.

        A tile that is missing or damaged raises `DamagedError` when it is computed.

        Raises
        ------
        StoreError
            When there is no such array.
        """
        import dask.array as da

        lazy = self.store.lazy(self.name, product)
        return da.from_array(lazy, chunks=self.store.core(self.name), meta=np.empty((0, 0), lazy.dtype))

    def __getattr__(self, name: str) -> da.Array:
        # Unpickling asks for attributes before there are any.
        if name.startswith("_") or name in {"store", "name"}:
            raise AttributeError(name)
        if name not in self.products:
            raise AttributeError(f"field {self.name!r} has no array {name!r}")
        return self.array(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.products]

    def _map_tiles(self, product: str, work: Callable[[NDArray, Window], Any]) -> list[Any]:
        """Apply a function to each tile with dask; only the tiles at work are in memory."""
        import dask

        lazy = self.store.lazy(self.name, product)
        tiles = split_tiles(self.info.shape, self.store.core(self.name), 0)

        def apply(core: Window) -> Any:
            return work(lazy[core.slices], core)

        calls = [dask.delayed(apply, pure=False)(tile.core) for tile in tiles]
        return list(dask.compute(*calls, scheduler="threads"))

    def statistics(self, product: str = "image") -> Moments:
        """Return counts, extremes, mean and standard deviation, in bounded memory."""
        return merge_moments(self._map_tiles(product, lambda values, _: measure_block(values)))

    def quicklook(self, product: str = "image", max_px: int = 1024) -> NDArray[np.float32]:
        """Return a small picture: the mean of blocks of pixels, in bounded memory.

        Parameters
        ----------
        product : str
            Which array.
        max_px : int
            Longest side of the picture.
        """
        factor = choose_factor(self.info.shape, max_px)
        parts = self._map_tiles(product, lambda values, core: bin_block(values, core, factor))
        return join_cells(self.info.shape, factor, parts)


class Release:
    """A release on disk or on an object store.

    Examples
    --------
    >>> release = Release.open("first-sample-release")  # doctest: +SKIP
    >>> release.field("north").image[:100, :100].compute()  # doctest: +SKIP
    """

    def __init__(self, store: ReleaseStore) -> None:
        self.store = store
        self._description = store.describe()

    @classmethod
    def open(cls, out: str | Path) -> Release:
        """Open a release.

        Parameters
        ----------
        out : str or Path
            Its folder or URL.

        Raises
        ------
        StoreError
            When there is no release.
        """
        text = str(out)
        return cls(ReleaseStore(text if "://" in text else str(Path(text).expanduser().resolve())))

    def __repr__(self) -> str:
        return f"<Release {self.name!r}: {len(self.fields)} fields in {self.store.out}>"

    @property
    def out(self) -> str:
        """Where it is."""
        return self.store.out

    @property
    def name(self) -> str:
        """Name of the release."""
        return str(self._description["name"])

    @cached_property
    def config(self) -> ReleaseConfig:
        """The configuration as last run."""
        try:
            return ReleaseConfig.model_validate(self._description["config"])
        except ValidationError as error:
            path = self.store.medium.locate(RELEASE)
            place = ".".join(map(str, ("config", *error.errors()[0]["loc"])))
            raise StoreError(
                f"{path} is damaged: {place} is not as survey_ml writes it",
                "Run the release again with its YAML or images: it is written anew.",
            ) from None

    @property
    def fields(self) -> list[str]:
        """Names of the fields that belong to the release as last configured."""
        scope = self._scope
        return [name for name in self.store.fields() if scope is None or name in scope["fields"]]

    @cached_property
    def _scope(self) -> dict[str, list[str]] | None:
        scope = decode_object(self.store.medium.read(SCOPE), {"fields": list, "stages": list})
        named = scope is not None and all(isinstance(n, str) for n in [*scope["fields"], *scope["stages"]])
        return scope if named else None

    def field(self, name: str) -> FieldView:
        """Return a field.

        Raises
        ------
        StoreError
            When there is no such field.
        """
        view = FieldView(self.store, name)
        _ = view.info
        return view

    def commits(self, field: str | None = None, stage: str | None = None) -> dict[Unit, Commit]:
        """Return what is done: each unit of work with its commit.

        Units of fields or stages that the configuration no longer names stay on disk, in case they
        come back, but are no part of the release.
        """
        return {u: c for u, c in list_commits(self.store, field, stage).items() if self._has(u)}

    def walk_commits(self) -> Iterator[Commit]:
        """Yield what is done, in any order, without holding all of it; see `commits`."""
        return (commit for commit in walk_commits(self.store) if self._has(commit.unit))

    def _has(self, unit: Unit) -> bool:
        if self._members is None:
            return True
        fields, stages = self._members
        return unit.stage in stages and unit.field in fields

    @cached_property
    def _members(self) -> tuple[frozenset[str], frozenset[str]] | None:
        """Fields and stages that belong to the release."""
        scope = self._scope
        if scope is None:
            return None
        return (frozenset({*scope["fields"], "_release"}), frozenset(scope["stages"]))

    def provenance(self) -> dict[str, Any]:
        """Return the configuration as run, the inputs' checksums and what made each unit."""
        units = [
            {"field": unit.field, "stage": unit.stage, "tile": unit.tile, "key": commit.key}
            | {"made_by": commit.made_by, "info": commit.info}
            for unit, commit in self.commits().items()
        ]
        return {**self._description, "inputs": self.store.checksums, "units": units}

    def rows(self, table: str) -> Rows:
        """Return the rows of all parts of a table, with the field and tile they come from.

        Raises
        ------
        DamagedError
            When a part is missing or differs from what was written.
        """
        return self._gather(table)[0]

    def _gather(self, table: str) -> tuple[Rows, pa.Schema | None]:
        """Return the rows of all parts of a table, and the schema of one of them."""
        parts: list[Rows] = []
        schema = None
        for unit, commit in self.commits().items():
            if table in commit.tables:
                part = read_part(self.store, unit, table, commit)
                schema = part.schema
                n_rows = part.num_rows
                places = {"field": np.full(n_rows, unit.field), "tile": np.full(n_rows, unit.tile)}
                parts.append({**places, **from_arrow(part)})
        if not parts:
            return {}, None
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, schema

    def catalogue(self, table: str = "sources") -> Table:
        """Return a catalogue with units and descriptions.

        The assembled one where the run has written it, else the rows of the parts that are done.

        Parameters
        ----------
        table : str
            ``sources``, ``components``, ``islands`` or what other stages write.

        Raises
        ------
        DamagedError
            When the file differs from what was written.
        StoreError
            When no stage has written such a table.
        """
        data = self._read_assembled(f"{table}.parquet")
        if data is not None:
            arrow = read_parquet_bytes(data)
            rows: Rows = from_arrow(arrow)
            schema = arrow.schema
        else:
            rows, schema = self._gather(table)
        if not rows:
            known = sorted({name for commit in self.commits().values() for name in commit.tables})
            raise StoreError(
                f"there is no table {table!r} in {self.out}", f"Its tables: {', '.join(known) or 'none'}."
            )
        words = {field.name: _read_words(field) for field in schema or ()}
        return _describe_rows(table, rows, words, self.name)

    def _read_assembled(self, name: str) -> bytes | None:
        """Return a file of the catalogue, compared with the marker beside it; None when there is none."""
        medium, path = self.store.medium, f"{CATALOGUE}/{name}"
        # Once more: a run may have put another catalogue in place between file and marker.
        for _ in range(2):
            data = medium.read(path)
            marker = decode_object(medium.read(f"{CATALOGUE}/{MARKER}"), {"files": dict}) or {}
            sealed = marker.get("files", {}).get(name)
            # Parquet has no checksums of its own: a flipped bit may read as another number.
            if data is None or not has_kinds(sealed, {"sha256": str}):
                return data
            if hashlib.sha256(data).hexdigest() == sealed["sha256"]:
                return data
        raise DamagedError(f"{medium.locate(path)} differs from what was written", REPAIR)

    def components(self) -> Table:
        """Return the Gaussian components."""
        return self.catalogue("components")


def _read_words(field: pa.Field) -> dict[str, str]:
    """Return unit, UCD and description from the metadata of an Arrow field."""
    return {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}


def _describe_rows(table: str, rows: Rows, words: dict[str, dict[str, str]], release: str) -> Table:
    """Build an astropy table whose columns have units, UCDs and descriptions."""
    from astropy.table import Table
    from astropy.units import Unit as AstropyUnit

    columns = expand_columns(columns_of(table), rows) if table in table_names() else ()
    known = {column.name: column for column in columns}
    names = [name for name in known if name in rows] + [name for name in rows if name not in known]
    result = Table({name: rows[name] for name in names}, meta={"release": release})
    for name in names:
        column, own = known.get(name), words.get(name, {})
        unit = column.unit if column else own.get("unit", "")
        result[name].unit = AstropyUnit(unit, parse_strict="silent") if unit else None
        result[name].description = column.description if column else own.get("description", "") or None
        result[name].meta["ucd"] = column.ucd if column else own.get("ucd", "")
    return result
