"""Faults that pass, faults that end a run, faults of one unit."""

from __future__ import annotations

import errno

import pytest
import trial

from survey_ml.data.failures import describe_failure
from survey_ml.engine.failures import classify, describe
from survey_ml.errors import DamagedError, InputError, StoreError


def wrap(error: OSError) -> StoreError:
    try:
        raise describe_failure(error, "/out/x") from error
    except StoreError as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EIO, "I/O error"), "passing"),
        (OSError(errno.ENOSPC, "no space", "/out/x"), "final"),
        (OSError(errno.EFBIG, "larger than ulimit -f", "/out/x"), "final"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "passing"),
        (TimeoutError(), "passing"),
        (FileNotFoundError(errno.ENOENT, "no file"), "unit"),
        (ValueError("bad"), "unit"),
        (InputError("bad data"), "unit"),
        (DamagedError("gone"), "unit"),
        (StoreError("the store answers 503"), "passing"),
    ],
)
def test_kinds(error, kind):
    assert classify(error) == kind


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, "final"), (errno.EROFS, "final"), (errno.EACCES, "final"), (errno.EIO, "passing")],
)
def test_what_the_store_wraps(number, kind):
    assert classify(wrap(OSError(number, "said so", "/out/x"))) == kind


def test_input_that_may_not_be_read_is_one_bad_field():
    error = InputError("/in/a.fits cannot be read")
    error.__cause__ = PermissionError(errno.EACCES, "permission denied")
    assert classify(error) == "unit"


def test_descriptions_name_path_and_remedy():
    cause, hint = describe(OSError(errno.ENOSPC, "no space", "/out/x"), trial.SMOOTH)
    assert "/out/x" in cause
    assert "the disk is full" in cause
    assert "same command" in hint
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        cause, hint = describe(error, trial.SMOOTH)
    assert "ZeroDivisionError: division by zero (test_failures.py:" in cause
    assert "smooth" in hint


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOENT, "exists and is a folder"), (errno.EROFS, "another `out`"), (errno.ENOSPC, "Free space")],
)
def test_hints_fit_the_cause(number, words):
    assert words in wrap(OSError(number, "said so", "/out/x")).hint
