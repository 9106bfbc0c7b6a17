"""Files as streams of bytes, and how they are packed: by what they begin with, since names may lie."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from survey_ml.errors import InputError

GZIP = b"\x1f\x8b"
PACKED = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
    b"\x1f\x9d": "compress",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""How files of other compressions begin; FITS libraries would unpack some, but not by window."""


_KINDS = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def require_regular(path: str | os.PathLike[str]) -> None:
    """Make sure that a path, after following links, is not something that opening waits on for ever.

    Of URLs, and of what is not there or may not be looked at, nothing is said: opening it will.

    Raises
    ------
    InputError
        When it is a named pipe, a socket, a device or a folder.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except OSError:
        return
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "special file")
        raise InputError(
            f"{path} is a {kind}, not a regular file", "Leave it out, or give the path of an image file."
        )


@contextmanager
def open_raw(path: str) -> Iterator[IO[bytes]]:
    """Open a path or URL as a stream of its bytes."""
    if "://" in path:
        import fsspec

        with fsspec.open(path, "rb") as remote:
            yield remote
    else:
        with Path(path).open("rb") as file:
            yield file


def is_gzipped(path: str) -> bool:
    """Tell whether a file is gzipped.

    Raises
    ------
    InputError
        When it is not there, may not be read, is no regular file, or is packed in another way.
    """
    try:
        require_regular(path)
        with open_raw(path) as file:
            start = file.read(8)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}", "Correct the path in the YAML.") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read", "Give yourself read permission.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}", "Correct the path, or copy it again.") from error
    for magic, program in PACKED.items():
        if start.startswith(magic):
            raise InputError(f"{path} is compressed by {program}", f"Unpack it with {program}, or use fpack.")
    return start.startswith(GZIP)
