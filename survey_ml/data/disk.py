"""A release on a file system: whole files only, in an order that survives a crash at any point."""

# ruff: noqa: PTH102, PTH104, PTH106, PTH108, PTH110, PTH112, PTH113, PTH116, PTH120, PTH208
# Plain strings: this runs some twenty times a tile, and Path objects cost more than the calls.

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from survey_ml.data.failures import describe_failure
from survey_ml.errors import StoreError

if TYPE_CHECKING:
    from zarr.abc.store import Store

logger = logging.getLogger(__name__)

MARKER = "_COMMIT.json"
ASIDE = ".tmp-"
"""Prefix of whatever is not yet, or no longer, part of the release."""
_READ = os.O_RDONLY | os.O_NONBLOCK
"""A named pipe in the place of a file holds nobody up: it reads as empty."""
_LOCK_SECONDS = 5.0
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def _sync_folder(path: str) -> None:
    """Make names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_folder(path: str) -> list[str]:
    """Create a folder, make each new name on the way durable, and return the folders that are new."""
    made = _make_names(path)
    for folder in made:
        _sync_folder(os.path.dirname(folder))
    return made


def _make_names(path: str) -> list[str]:
    """Create a folder and return the folders that are new, outermost first; not durable yet."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
    return missing[::-1]


def _write_file(path: str, data: bytes) -> None:
    """Write a file and make its bytes durable."""
    handle = _write_open(path, data)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_open(path: str, data: bytes) -> int:
    """Write a file and return its handle; its bytes are not durable yet."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
    except BaseException:
        os.close(handle)
        raise
    return handle


_pool: ThreadPoolExecutor | None = None
_SYNCS = 8
"""Calls of fsync that wait at once."""


def _forget_pool() -> None:
    """Leave the threads of a parent process to it."""
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)


def _sync_all(handles: Sequence[int], folders: Iterable[str] = ()) -> None:
    """Make files and the names in folders durable, and wait once for all of it.

    A disk takes as long for several calls at once as for one: a journal that is written for one of
    them holds the others too.
    """
    global _pool
    calls = [partial(os.fsync, handle) for handle in handles]
    calls += [partial(_sync_folder, folder) for folder in folders]
    if len(calls) < 2:
        for call in calls:
            call()
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(_SYNCS, thread_name_prefix="survey-ml-sync")
    waiting = [_pool.submit(call) for call in calls]
    # All must have ended before a handle is closed, also where one has failed.
    wait(waiting)
    for one in waiting:
        one.result()


class Disk:
    """The folder of a release. Paths are relative to it, with forward slashes.

    Parameters
    ----------
    root : str
        Absolute path of the release.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._made: list[str] = []
        """Folders that `prepare` had to make, outermost first."""

    def locate(self, path: str) -> str:
        """Return the absolute path."""
        return f"{self.root}/{path}"

    def prepare(self) -> None:
        """Create the release's folder.

        Raises
        ------
        StoreError
            When it cannot be created or written.
        """
        try:
            if os.path.exists(self.root) and not os.path.isdir(self.root):
                raise StoreError(f"{self.root} is a file, not a folder", "Choose another `out`.")
            self._made += _make_folder(self.root)
            probe = self.locate(f"{ASIDE}{uuid.uuid4().hex}")
            _write_file(probe, b"survey_ml")
            os.unlink(probe)
        except OSError as error:
            raise describe_failure(error, self.root) from error

    def retract(self) -> None:
        """Take away the folders that `prepare` made, as far as nothing is in them."""
        while self._made:
            try:
                os.rmdir(self._made.pop())
            except OSError:
                self._made.clear()

    def greet(self) -> None:
        """Do nothing: a folder answers at once."""

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a file; None when there is none."""
        try:
            handle = os.open(self.locate(path), _READ)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise describe_failure(error, self.locate(path), "read") from error
        try:
            size = os.fstat(handle).st_size
            data = os.read(handle, size + 1)
            while len(data) < size:
                more = os.read(handle, size - len(data))
                if not more:
                    break
                data += more
            return data
        except OSError as error:
            raise describe_failure(error, self.locate(path), "read") from error
        finally:
            os.close(handle)

    def measure(self, paths: Sequence[str]) -> dict[str, int | None]:
        """Return the size of each file; None for those that are missing."""
        sizes: dict[str, int | None] = {}
        for path in paths:
            try:
                sizes[path] = os.stat(self.locate(path)).st_size
            except OSError:
                sizes[path] = None
        return sizes

    def digest(self, path: str) -> str | None:
        """Return the SHA-256 of a file; None when it is missing."""
        try:
            with os.fdopen(os.open(self.locate(path), _READ), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise describe_failure(error, self.locate(path), "read") from error

    def list_folder(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; empty when there is no such folder."""
        try:
            return sorted(os.listdir(self.locate(path)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise describe_failure(error, self.locate(path), "read") from error

    def replace(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Put a small file in place whole: aside, fsync, rename, fsync of the folder."""
        target = self.locate(path)
        folder, _, name = target.rpartition("/")
        aside = f"{folder}/{ASIDE}{name}-{uuid.uuid4().hex}"
        try:
            _make_folder(folder)
            if durable:
                _write_file(aside, data)
            else:
                Path(aside).write_bytes(data)
            os.rename(aside, target)
            if durable:
                _sync_folder(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise describe_failure(error, target) from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others of this kernel out of a few lines: for comparing and replacing in one.

        Where a file system knows no locks, and where the one inside was suspended there, it goes on
        without: then the few microseconds are a risk.
        """
        handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            end = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        break
                    time.sleep(0.01)
                except OSError as error:
                    logger.debug("no locks on %s: %s", self.root, error)
                    break
            yield
        finally:
            os.close(handle)

    def create(self, path: str, data: bytes) -> bool:
        """Put a small file in place whole, only if there is none; False when there is one."""
        target = self.locate(path)
        aside = f"{target.rpartition('/')[0]}/{ASIDE}{uuid.uuid4().hex}"
        try:
            with self._alone():
                if os.path.exists(target):
                    return False
                _write_file(aside, data)
                try:
                    # A link, unlike a rename, replaces nothing, on network file systems too.
                    os.link(aside, target)
                except FileExistsError:
                    return False
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    os.rename(aside, target)
                finally:
                    with contextlib.suppress(OSError):
                        os.unlink(aside)
        except OSError as error:
            raise describe_failure(error, target) from error
        return True

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        """Return a file with a tag that changes whenever it does; None when there is none."""
        data = self.read(path)
        return None if data is None else (data, hashlib.sha256(data).hexdigest())

    def swap(self, path: str, data: bytes, tag: str) -> bool:
        """Put a file in place of the one with this tag; False when that is not there any more."""
        try:
            with self._alone():
                held = self.read_tagged(path)
                if held is None or held[1] != tag:
                    return False
                self.replace(path, data)
        except OSError as error:
            raise describe_failure(error, self.locate(path)) from error
        return True

    def take(self, path: str, tag: str) -> None:
        """Remove a file if it still has this tag."""
        try:
            with self._alone():
                held = self.read_tagged(path)
                if held is not None and held[1] == tag:
                    self.remove(path)
        except OSError as error:
            raise describe_failure(error, self.locate(path), "remove") from error

    def remove(self, path: str) -> None:
        """Remove a file or folder at once: renamed aside, then deleted at leisure."""
        target = self.locate(path)
        folder, _, name = target.rpartition("/")
        aside = f"{folder}/{ASIDE}old-{name}-{uuid.uuid4().hex}"
        try:
            os.rename(target, aside)
            _sync_folder(folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise describe_failure(error, target, "remove") from error
        finally:
            if os.path.isdir(aside):
                shutil.rmtree(aside, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(aside)

    def write_unit(
        self, folder: str, key: str, shards: Mapping[str, bytes], parts: Mapping[str, bytes], marker: bytes
    ) -> bool:
        """Commit a unit of work; see the commit protocol in ``docs/architecture.md``.

        Parameters
        ----------
        folder : str
            ``units/FIELD/STAGE/TILE``.
        key : str
            Key of the unit: the name of its folder.
        shards : mapping
            Path of each shard to its bytes.
        parts : mapping
            File name of each table part to its bytes.
        marker : bytes
            Content of ``_COMMIT.json``.

        Returns
        -------
        bool
            False when a commit with this key was found in place at the end: ours was thrown away.

        Raises
        ------
        StoreError
            When anything could not be written; then there is no commit.
        """
        place = self.locate(folder)
        token = uuid.uuid4().hex
        aside = f"{place}/{ASIDE}{key[:16]}-{token}"
        waiting: dict[str, str] = {}
        handles: list[int] = []
        doing = aside
        try:
            named = {*map(os.path.dirname, _make_names(place)), aside}
            os.mkdir(aside)
            for path, data in shards.items():
                target = self.locate(path)
                array, _, chunk = target.rpartition("/c/")
                doing = target.rpartition("/")[0]
                named.update(map(os.path.dirname, _make_names(doing)))
                doing = waiting[target] = f"{array}/{ASIDE}{token}-{chunk.replace('/', '.')}"
                handles.append(_write_open(doing, data))
            for name, data in [*parts.items(), (MARKER, marker)]:
                doing = f"{aside}/{name}"
                handles.append(_write_open(doing, data))
            _sync_all(handles, named)
            doing = place
            for name in self.list_folder(folder):
                if not name.startswith(ASIDE):
                    self.remove(f"{folder}/{name}")
            for target, source in waiting.items():
                doing = target
                os.rename(source, target)
            _sync_all((), {target.rpartition("/")[0] for target in waiting})
            doing = f"{place}/{key}"
            made = self._rename_unit(aside, doing)
            _sync_folder(place)
        except OSError as error:
            raise describe_failure(error, doing) from error
        finally:
            for handle in handles:
                os.close(handle)
            # After a success both are gone already; after a kill `clean` finds them.
            for source in waiting.values():
                with contextlib.suppress(OSError):
                    os.unlink(source)
            shutil.rmtree(aside, ignore_errors=True)
        return made

    @staticmethod
    def _rename_unit(aside: str, target: str) -> bool:
        """Put a unit's folder in place; False when another writer was faster."""
        try:
            os.rename(aside, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True

    def walk_markers(
        self, field: str | None = None, stage: str | None = None
    ) -> Iterator[tuple[tuple[str, str, str, str], bytes]]:
        """Yield field, stage, tile and key of each commit, with the bytes of its marker."""
        for field_name in [field] if field else self.list_folder("units"):
            for stage_name in [stage] if stage else self.list_folder(f"units/{field_name}"):
                base = self.locate(f"units/{field_name}/{stage_name}")
                try:
                    tiles = os.listdir(base)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                for tile in tiles:
                    if tile.startswith(ASIDE):
                        continue
                    for key in self.list_folder(f"units/{field_name}/{stage_name}/{tile}"):
                        if key.startswith(ASIDE):
                            continue
                        data = self.read(f"units/{field_name}/{stage_name}/{tile}/{key}/{MARKER}")
                        if data is not None:
                            yield (field_name, stage_name, tile, key), data

    def clean(self) -> list[str]:
        """Remove what killed writers left aside; call it when no other run is at work.

        Returns
        -------
        list of str
            The paths that were removed.
        """
        removed = self.list_aside()
        for path in removed:
            target = self.locate(path)
            if os.path.isdir(target):
                shutil.rmtree(target, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(target)
        return removed

    def list_aside(self) -> list[str]:
        """Return the paths of what lies aside, sorted; while a run is at work that is its work."""
        depths = {"": 0, "units": 4, "store.zarr": 3, "quarantine": 3, "catalogue": 1}
        return sorted(path for top, depth in depths.items() for path in self._find_aside(top, depth))

    def walk_files(self, path: str) -> Iterator[tuple[str, int]]:
        """Yield path and size of a file, or of every file in a folder."""
        target = self.locate(path).rstrip("/")
        if os.path.isfile(target):
            yield path, os.stat(target).st_size
        for folder, names, files in os.walk(target):
            names.sort()
            for name in sorted(files):
                full = f"{folder}/{name}"
                # What goes away meanwhile is not there.
                with contextlib.suppress(FileNotFoundError):
                    yield full.removeprefix(f"{self.root}/"), os.lstat(full).st_size

    def _find_aside(self, folder: str, depth: int) -> Iterator[str]:
        """Yield paths whose name starts with the aside prefix, at most ``depth`` folders down."""
        try:
            entries = sorted(os.scandir(self.locate(folder)), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise describe_failure(error, self.locate(folder), "read") from error
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith(ASIDE):
                yield path
            elif depth and entry.name != "c" and entry.is_dir(follow_symlinks=False):
                yield from self._find_aside(path, depth - 1)

    def open_zarr(self, path: str, *, read_only: bool = True) -> Store:
        """Return a Zarr store rooted at a folder of the release."""
        from zarr.storage import LocalStore

        return LocalStore(self.locate(path), read_only=read_only)
