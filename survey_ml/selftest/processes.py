"""Processes as ``/proc`` shows them: those that a command started, and what is left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_LOOK = 0.3
"""Seconds between two looks at a tree of processes."""
_MEMORY_LOOK = 10
"""Looks after which shared memory is looked at, too: a list of hundreds of lines a process."""


@dataclass(frozen=True)
class Process:
    """A process: its number, and its start in ticks, since numbers are used again."""

    pid: int
    born: str

    @property
    def command(self) -> str:
        """Command line, or the title that the process gave itself; empty when it has gone."""
        try:
            return (
                (PROC / str(self.pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            return ""

    @property
    def alive(self) -> bool:
        """Whether it is still there; one that only waits for its parent is not."""
        found = _read(self.pid)
        return found is not None and found[1] == self.born and found[2] not in "ZX"


def _read(pid: int) -> tuple[int, str, str] | None:
    """Return parent, start and state of a process."""
    try:
        # The name of the command is in brackets and may hold anything.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), fields[19], fields[0]


def can_look() -> bool:
    """Tell whether this system shows its processes."""
    return _read(os.getpid()) is not None


def find_process(pid: int) -> Process | None:
    """Return a live process by its number."""
    found = _read(pid)
    return None if found is None else Process(pid, found[1])


def list_below(pid: int) -> list[Process]:
    """Return all that a process has started, and what those have started, by number."""
    children: dict[int, list[Process]] = {}
    for name in os.listdir(PROC):  # noqa: PTH208 (a folder of thousands, several times a second)
        if name.isdigit() and (found := _read(int(name))) is not None:
            children.setdefault(found[0], []).append(Process(int(name), found[1]))
    below: list[Process] = []
    waiting = [pid]
    while waiting:
        more = children.pop(waiting.pop(), [])
        below += more
        waiting += [process.pid for process in more]
    return sorted(below, key=lambda process: process.pid)


class Herd:
    """All processes that belong to some commands, also those that outlive them; ended when it is left."""

    def __init__(self) -> None:
        self._roots: list[int] = []
        self._seen: set[Process] = set()
        self._memory: set[str] = set()
        self._looks = 0
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="selftest-herd", daemon=True)

    def __enter__(self) -> Herd:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._end.set()
        self._thread.join()
        self.kill()

    def add(self, pid: int) -> None:
        """Watch a command, too."""
        with self._lock:
            self._roots.append(pid)

    @property
    def roots(self) -> list[int]:
        """The commands, by number."""
        return list(self._roots)

    def look(self) -> None:
        """Take note of what there is now: before a kill, and every moment anyway."""
        with self._lock:
            for pid in self._roots:
                if (root := find_process(pid)) is not None and root.alive:
                    self._seen.update([root, *list_below(pid)])
            if self._looks % _MEMORY_LOOK == 0:
                for process in self._seen:
                    self._memory.update(_list_shared_memory(process.pid))
            self._looks += 1

    def find(self, word: str) -> list[Process]:
        """Return the live processes whose command has a word."""
        self.look()
        return sorted((p for p in self._seen if p.alive and word in p.command), key=lambda p: p.pid)

    def wait(self, seconds: float) -> list[Process]:
        """Wait for all of them to end; return those that are still there after a while."""
        end = time.monotonic() + seconds
        while (left := [p for p in self._seen if p.alive]) and time.monotonic() < end:
            time.sleep(0.1)
        return sorted(left, key=lambda process: process.pid)

    def kill(self) -> None:
        """End all that is still there."""
        for process in self._seen:
            if process.alive:
                with contextlib.suppress(OSError):
                    os.kill(process.pid, signal.SIGKILL)

    def list_shared_memory(self) -> list[str]:
        """Return the files in shared memory that they held and that are still there."""
        return sorted(path for path in self._memory if Path(path).exists())

    def _watch(self) -> None:
        while not self._end.wait(_LOOK):
            self.look()


def _list_shared_memory(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "maps").read_text(errors="replace").splitlines():
            _, found, path = line.partition(" /dev/shm/")
            if found and not path.endswith("(deleted)"):
                yield f"/dev/shm/{path}"  # noqa: S108 (only looked at)
