"""The release store: where fields, arrays and commits lie, and reading that never invents data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from survey_ml import __version__
from survey_ml.data.bucket import Bucket
from survey_ml.data.commit import REPAIR, Unit, read_commit
from survey_ml.data.disk import ASIDE, Disk
from survey_ml.data.failures import describe_failure
from survey_ml.data.schema import describe_array, describe_field
from survey_ml.data.shards import Layout, create_array, read_shard, use_one_core
from survey_ml.data.source import Source
from survey_ml.data.stored_json import Kinds, decode_object, has_kinds
from survey_ml.errors import ConfigError, DamagedError, StoreError
from survey_ml.field import Beam, Field, Window
from survey_ml.products import Kind, Product

if TYPE_CHECKING:
    from survey_ml.config import LoadedConfig

FORMAT = 1
"""Changes when older releases can no longer be read."""
ARRAYS = "store.zarr"
INPUTS = "inputs.json"
RELEASE = "release.json"
AGAIN = "Run the same command again: what is missing is made again."


@dataclass(frozen=True)
class StoredArray:
    """An array of a release that reads only what is indexed: ``array[y0:y1, x0:x1]``.

    Cheap to pickle; the same checks as `ReleaseStore.read`.
    """

    store: ReleaseStore
    field: str
    product: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    ndim: int = 2

    def __getitem__(self, index: tuple[slice, slice]) -> NDArray[Any]:
        """Read a window given by two slices of step 1."""
        rows, columns = index
        y0, y1, step_y = rows.indices(self.shape[0])
        x0, x1, step_x = columns.indices(self.shape[1])
        if (step_y, step_x) != (1, 1):
            raise IndexError("only slices of step 1 are read; thin out what was read")
        return self.store.read(self.field, self.product, Window(y0, max(y0, y1), x0, max(x0, x1)))


_RELEASE_KINDS: Kinds = {"name": str, "config": dict, "source": str, "base": str}
_SUM_KINDS: Kinds = {"size": int, "changed": str, "sha256": str}
_NUMBER = (int, float)
_FIELD_KINDS: Kinds = {
    "core_px": int,
    "shape": list,
    "header": str,
    "beam": list,
    "frequency": (int, float, type(None)),
    "unit": str,
    "source": dict,
}
_SOURCE_KINDS: Kinds = {
    "path": str,
    "reader": str,
    "hdu": (str, int, type(None)),
    "scale": _NUMBER,
    "notes": list,
}


def _decode_attributes(data: bytes | None) -> dict[str, Any] | None:
    """Return what a field's group says of it; None where it says nothing, or was damaged."""
    attributes = (decode_object(data) or {}).get("attributes")
    known = attributes.get("survey_ml") if isinstance(attributes, dict) else None
    if not isinstance(known, dict) or not has_kinds(known, _FIELD_KINDS):
        return None
    if not has_kinds(known["source"], _SOURCE_KINDS):
        return None
    sides = [known["core_px"], *known["shape"]]
    whole = len(sides) == 3 and all(type(side) is int and side > 0 for side in sides)
    beam = len(known["beam"]) == 3 and all(type(value) in _NUMBER for value in known["beam"])
    return known if whole and beam and known["source"].keys() == _SOURCE_KINDS.keys() else None


class ReleaseStore:
    """A release on disk or on an object store.

    Opening costs nothing but an object: files are read when asked for, and a pickled store is its
    address, so each worker may hold one.

    Parameters
    ----------
    out : str
        Absolute path or URL of the release.
    """

    def __init__(self, out: str) -> None:
        self.out = out.removeprefix("file://").rstrip("/")
        self.medium: Disk | Bucket = Bucket(self.out) if "://" in self.out else Disk(self.out)
        self._arrays: dict[tuple[str, str], zarr.Array] = {}
        self._attributes: dict[str, dict[str, Any]] = {}
        self._writers: dict[tuple[str, str], str] = {}
        self._sums: dict[str, dict[str, Any]] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return (ReleaseStore, (self.out,))

    @classmethod
    def create(cls, out: str, config: LoadedConfig) -> ReleaseStore:
        """Create a release, or go on with one: the configuration is noted as run.

        Raises
        ------
        StoreError
            When the place cannot be written or holds a release of another format.
        """
        store = cls.open(out)
        store.medium.prepare()
        previous = store._read_release()
        if previous is not None:
            store._check_format(previous)
        release = {
            "format": FORMAT,
            "survey_ml": __version__,
            "name": config.release.name,
            "config": config.release.model_dump(mode="json"),
            "source": config.source,
            "base": str(config.base),
        }
        if release != previous:
            store.medium.replace(RELEASE, json.dumps(release, indent=1).encode())
        store._put_json(f"{ARRAYS}/zarr.json", _group({"survey_ml": {"release": config.release.name}}))
        return store

    @classmethod
    def open(cls, out: str) -> ReleaseStore:
        """Open a release in a worker, which has one core; nothing is read until it is asked for."""
        use_one_core()
        return cls(out)

    def describe(self) -> dict[str, Any]:
        """Return what ``release.json`` holds: format, name, configuration as run.

        Raises
        ------
        StoreError
            When there is no release here, or one of another format.
        """
        release = self._read_release()
        if release is None:
            raise StoreError(
                f"{self.out} is no survey_ml release", "Give the `out` folder of a finished run."
            )
        self._check_format(release)
        return release

    @property
    def checksums(self) -> dict[str, dict[str, Any]]:
        """SHA-256, size and time of each input by path, as last noted in ``inputs.json``."""
        if self._sums is None:
            found = decode_object(self.medium.read(INPUTS)) or {}
            # A cache: files of which it says nothing are read once more.
            self._sums = {path: held for path, held in found.items() if has_kinds(held, _SUM_KINDS)}
        return self._sums

    def _read_release(self) -> dict[str, Any] | None:
        self.medium.greet()
        data = self.medium.read(RELEASE)
        if data is None:
            return None
        release = decode_object(data)
        if release is None:
            raise self._tell_damage("it is no JSON object")
        return release

    def _tell_damage(self, cause: str) -> StoreError:
        return StoreError(
            f"{self.medium.locate(RELEASE)} is damaged: {cause}",
            "Remove that file and run the release again with its YAML or images: it is written anew, and "
            "what is done stays done.",
        )

    def _check_format(self, release: dict[str, Any]) -> None:
        if type(release.get("format")) is not int:
            raise self._tell_damage("it tells no format")
        if release["format"] != FORMAT:
            raise StoreError(
                f"{self.out} has format {release['format']}, this version reads format {FORMAT}",
                "Choose another `out`, or use the survey_ml that wrote it.",
            )
        if not has_kinds(release, _RELEASE_KINDS):
            raise self._tell_damage(f"it must hold {', '.join(_RELEASE_KINDS)}")

    def _put_json(self, path: str, value: dict[str, Any]) -> bool:
        """Write a JSON file if its content is new."""
        data = json.dumps(value, indent=1).encode()
        if self.medium.read(path) == data:
            return False
        self.medium.replace(path, data)
        return True

    # Fields

    def register(self, field: Field, source: Source, core: int) -> None:
        """Describe a field in the store; does nothing where it is described already.

        Parameters
        ----------
        field : Field
            The field.
        source : Source
            Where its pixels come from.
        core : int
            Side of a tile's core in pixels.

        Raises
        ------
        ConfigError
            When the field is stored with another core.
        """
        path = f"{ARRAYS}/{field.name}/zarr.json"
        held = self.medium.read(path)
        known = _decode_attributes(held)
        if known is not None:
            if known["core_px"] != core:
                raise ConfigError(
                    f"it is stored in tiles of {known['core_px']} px, the configuration asks for {core} px",
                    f"Set tiling.core_px to {known['core_px']}, or choose another `out`.",
                    field=field.name,
                )
            if known["shape"] != list(field.shape):
                # Another image under the same name: nothing that was made of the old one holds.
                self.medium.remove(f"units/{field.name}")
                self.medium.remove(f"{ARRAYS}/{field.name}")
        attributes = describe_field(field)
        attributes["survey_ml"] = {
            "core_px": core,
            "shape": list(field.shape),
            "header": field.header,
            "beam": [field.beam.major, field.beam.minor, field.beam.pa],
            "frequency": None if np.isnan(field.frequency) else field.frequency,
            "unit": field.unit,
            "source": {k: value for k, value in asdict(source).items() if k not in ("field", "stamp")},
        }
        self._put_json(path, _group(attributes))
        self._attributes.pop(field.name, None)
        self._arrays = {key: value for key, value in self._arrays.items() if key[0] != field.name}

    def fields(self) -> list[str]:
        """Return the names of the fields, sorted."""
        names = self.medium.list_folder(ARRAYS)
        return [name for name in names if name != "zarr.json" and not name.startswith(ASIDE)]

    def _describe(self, field: str) -> dict[str, Any]:
        if field not in self._attributes:
            data = self.medium.read(f"{ARRAYS}/{field}/zarr.json")
            if data is None:
                names = ", ".join(self.fields()[:5]) or "none"
                raise StoreError(f"there is no field {field!r} in {self.out}", f"Its fields: {names}.")
            known = _decode_attributes(data)
            if known is None:
                raise StoreError(
                    f"{self.medium.locate(f'{ARRAYS}/{field}/zarr.json')} is damaged",
                    "Run the release again: it is written anew from the input.",
                    field=field,
                )
            self._attributes[field] = known
        return self._attributes[field]

    def field(self, name: str) -> Field:
        """Return a field as registered."""
        known = self._describe(name)
        frequency = known["frequency"]
        return Field(
            name=name,
            shape=(known["shape"][0], known["shape"][1]),
            header=known["header"],
            beam=Beam(*known["beam"]),
            frequency=float("nan") if frequency is None else frequency,
            unit=known["unit"],
        )

    def core(self, name: str) -> int:
        """Return the side of a field's tile cores in pixels."""
        return int(self._describe(name)["core_px"])

    def source(self, name: str) -> Source:
        """Return where a field's pixels come from."""
        values = dict(self._describe(name)["source"])
        values["notes"] = tuple(values["notes"])
        return Source(field=self.field(name), **values)

    # Arrays

    def declare(self, field: str, product: Product) -> None:
        """Create the array of a product in a field, if it is not there as it should be.

        Raises
        ------
        StoreError
            When it cannot be written.
        """
        if product.kind is not Kind.ARRAY:
            raise ValueError(f"{product.name} is a {product.kind}, not an array")
        layout = Layout(product.dtype or "float32", self.core(field))
        known = self.field(field)
        memory = MemoryStore()
        attributes = describe_array(product, known)
        create_array(memory, known.shape, layout, attributes=attributes)
        path = f"{ARRAYS}/{field}/{product.name}"
        wanted = json.loads(memory._store_dict["zarr.json"].to_bytes())
        held = self.medium.read(f"{path}/zarr.json")
        known_layout = decode_object(held)
        if known_layout and not _same_layout(known_layout, wanted):
            self.medium.remove(path)
        self._put_json(f"{path}/zarr.json", wanted)
        self._arrays.pop((field, product.name), None)

    def products(self, field: str) -> list[str]:
        """Return the names of the arrays of a field, sorted."""
        names = self.medium.list_folder(f"{ARRAYS}/{field}")
        return [name for name in names if name != "zarr.json" and not name.startswith(ASIDE)]

    def _open(self, field: str, product: str) -> zarr.Array:
        key = (field, product)
        if key not in self._arrays:
            try:
                folder = self.medium.open_zarr(f"{ARRAYS}/{field}/{product}")
                self._arrays[key] = zarr.open_array(folder, mode="r", zarr_format=3)
            except FileNotFoundError as error:
                raise StoreError(
                    f"there is no array {product!r}", "Run the stage that writes it.", field=field
                ) from error
            except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
                # Metadata that are JSON but no array's end anywhere in the library.
                path = self.medium.locate(f"{ARRAYS}/{field}/{product}/zarr.json")
                raise StoreError(
                    f"{path} is damaged", "survey-ml status --verify --repair writes it anew.", field=field
                ) from error
        return self._arrays[key]

    def layout(self, field: str, product: str) -> Layout:
        """Return how an array is stored."""
        return Layout(str(self._open(field, product).dtype), self.core(field))

    def shard_path(self, field: str, product: str, core: Window) -> str:
        """Return the path of the shard of a tile's core."""
        side = self.core(field)
        return f"{ARRAYS}/{field}/{product}/c/{core.y0 // side}/{core.x0 // side}"

    def lazy(self, field: str, product: str) -> StoredArray:
        """Return an array that reads only what is indexed."""
        array = self._open(field, product)
        return StoredArray(self, field, product, self.field(field).shape, np.dtype(array.dtype))

    def read(self, field: str, product: str, window: Window) -> NDArray[Any]:
        """Read a window of an array.

        Parameters
        ----------
        field, product : str
            Which array.
        window : Window
            What to read; clipped to the field.

        Returns
        -------
        ndarray, shape (ny, nx)
            A new array.

        Raises
        ------
        DamagedError
            When a shard that the window touches has no commit, is missing, or differs from what
            was written. It names the tile and the stage that must run again.
        """
        array = self._open(field, product)
        ny, nx = self.field(field).shape
        y0, x0 = max(0, window.y0), max(0, window.x0)
        clipped = Window(y0, max(y0, min(ny, window.y1)), x0, max(x0, min(nx, window.x1)))
        tiles = self._tiles_of(field, clipped)
        for tile in tiles:
            self._check_shard(field, product, tile)
        try:
            if isinstance(self.medium, Disk):
                return self._read_shards(field, product, clipped, tiles)
            return np.asarray(array[clipped.slices])
        except (TimeoutError, ConnectionError, PermissionError) as error:
            # No answer says nothing of the bytes: what could not be read is not damaged.
            raise describe_failure(
                error, self.medium.locate(f"{ARRAYS}/{field}/{product}"), "read"
            ) from error
        except Exception as error:
            raise self._find_damage(field, product, tiles, error) from error

    def _read_shards(
        self, field: str, product: str, window: Window, tiles: list[tuple[int, int]]
    ) -> NDArray[Any]:
        """Read a window from the files of its shards."""
        layout = self.layout(field, product)
        side = layout.core
        out = np.empty(window.shape, layout.dtype)
        for row, column in tiles:
            y0, y1 = max(window.y0, row * side), min(window.y1, (row + 1) * side)
            x0, x1 = max(window.x0, column * side), min(window.x1, (column + 1) * side)
            path = self.medium.locate(f"{ARRAYS}/{field}/{product}/c/{row}/{column}")
            rows = slice(y0 - row * side, y1 - row * side)
            columns = slice(x0 - column * side, x1 - column * side)
            out[y0 - window.y0 : y1 - window.y0, x0 - window.x0 : x1 - window.x0] = read_shard(
                path, layout, rows, columns
            )
        return out

    def _tiles_of(self, field: str, window: Window) -> list[tuple[int, int]]:
        """Row and column of each tile that a window touches."""
        if 0 in window.shape:
            return []
        side = self.core(field)
        rows = range(window.y0 // side, (window.y1 - 1) // side + 1)
        columns = range(window.x0 // side, (window.x1 - 1) // side + 1)
        return [(row, column) for row in rows for column in columns]

    def _check_shard(self, field: str, product: str, tile: tuple[int, int]) -> None:
        """Compare a shard's size with that in its commit."""
        name = f"{tile[0]}_{tile[1]}"
        path = f"{ARRAYS}/{field}/{product}/c/{tile[0]}/{tile[1]}"
        wanted = self._committed_size(field, product, name, path)
        stage = self._writers.get((field, product), "")
        if wanted is None:
            cause = f"no commit vouches for this tile of {product!r}"
        else:
            size = self.medium.measure([path])[path]
            if size == wanted:
                return
            state = "is missing" if size is None else f"has {size} bytes, {wanted} were written"
            cause = f"the shard {path} {state}"
        raise DamagedError(cause, AGAIN, field=field, tile=name, stage=stage)

    def _committed_size(self, field: str, product: str, tile: str, path: str) -> int | None:
        """Return the size that the commit of a shard gives, looking first where it was last time."""
        last = self._writers.get((field, product))
        stages = self.medium.list_folder(f"units/{field}") if last is None else [last]
        for stage in stages:
            commit = read_commit(self, Unit(field, stage, tile))
            if commit is not None and path in commit.files:
                self._writers[field, product] = stage
                return int(commit.files[path]["size"])
        return None

    def _find_damage(
        self, field: str, product: str, tiles: list[tuple[int, int]], error: Exception
    ) -> StoreError:
        """Find the tile whose shard cannot be decoded, by decoding each."""
        array = self._open(field, product)
        side = self.core(field)
        stage = self._writers.get((field, product), "")
        for row, column in tiles:
            try:
                array[row * side : (row + 1) * side, column * side : (column + 1) * side]
            except Exception as found:
                return DamagedError(
                    f"the stored {product!r} differs from its checksum ({found})",
                    REPAIR,
                    field=field,
                    tile=f"{row}_{column}",
                    stage=stage,
                )
        return StoreError(f"cannot read {product!r}: {error}", AGAIN, field=field, stage=stage)


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a Zarr group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _same_layout(held: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether stored shards can still be read with new metadata."""
    return {**held, "attributes": {}} == {**wanted, "attributes": {}}
