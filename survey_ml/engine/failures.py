"""Tell apart faults that pass, faults that end a run, and faults of one unit."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from typing import Literal

from survey_ml.errors import DamagedError, LeaseError, StoreError, SurveyMLError, UnreachableError
from survey_ml.stage import StageSpec

FaultKind = Literal["passing", "final", "unit"]

_FINAL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "files may not be so large here (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}
_PASSING = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.EIO,
    errno.EMFILE,
    errno.ENETUNREACH,
    errno.ENFILE,
    errno.EPIPE,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    seen: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        yield here
        here = here.__cause__ or here.__context__


def classify(error: BaseException) -> FaultKind:
    """Say what kind of fault an error is.

    Returns
    -------
    str
        ``passing``: a read or write that may work the next time; ``final``: the store takes no
        more, so every other unit would fail alike; ``unit``: this unit's data or code.
    """
    if isinstance(error, DamagedError):
        return "unit"
    if isinstance(error, LeaseError | UnreachableError):
        return "final"
    numbers = [e.errno for e in _chain(error) if isinstance(e, OSError) and e.errno is not None]
    if any(number in _FINAL for number in numbers):
        # Only the store's own errors end a run; an input that may not be read is one bad field.
        return "final" if isinstance(error, StoreError | OSError) else "unit"
    if isinstance(error, StoreError):
        return "passing"
    if isinstance(error, SurveyMLError):
        return "unit"
    if isinstance(error, TimeoutError | ConnectionError):
        return "passing"
    return "passing" if isinstance(error, OSError) and error.errno in _PASSING else "unit"


def describe(error: BaseException, spec: StageSpec) -> tuple[str, str]:
    """Return cause and hint of an error, for somebody who did not write the stage."""
    if isinstance(error, SurveyMLError):
        return error.message, error.hint
    if classify(error) == "final":
        assert isinstance(error, OSError)
        what = _FINAL[next(e.errno for e in _chain(error) if isinstance(e, OSError) and e.errno in _FINAL)]
        place = error.filename or "the release"
        return (
            f"{place} cannot be written: {what}",
            "make room or set `out` to another place, then run the same command again: it goes on from here",
        )
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    if isinstance(error, MemoryError):
        return f"out of memory{where}", "set a smaller tiling.core_px, or run on a machine with more memory"
    return f"{type(error).__name__}: {error}{where}", f"this is a fault of stage {spec.name} ({spec.factory})"
