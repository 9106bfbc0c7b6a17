"""A release on an object store (S3 and whatever else fsspec opens): a PUT is whole or absent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import fsspec
import fsspec.asyn

from survey_ml.data.disk import MARKER
from survey_ml.data.failures import describe_failure
from survey_ml.errors import StoreError

if TYPE_CHECKING:
    from zarr.abc.store import Store

_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class Bucket:
    """The same operations as `survey_ml.data.disk.Disk`, on a URL.

    Credentials and the end point come from the environment, as for every S3 client
    (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``, ``AWS_PROFILE`` ...).

    Parameters
    ----------
    url : str
        Such as ``s3://bucket/release``.
    """

    def __init__(self, url: str) -> None:
        self.root = url.rstrip("/")
        protocol = url.partition("://")[0]
        # A listing that is remembered would hide what other workers commit.
        options: dict[str, Any] = {"use_listings_cache": False}
        try:
            self._files, self._base = fsspec.core.url_to_fs(self.root, **options)
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"cannot open {url}: {error}", f"Install the client of {protocol}://, such as survey-ml[s3]."
            ) from error

    def locate(self, path: str) -> str:
        """Return the URL of a path."""
        return f"{self.root}/{path}"

    def _full(self, path: str) -> str:
        return f"{self._base}/{path}"

    def _relative(self, full: str) -> str:
        return full.removeprefix("/").removeprefix(self._base.removeprefix("/") + "/")

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Do nothing: object stores have no locks, and commits there bear two writers."""
        yield

    def prepare(self) -> None:
        """Check that the place can be written.

        Raises
        ------
        StoreError
            When it cannot.
        """
        self.replace(".probe", b"survey_ml")
        self.remove(".probe")

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
        """Return the description of each object, or the exception; all requests in flight together."""
        if not self._files.async_impl:
            answers: list[Any] = []
            for path in paths:
                try:
                    answers.append(self._files.info(path))
                except Exception as error:
                    answers.append(error)
            return answers

        async def gather() -> list[Any]:
            return await asyncio.gather(*(self._files._info(path) for path in paths), return_exceptions=True)

        return fsspec.asyn.sync(self._files.loop, gather)

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
            for name in found:
                self._files.rm_file(name)
        except _MISSING:
            return
        except Exception as error:
            raise describe_failure(error, self.locate(path), "remove") from error

    def _create(self, path: str, data: bytes) -> bool:
        """Put an object only if there is none; False when there is one with other content.

        A store may carry a request out and lose the answer; the client then asks again and finds
        its own object. So what is found is compared with what was sent.
        """
        full = self._full(path)
        try:
            self._files.pipe_file(full, data, mode="create")
        except FileExistsError:
            return self.read(path) == data
        except OSError as error:
            stored = self.read(path)
            if stored is None:
                raise describe_failure(error, self.locate(path)) from error
            return stored == data
        except Exception as error:
            raise describe_failure(error, self.locate(path)) from error
        return True

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
        return self._create(f"{folder}/{key}/{MARKER}", marker)

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
            # One request each, but all in flight together.
            contents = self._files.cat(wanted, on_error="omit") if wanted else {}
        except _MISSING:
            return
        except Exception as error:
            raise describe_failure(error, self.locate(prefix), "read") from error
        if isinstance(contents, bytes):
            contents = {wanted[0]: contents}
        for path, data in contents.items():
            parts = places.get(path) or self._relative(path).split("/")
            yield (parts[1], parts[2], parts[3], parts[4]), data

    def clean(self) -> list[str]:
        """Nothing is ever aside on an object store; returns an empty list."""
        return []

    def open_zarr(self, path: str, *, read_only: bool = True) -> Store:
        """Return a Zarr store rooted at a prefix of the release."""
        from zarr.storage import FsspecStore

        options = {"use_listings_cache": False, "asynchronous": True}
        return FsspecStore.from_url(self.locate(path), storage_options=options, read_only=read_only)
