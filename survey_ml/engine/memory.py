"""What processes hold in memory, and whether the system killed one for it."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

_COUNTERS = ("/sys/fs/cgroup/memory.events", "/proc/vmstat")
"""Files with a line ``oom_kill N``: of this control group, and of the machine."""


def peak_memory() -> int:
    """Return the most memory this process has held so far, in bytes; 0 where it is unknown."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if platform.system() == "Darwin" else peak * 1024)


def resident_memory(pid: int | None = None) -> int:
    """Return the memory that a process of this machine holds now, in bytes; 0 where it is unknown.

    Parameters
    ----------
    pid : int, optional
        This process unless given.
    """
    try:
        with open(f"/proc/{pid or os.getpid()}/statm", "rb") as file:  # noqa: PTH123 (once a unit)
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return peak_memory() if pid is None else 0


def count_memory_kills() -> int:
    """Return how many processes the kernel of this machine has killed for want of memory so far."""
    found = 0
    for path in _COUNTERS:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    found = max(found, int(value))
    return found
