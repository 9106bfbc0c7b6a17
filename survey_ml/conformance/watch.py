"""Watch a stage while it runs: its inputs, files, sockets and what else it could change."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.engine.work import StageWork
from survey_ml.engine.worker import Worker
from survey_ml.products import Product
from survey_ml.stage import Inputs, Stage, Table

_HARMLESS = ("NUMBA_CACHE_DIR", "KMP_")
"""Beginnings of variables that libraries set when they are first imported."""
Digests = dict[str, str]
"""Product, or product and column, to the hash of its bytes."""


class Watch:
    """What a stage did beside returning its outputs; one a process.

    Attributes
    ----------
    noted : dict
        Name of a check to what was seen against it, each once.
    """

    def __init__(self) -> None:
        self.noted: dict[str, dict[str, None]] = {}
        self._active = False
        self._place = Path.cwd()
        sys.addaudithook(self._hear)

    def note(self, check: str, what: str) -> None:
        """Note something that a check is against."""
        self.noted.setdefault(check, {})[what] = None

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event == "open" and isinstance(arguments[0], str | bytes):
            self._hear_open(os.fsdecode(arguments[0]), arguments[1], arguments[2])
        elif event == "socket.__new__" and arguments[1] in (socket.AF_INET, socket.AF_INET6):
            self.note("no_network", "opens a network socket")
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            self._refuse(f"looks up {arguments[0]}")
        elif event in ("socket.connect", "socket.bind", "socket.sendto") and isinstance(arguments[1], tuple):
            self._refuse(f"{event.partition('.')[2]} {arguments[1][0]}:{arguments[1][1]}")

    def _refuse(self, what: str) -> None:
        self.note("no_network", what)
        raise PermissionError(f"a stage has no network ({what})")

    def _hear_open(self, name: str, mode: str | None, flags: int | None) -> None:
        writes = any(letter in (mode or "") for letter in "wax+") or bool(
            (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        path = Path(os.path.abspath(name))  # noqa: PTH100 (resolve would follow links, and opens files)
        if writes and path.is_relative_to(self._place):
            self.note("no_files", f"writes {path.relative_to(self._place)}")

    @contextmanager
    def running(self, *, environment: bool = True) -> Iterator[None]:
        """Watch what runs inside; imports may set up their library's ``environment``."""
        before = _look_around() if environment else {}
        self._active = True
        try:
            yield
        finally:
            self._active = False
            after = _look_around() if environment else {}
            for name in sorted(before.keys() | after.keys()):
                if before.get(name) != after.get(name):
                    self.note("environment", f"changes {name}")
            for path in sorted(self._place.iterdir()):
                self.note("no_files", f"writes {path.name}")


def _look_around() -> dict[str, str]:
    """Return the state of what a stage could change in its process."""
    found = {
        f"the variable {name}": value for name, value in os.environ.items() if not name.startswith(_HARMLESS)
    }
    found["the working directory"] = str(Path.cwd())
    found["the state of random"] = hash_bytes(repr(random.getstate()).encode())
    found["the state of numpy.random"] = hash_bytes(repr(np.random.get_state()).encode())  # noqa: NPY002
    found["numpy's error handling"] = repr(np.geterr())
    return found


class WatchedWorker(Worker):
    """A worker that watches the stage it calls."""

    def __init__(self, out: str, watch: Watch) -> None:
        super().__init__(out)
        self._watch = watch

    def _stage(self, work: StageWork) -> Stage:
        with self._watch.running(environment=False):
            return super()._stage(work)

    def call(self, stage: Stage, inputs: Inputs, work: StageWork) -> Mapping[str, Any]:
        """Run a stage and hold its inputs against what they were."""
        before = hash_inputs(inputs)
        with self._watch.running():
            outputs = super().call(stage, inputs, work)
        after = hash_inputs(inputs)
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                self._watch.note("inputs_unchanged", f"changes {name}")
        return outputs


def hash_bytes(value: bytes) -> str:
    """Return a short hash."""
    return hashlib.sha256(value).hexdigest()[:16]


def hash_array(value: NDArray[Any]) -> str:
    """Return a hash of dtype, shape and bytes; of the items where they are objects."""
    head = f"{value.dtype} {value.shape} ".encode()
    if value.dtype.kind in "OT":
        return hash_bytes(head + json.dumps(value.tolist(), default=repr).encode())
    return hash_bytes(head + np.ascontiguousarray(value).tobytes())


def hash_inputs(inputs: Inputs) -> Digests:
    """Hash what a stage is given; lazy arrays are in the store, out of its reach."""
    found: Digests = {}
    for name, value in inputs.arrays.items():
        if isinstance(value, np.ndarray):
            found[f"array {name}"] = hash_array(value)
    for name, table in inputs.tables.items():
        for column, value in table.items():
            found[f"column {column} of {name}"] = hash_array(np.asarray(value))
    for name, value in inputs.summaries.items():
        found[f"summary {name}"] = hash_bytes(json.dumps(value, default=repr).encode())
    return found


def hash_outputs(
    arrays: Mapping[str, NDArray[Any]],
    tables: Mapping[str, tuple[Table, Product]],
    summaries: Mapping[str, Any],
) -> Digests:
    """Hash what a stage returned, product by product."""
    found = {name: hash_array(value) for name, value in arrays.items()}
    for name, (table, _) in tables.items():
        found |= {f"{name}.{column}": hash_array(np.asarray(value)) for column, value in table.items()}
    # A commit sorts the keys of a summary.
    return found | {
        name: hash_bytes(json.dumps(value, sort_keys=True).encode()) for name, value in summaries.items()
    }
