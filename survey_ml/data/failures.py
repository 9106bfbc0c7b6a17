"""Failures of the system told in words a user can act on."""

from __future__ import annotations

import errno

from survey_ml.errors import StoreError, UnreachableError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOWHERE = {errno.ENOENT, errno.ENOTDIR}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def describe_failure(error: BaseException, path: object, doing: str = "write") -> StoreError:
    """Return a `StoreError` that names the path, the cause and the remedy.

    Parameters
    ----------
    error : BaseException
        What the operating system or the object store answered.
    path : object
        What was being read or written.
    doing : str
        The verb of the message.
    """
    if isinstance(error, TimeoutError) and "://" in str(path):
        # The client has asked for as long as it is worth; see `survey_ml.data.s3`.
        hint = "Run the same command again when the store answers: what is committed is kept."
        return UnreachableError(f"cannot {doing} {path}: {error.strerror or error}", hint)
    number = getattr(error, "errno", None)
    cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if number in _FULL:
        hint = "Free space there (or raise the quota), then run the same command again: it goes on."
    elif number in _REFUSED or isinstance(error, PermissionError):
        hint = "Choose another `out`, or give yourself write permission on that folder."
    elif number == errno.EISDIR:
        hint = (
            f"Remove the folder {path}: a file of this name belongs there. Then run the same command again."
        )
    elif number in _NOWHERE:
        hint = "Check that the path of `out` exists and is a folder, then run the same command again."
    else:
        hint = "Run the same command again: what is committed is kept."
    return StoreError(f"cannot {doing} {path}: {cause}", hint)
