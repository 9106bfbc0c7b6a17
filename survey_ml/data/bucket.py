"""A release on an object store (S3 and whatever else fsspec opens): a PUT is whole or absent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec

from survey_ml.data.disk import MARKER
from survey_ml.data.failures import describe_failure
from survey_ml.errors import StoreError

if TYPE_CHECKING:
    from zarr.abc.store import Store

_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_AT_ONCE = 16
"""Requests in flight together."""

Question = TypeVar("Question")
Answer = TypeVar("Answer")

# By name, so that nothing is imported before the first URL: everything in this package that opens
# s3:// through fsspec, the reading of images included, has the same patience.
for _protocol in ("s3", "s3a"):
    fsspec.register_implementation(_protocol, "survey_ml.data.s3.S3Files", clobber=True)


def open_files(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it.

    Raises
    ------
    ImportError, ValueError
        When nothing is installed that knows the protocol.
    """
    # A listing that is remembered would hide what other workers commit.
    options: dict[str, Any] = {"use_listings_cache": False}
    files, path = fsspec.core.url_to_fs(url, **options)
    return files, str(path)


class Bucket:
    """The same operations as `survey_ml.data.disk.Disk`, on a URL.

    Credentials and the end point come from the environment, as for every S3 client
    (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``, ``AWS_REGION`` ...).

    Parameters
    ----------
    url : str
        Such as ``s3://bucket/release``.
    """

    def __init__(self, url: str) -> None:
        self.root = url.rstrip("/")
        self._greeted = False
        protocol = url.partition("://")[0]
        try:
            self._files, self._base = open_files(self.root)
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"cannot open {url}: {error}", f"Install the client of {protocol}://, such as survey-ml[s3]."
            ) from error
        except OSError as error:  # some connect at once
            failure = describe_failure(error, url, "open")
            raise StoreError(failure.message, "Check its name, and that it answers.") from error

    def locate(self, path: str) -> str:
        """Return the URL of a path."""
        return f"{self.root}/{path}"

    def _full(self, path: str) -> str:
        return f"{self._base}/{path}"

    def _relative(self, full: str) -> str:
        return full.removeprefix("/").removeprefix(self._base.removeprefix("/") + "/")

    def prepare(self) -> None:
        """Check that the place can be written.

        Raises
        ------
        StoreError
            When it cannot.
        """
        self.greet()
        self.replace(".probe", b"survey_ml")
        self.remove(".probe")

    def retract(self) -> None:
        """Do nothing: a prefix that holds no object is none."""

    def greet(self) -> None:
        """Look whether the store answers, once; it is not waited for as long as in the midst of work.

        Raises
        ------
        StoreError
            When it does not.
        """
        if self._greeted or not hasattr(self._files, "greet"):
            return
        try:
            self._files.greet(self._base)
        except Exception as error:
            failure = describe_failure(error, self.root, "open")
            hint = "Check the name, and AWS_ENDPOINT_URL, AWS_REGION and the keys in the environment."
            raise StoreError(failure.message, hint) from error
        self._greeted = True

    def read(self, path: str) -> bytes | None:
        """Return the bytes of an object; None when there is none."""
        try:
            return bytes(self._files.cat_file(self._full(path)))
        except _MISSING:
            return None
        except Exception as error:
            raise describe_failure(error, self.locate(path), "read") from error

    def measure(self, paths: Sequence[str]) -> dict[str, int | None]:
        """Return the size of each object; None for those that are missing."""
        try:
            found = self._ask_all([self._full(path) for path in paths])
        except Exception as error:
            raise describe_failure(error, self.root, "read") from error
        sizes: dict[str, int | None] = {}
        for path, answer in zip(paths, found, strict=True):
            if isinstance(answer, _MISSING):
                sizes[path] = None
            elif isinstance(answer, BaseException):
                raise describe_failure(answer, self.locate(path), "read") from answer
            else:
                sizes[path] = int(answer["size"])
        return sizes

    def _ask_all(self, paths: Sequence[str]) -> list[Any]:
        """Return the description of each object, or the exception; many requests in flight."""

        def ask(path: str) -> Any:
            try:
                return self._files.info(path)
            except Exception as error:
                return error

        return _at_once(ask, paths)

    def digest(self, path: str) -> str | None:
        """Return the SHA-256 of an object; None when it is missing."""
        data = self.read(path)
        return None if data is None else hashlib.sha256(data).hexdigest()

    def list_folder(self, path: str) -> list[str]:
        """Return the names under a prefix, sorted."""
        try:
            entries = self._files.ls(self._full(path), detail=False)
        except _MISSING:
            return []
        except Exception as error:
            raise describe_failure(error, self.locate(path), "read") from error
        names = {self._relative(str(entry)).rstrip("/").rpartition("/")[2] for entry in entries}
        return sorted(name for name in names if name)

    def replace(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Put an object; it is durable once the store has answered."""
        try:
            self._files.pipe_file(self._full(path), data)
        except Exception as error:
            raise describe_failure(error, self.locate(path)) from error

    def remove(self, path: str) -> None:
        """Remove an object, or all under a prefix, markers first."""
        try:
            full = self._full(path)
            found = [str(name) for name in self._files.find(full)]
            found.sort(key=lambda name: not name.endswith(f"/{MARKER}"))
            markers = [name for name in found if name.endswith(f"/{MARKER}")]
            # Nothing may vouch for what is already half gone.
            _at_once(self._files.rm_file, markers)
            _at_once(self._files.rm_file, found[len(markers) :])
        except _MISSING:
            return
        except Exception as error:
            raise describe_failure(error, self.locate(path), "remove") from error

    def create(self, path: str, data: bytes) -> bool:
        """Put an object only if there is none; False when there is one with other content.

        A store may carry a request out and lose the answer; the client then asks again and finds
        its own object. So what is found is compared with what was sent.
        """
        try:
            self._files.pipe_file(self._full(path), data, mode="create")
        except FileExistsError:
            return self.read(path) == data
        except Exception as error:
            raise describe_failure(error, self.locate(path)) from error
        return True

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        """Return an object with a tag that changes whenever it does; None when there is none."""
        try:
            if hasattr(self._files, "fetch"):
                data, tag = self._files.fetch(self._full(path))
                return data, tag
        except _MISSING:
            return None
        except Exception as error:
            raise describe_failure(error, self.locate(path), "read") from error
        data = self.read(path)
        return None if data is None else (data, hashlib.sha256(data).hexdigest())

    def swap(self, path: str, data: bytes, tag: str) -> bool:
        """Put an object in place of the one with this tag; False when that is not there any more.

        The store compares where it can (S3); elsewhere another writer may come in between.
        """
        if not hasattr(self._files, "fetch"):
            held = self.read_tagged(path)
            if held is None or held[1] != tag:
                return False
            self.replace(path, data)
            return True
        try:
            self._files.pipe_file(self._full(path), data, if_tag=tag)
        except FileExistsError:
            return False
        except Exception as error:
            raise describe_failure(error, self.locate(path)) from error
        return True

    def take(self, path: str, tag: str) -> None:
        """Remove an object if it still has this tag."""
        held = self.read_tagged(path)
        if held is not None and held[1] == tag:
            self.remove(path)

    def write_unit(
        self, folder: str, key: str, shards: Mapping[str, bytes], parts: Mapping[str, bytes], marker: bytes
    ) -> bool:
        """Commit a unit of work; see the commit protocol in ``docs/architecture.md``.

        Parameters and errors are those of `survey_ml.data.disk.Disk.write_unit`.
        """
        for name in self.list_folder(folder):
            self.remove(f"{folder}/{name}")
        for path, data in shards.items():
            self.replace(path, data)
        for name, data in parts.items():
            self.replace(f"{folder}/{key}/{name}", data)
        return self.create(f"{folder}/{key}/{MARKER}", marker)

    def walk_markers(
        self, field: str | None = None, stage: str | None = None
    ) -> Iterator[tuple[tuple[str, str, str, str], bytes]]:
        """Yield field, stage, tile and key of each commit, with the bytes of its marker."""
        prefix = "/".join(["units", *([field] if field else []), *([stage] if field and stage else [])])
        try:
            found = [str(path) for path in self._files.find(self._full(prefix))]
            names = [path for path in found if path.endswith(f"/{MARKER}")]
            places = {path: self._relative(path).split("/") for path in names}
            wanted = [path for path, parts in places.items() if not stage or parts[2] == stage]
            contents = dict(zip(wanted, _at_once(self._fetch_if_there, wanted), strict=True))
        except _MISSING:
            return
        except Exception as error:
            raise describe_failure(error, self.locate(prefix), "read") from error
        for path, data in contents.items():
            parts = places[path]
            if data is not None:
                yield (parts[1], parts[2], parts[3], parts[4]), data

    def _fetch_if_there(self, path: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(path))
        except _MISSING:
            return None

    def walk_files(self, path: str) -> Iterator[tuple[str, int]]:
        """Yield path and size of every object under a prefix."""
        try:
            found = self._files.find(self._full(path) if path else self._base, detail=True)
        except _MISSING:
            return
        except Exception as error:
            raise describe_failure(error, self.locate(path), "read") from error
        for name, entry in sorted(found.items()):
            yield self._relative(str(name)), int(entry.get("size") or 0)

    def clean(self) -> list[str]:
        """Nothing is ever aside on an object store; returns an empty list."""
        return []

    def open_zarr(self, path: str, *, read_only: bool = True) -> Store:
        """Return a Zarr store rooted at a prefix of the release."""
        from zarr.storage import FsspecStore

        if hasattr(self._files, "fetch"):
            from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

            files = AsyncFileSystemWrapper(self._files, asynchronous=True)
            return FsspecStore(files, path=self._full(path), read_only=read_only)
        options = {"use_listings_cache": False, "asynchronous": True}
        return FsspecStore.from_url(self.locate(path), storage_options=options, read_only=read_only)


def _at_once(work: Callable[[Question], Answer], questions: Sequence[Question]) -> list[Answer]:
    """Put many questions to the store together; the answers are in their order."""
    if len(questions) < 2:
        return [work(question) for question in questions]
    with ThreadPoolExecutor(min(_AT_ONCE, len(questions)), "bucket") as pool:
        return list(pool.map(work, questions))
