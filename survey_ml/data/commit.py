"""Commits: what vouches for a unit of work, written last and read as the only ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from sys import intern
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from survey_ml.columns import columns_written
from survey_ml.data.disk import ASIDE, MARKER
from survey_ml.data.shards import encode_shard
from survey_ml.data.stored_json import Kinds, decode_object, has_kinds
from survey_ml.data.tables import from_arrow, read_parquet_bytes, to_arrow, write_parquet_bytes
from survey_ml.errors import DamagedError, PluginError, StoreError
from survey_ml.field import Tile
from survey_ml.products import Product
from survey_ml.stage import Table

if TYPE_CHECKING:
    from survey_ml.data.store import ReleaseStore

REPAIR = "survey-ml status OUT --verify --repair takes it away, and the next run makes it again."
"""A run by itself looks only at what it reads, and finds a changed bit nowhere else."""
_SEAL = b',"digest":"'
_QUARANTINE_KINDS: Kinds = {"key": str, "cause": str, "hint": str, "attempts": int}


@dataclass(frozen=True, order=True, slots=True)
class Unit:
    """A unit of work: a stage on a tile of a field.

    At field scope ``tile`` is ``field``; at release scope it is ``release`` and ``field`` is
    ``_release``.
    """

    field: str
    stage: str
    tile: str

    @property
    def folder(self) -> str:
        """Where its commits lie in the release."""
        return f"units/{self.field}/{self.stage}/{self.tile}"


@dataclass(frozen=True)
class Commit:
    """What a marker holds.

    Attributes
    ----------
    unit : Unit
        The unit of work.
    key : str
        SHA-256 of all that its outputs depend on.
    made_by : dict
        What went into the key.
    files : dict
        Path in the release to ``{"sha256": ..., "size": ...}``.
    tables : dict
        Table name to number of rows.
    summaries : dict
        Summary name to JSON object.
    info : dict
        Timings and the like; no part of the key.
    """

    unit: Unit
    key: str
    made_by: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, int] = field(default_factory=dict)
    summaries: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder of the commit in the release."""
        return f"{self.unit.folder}/{self.key}"


def _simplify(value: Any) -> Any:
    """Turn NumPy values into JSON ones."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be kept as JSON")


def _encode(commit: Commit) -> bytes:
    """Write a marker: JSON whose last member is the SHA-256 of what precedes it."""
    text = json.dumps(asdict(commit), sort_keys=True, separators=(",", ":"), default=_simplify)
    body = text.encode()
    return body[:-1] + _SEAL + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def _decode(data: bytes) -> Commit | None:
    """Read a marker; None when a bit of it is wrong, so that the unit is made again."""
    body, seal, tail = data.rpartition(_SEAL)
    if not seal or hashlib.sha256(body + b"}").hexdigest().encode() + b'"}\n' != tail:
        return None
    values = decode_object(body + b"}", {"unit": dict, "key": str})
    if values is None or not has_kinds(values["unit"], {"field": str, "stage": str, "tile": str}):
        return None
    unit = values["unit"]
    # The same few names in every marker: of many markers each is kept once.
    values["unit"] = Unit(intern(unit["field"]), intern(unit["stage"]), intern(unit["tile"]))
    return Commit(**values)


def _seal_files(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    return {
        path: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for path, data in files.items()
    }


def write_commit(
    store: ReleaseStore,
    unit: Unit,
    key: str,
    *,
    made_by: Mapping[str, Any],
    tile: Tile | None = None,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    tables: Mapping[str, tuple[Table, Product]] | None = None,
    summaries: Mapping[str, Any] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Commit:
    """Write a unit's outputs and its marker; whole, or not at all.

    Parameters
    ----------
    store : ReleaseStore
        Where to.
    unit : Unit
        The unit of work.
    key : str
        Its key.
    made_by : mapping
        What went into the key, as JSON.
    tile : Tile or None
        The tile whose core the arrays cover.
    arrays : mapping
        Product name to an array of the core's shape. The products must be declared.
    tables : mapping
        Product name to rows and product.
    summaries, info : mapping
        JSON objects.

    Returns
    -------
    Commit
        The commit in place: that of another writer of the same work if it was faster.

    Raises
    ------
    StoreError
        When it cannot be written; then nothing is committed.
    PluginError
        When rows or arrays are not as declared.
    """
    present = read_commit(store, unit)
    if present is not None and present.key == key and not check_commit(store, present):
        return present
    shards: dict[str, bytes] = {}
    for product, values in (arrays or {}).items():
        if tile is None or values.shape != tile.core.shape:
            wanted = tile.core.shape if tile else "no tile"
            raise PluginError(
                f"the array {product!r} has shape {values.shape}, {wanted} was expected",
                "Return arrays that cover the tile's core.",
                field=unit.field,
                tile=unit.tile,
                stage=unit.stage,
            )
        layout = store.layout(unit.field, product)
        shards[store.shard_path(unit.field, product, tile.core)] = encode_shard(values, layout)
    parts: dict[str, bytes] = {}
    rows: dict[str, int] = {}
    for name, (table, product_) in (tables or {}).items():
        arrow = to_arrow(table, columns_written(product_, table), described=bool(product_.columns))
        rows[name] = arrow.num_rows
        parts[f"{name}.parquet"] = write_parquet_bytes(arrow)
    folder = f"{unit.folder}/{key}"
    files = _seal_files(shards) | _seal_files({f"{folder}/{name}": data for name, data in parts.items()})
    commit = Commit(unit, key, dict(made_by), files, rows, dict(summaries or {}), dict(info or {}))
    marker = _encode(commit)
    if store.medium.write_unit(unit.folder, key, shards, parts, marker):
        stored = _decode(marker)
    else:
        stored = read_commit(store, unit)
        if stored is None or stored.files != files:
            # Shards of two writers may be mixed: nothing may vouch for them.
            remove_commit(store, unit)
            raise StoreError(
                "another run wrote other bytes for the same work at the same time",
                "Let one run at a time work on a release, then run the same command again.",
                field=unit.field,
                tile=unit.tile,
                stage=unit.stage,
            )
    assert stored is not None
    return stored


def read_commit(store: ReleaseStore, unit: Unit) -> Commit | None:
    """Return the commit of a unit; None when there is none or its marker is damaged."""
    for key in store.medium.list_folder(unit.folder):
        if key.startswith(ASIDE):
            continue
        data = store.medium.read(f"{unit.folder}/{key}/{MARKER}")
        commit = _decode(data) if data is not None else None
        if commit is not None and commit.key == key:
            return commit
    return None


def walk_commits(store: ReleaseStore, field: str | None = None, stage: str | None = None) -> Iterator[Commit]:
    """Yield all commits, of one field or stage if named, in any order.

    What made them is one object for all tiles of a field and stage that were made alike: a marker
    holds it whole, with the header of the image, and there may be many markers.
    """
    alike: dict[tuple[str, str], dict[str, Any]] = {}
    for place, data in store.medium.walk_markers(field, stage):
        commit = _decode(data)
        if commit is None:
            continue
        unit = commit.unit
        if (unit.field, unit.stage, unit.tile, commit.key) != place:
            continue
        last = alike.setdefault((unit.field, unit.stage), commit.made_by)
        if last is not commit.made_by and last == commit.made_by:
            commit = replace(commit, made_by=last)
        alike[unit.field, unit.stage] = commit.made_by
        yield commit


def list_commits(
    store: ReleaseStore, field: str | None = None, stage: str | None = None
) -> dict[Unit, Commit]:
    """Return all commits, of one field or stage if named, in the order of their units."""
    found = {commit.unit: commit for commit in walk_commits(store, field, stage)}
    return dict(sorted(found.items(), key=lambda item: (item[0].field, item[0].stage, item[0].tile)))


def check_commit(store: ReleaseStore, commit: Commit, *, deep: bool = False) -> str:
    """Say what is wrong with the files of a commit; empty when nothing is.

    Parameters
    ----------
    store : ReleaseStore
        The release.
    commit : Commit
        What should be there.
    deep : bool
        Also compare the SHA-256 of each file; otherwise presence and size only.
    """
    sizes = store.medium.measure(list(commit.files))
    for path, sealed in commit.files.items():
        size = sizes[path]
        if size is None:
            return f"{path} is missing"
        if size != sealed["size"]:
            return f"{path} has {size} bytes, {sealed['size']} were written"
        if deep and store.medium.digest(path) != sealed["sha256"]:
            return f"{path} differs from what was written"
    return ""


def remove_commit(store: ReleaseStore, unit: Unit) -> None:
    """Remove all commits of a unit, so that it is made again; its shards stay until then."""
    for key in store.medium.list_folder(unit.folder):
        if not key.startswith(ASIDE):
            store.medium.remove(f"{unit.folder}/{key}")


def read_part(store: ReleaseStore, unit: Unit, name: str, commit: Commit | None = None) -> pa.Table:
    """Return a table part as Arrow table, checked against its checksum.

    Parameters
    ----------
    store : ReleaseStore
        The release.
    unit : Unit
        Who wrote it.
    name : str
        Name of the table.
    commit : Commit, optional
        The unit's commit, where the caller has it.

    Raises
    ------
    DamagedError
        When there is no such part or its bytes differ from what was written.
    """
    commit = commit or read_commit(store, unit)
    place = asdict(unit)
    if commit is None:
        raise DamagedError("no commit", "Run the same command again.", **place)
    path = f"{commit.folder}/{name}.parquet"
    data = store.medium.read(path)
    sealed = commit.files.get(path)
    if data is None or sealed is None or hashlib.sha256(data).hexdigest() != sealed["sha256"]:
        state = "is missing" if data is None or sealed is None else "differs from what was written"
        raise DamagedError(f"the table part {path} {state}", REPAIR, **place)
    return read_parquet_bytes(data)


def read_table(store: ReleaseStore, unit: Unit, name: str, commit: Commit | None = None) -> Table:
    """Return the rows of a table part; see `read_part`."""
    return from_arrow(read_part(store, unit, name, commit))


def clean(store: ReleaseStore) -> list[str]:
    """Remove what killed writers left aside; call it when no other run is at work."""
    return store.medium.clean()


def quarantine(store: ReleaseStore, unit: Unit, key: str, cause: str, hint: str, attempts: int) -> None:
    """Record that a unit must not be tried again with this key."""
    record = {**asdict(unit), "key": key, "cause": cause, "hint": hint, "attempts": attempts}
    path = f"quarantine/{unit.field}/{unit.stage}/{unit.tile}.json"
    store.medium.replace(path, json.dumps(record, indent=1).encode())


def list_quarantine(store: ReleaseStore) -> dict[Unit, dict[str, Any]]:
    """Return quarantined units with key, cause, hint and attempts."""
    found: dict[Unit, dict[str, Any]] = {}
    medium = store.medium
    for field_name in medium.list_folder("quarantine"):
        for stage in medium.list_folder(f"quarantine/{field_name}"):
            for name in medium.list_folder(f"quarantine/{field_name}/{stage}"):
                if name.startswith(ASIDE) or not name.endswith(".json"):
                    continue
                data = medium.read(f"quarantine/{field_name}/{stage}/{name}")
                record = decode_object(data, _QUARANTINE_KINDS)
                # A record that cannot be read forbids nothing: the unit is tried again.
                if record is not None:
                    unit = Unit(field_name, stage, name.removesuffix(".json"))
                    found[unit] = {name: record[name] for name in _QUARANTINE_KINDS}
    return found


def release_quarantine(store: ReleaseStore, units: Iterable[Unit]) -> None:
    """Allow units to be tried again."""
    for unit in units:
        store.medium.remove(f"quarantine/{unit.field}/{unit.stage}/{unit.tile}.json")
