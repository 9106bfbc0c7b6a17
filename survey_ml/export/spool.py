"""Rows that are too many for memory: they wait on disk, column by column, and are mapped from there.

What is mapped counts as memory of the process only while it is used: the system may drop it at any time.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from survey_ml.export.schema import fill_column, split_dtype
from survey_ml.products import Column

if TYPE_CHECKING:
    from survey_ml.data.store import ReleaseStore

BLOCK = 1 << 14
"""Rows held at once."""
_BUFFER = 1 << 16


def find_scratch(store: ReleaseStore) -> Path | None:
    """Return the folder in which rows may wait: the release's own, None for the system's."""
    from survey_ml.data.disk import Disk

    medium = store.medium
    return Path(medium.root) if isinstance(medium, Disk) else None


@contextlib.contextmanager
def open_scratch(scratch: Path | None) -> Iterator[Path]:
    """Give an empty folder, and remove it; what was mapped from it stays readable."""
    from survey_ml.data.disk import ASIDE

    try:
        name = tempfile.mkdtemp(prefix=f"{ASIDE}rows-", dir=scratch)
    except OSError:
        # A release that may only be read; its report can be made elsewhere.
        name = tempfile.mkdtemp(prefix="survey-ml-rows-")
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)


def list_blocks(n_rows: int) -> Iterator[slice]:
    """Yield the rows block by block; nothing where there are none."""
    for start in range(0, n_rows, BLOCK):
        yield slice(start, min(n_rows, start + BLOCK))


class Text:
    """A mapped column of strings; index it with an array of rows."""

    def __init__(self, array: pa.LargeStringArray) -> None:
        self._array = array

    def __getitem__(self, rows: Any) -> NDArray[np.str_]:
        chosen = self._array[rows] if isinstance(rows, slice) else self._array.take(pa.array(rows))
        values = chosen.to_numpy(zero_copy_only=False)
        return values.astype(np.str_) if len(values) else np.empty(0, "U1")


class Spool(contextlib.AbstractContextManager["Spool"]):
    """Columns that grow on disk; a context manager, which closes the files.

    Parameters
    ----------
    folder : Path
        An empty folder for one file a column.
    columns : sequence of Column
        What each row has.
    """

    def __init__(self, folder: Path, columns: Sequence[Column]) -> None:
        self._folder, self._columns = folder, tuple(columns)
        self.n_rows = 0
        self._open = contextlib.ExitStack()
        self._files: dict[str, IO[bytes]] = {}
        self._ends: dict[str, tuple[IO[bytes], int]] = {}
        folder.mkdir()
        for index, column in enumerate(self._columns):
            self._files[column.name] = self._create(f"{index}")
            if split_dtype(column.dtype)[0] == "string":
                ends = self._create(f"{index}.ends")
                ends.write(np.zeros(1, np.int64).tobytes())
                self._ends[column.name] = (ends, 0)

    def _create(self, name: str) -> IO[bytes]:
        return self._open.enter_context((self._folder / name).open("wb", buffering=_BUFFER))

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, rows: Mapping[str, NDArray[Any]], n_rows: int) -> None:
        """Append rows; a column that they lack is filled with what stands for nothing."""
        for column in self._columns:
            kind = split_dtype(column.dtype)[0]
            values = np.asarray(rows[column.name]) if column.name in rows else fill_column(column, n_rows)
            if kind == "string":
                self._add_text(column.name, values)
            else:
                self._files[column.name].write(np.ascontiguousarray(values, kind).tobytes())
        self.n_rows += n_rows

    def _add_text(self, name: str, values: NDArray[Any]) -> None:
        ends, last = self._ends[name]
        array = pa.array(values.tolist(), pa.large_string())
        _, places, data = array.buffers()
        if len(array):
            found = np.frombuffer(places, np.int64)[1 : len(array) + 1] + last
            ends.write(found.tobytes())
            if data is not None:
                self._files[name].write(memoryview(data)[: found[-1] - last])
            self._ends[name] = (ends, int(found[-1]))

    def map(self) -> dict[str, Any]:
        """Return each column, mapped: an array of shape (n,) or (n, d), or `Text`; once it is closed."""
        return {column.name: self._map(index, column) for index, column in enumerate(self._columns)}

    def _map(self, index: int, column: Column) -> Any:
        kind, length = split_dtype(column.dtype)
        if not self.n_rows:
            return fill_column(column, 0)
        path = self._folder / f"{index}"
        if kind != "string":
            shape = (self.n_rows, length) if length else (self.n_rows,)
            return np.memmap(path, np.dtype(kind), "r", shape=shape)
        ends = np.memmap(f"{path}.ends", np.int64, "r", shape=(self.n_rows + 1,))
        data = pa.memory_map(str(path)).read_buffer() if path.stat().st_size else pa.py_buffer(b"")
        buffers = [None, pa.py_buffer(ends), data]
        return Text(pa.Array.from_buffers(pa.large_string(), self.n_rows, buffers))


def map_table(schema: pa.Schema, blocks: Iterator[pa.Table], scratch: Path | None) -> pa.Table:
    """Write tables one after the other to disk and return them as one, mapped from there.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of all of them.
    blocks : iterator of pyarrow.Table
        Taken one at a time.
    scratch : Path or None
        Where to; see `find_scratch`.
    """
    with open_scratch(scratch) as folder:
        path = str(folder / "table.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for block in blocks:
                writer.write_table(block)
        return pa.ipc.open_file(pa.memory_map(path)).read_all()


def map_parquet(store: ReleaseStore, path: str) -> pa.Table:
    """Return a table of a release, decoded block by block to disk and mapped from there.

    Raises
    ------
    DamagedError
        When it is not there, or not a whole Parquet file.
    """
    import pyarrow.parquet as pq

    from survey_ml.data.commit import REPAIR
    from survey_ml.data.disk import Disk
    from survey_ml.errors import DamagedError

    medium = store.medium
    try:
        whole = isinstance(medium, Disk)
        source = medium.locate(path) if whole else pa.BufferReader(medium.read(path) or b"")
        with pq.ParquetFile(source) as file:
            blocks = (pa.Table.from_batches([batch]) for batch in file.iter_batches(BLOCK, use_threads=False))
            return map_table(file.schema_arrow, blocks, find_scratch(store))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError, ValueError) as error:
        raise DamagedError(f"{path} cannot be read: {error}", REPAIR) from error
