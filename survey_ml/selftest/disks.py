"""Faults of the disk: full, a limit to the size of files, not writable any more."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar

from survey_ml.selftest.command import Command, Ended
from survey_ml.selftest.fault import Fault, is_root

_SIZE = "256m"
"""Of the small disk while it has room."""


def _mount(*arguments: str) -> str:
    """Call mount; return what it complains about."""
    if not is_root() or not shutil.which("mount"):
        return "only root can mount a small disk"
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip() or "mount failed").splitlines()[-1]


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def _explain_refusal() -> str:
    """Say why this system lets us mount nothing; empty when it does."""
    with tempfile.TemporaryDirectory(prefix="selftest-") as folder:
        wrong = _mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
        if not wrong:
            _unmount(Path(folder))
    return wrong


class _Disk(Fault):
    """The run stops, and says what and where."""

    engine = "local"
    words: ClassVar[tuple[str, ...]] = ()

    def judge(self, command: Command, ends: list[Ended]) -> str:
        """Look for the path and for what the system said in what the run told."""
        first = ends[0]
        if first.code in (1, 2) and any(word in first.errors for word in self.words):
            return "" if command.out in first.errors else "the message does not name the path"
        return f"the first run ended with {first.code} and did not say {self.words[0]!r}"


class FullDisk(_Disk):
    """No space left."""

    name, summary = "full-disk", "no space left on the disk of the release"
    words = ("No space left",)

    def miss(self) -> str:
        """See `Fault.miss`."""
        return _explain_refusal() or super().miss()

    def prepare(self, command: Command, rng: Random) -> None:
        """Put the release on a disk of its own."""
        folder = command.folder / "disk"
        folder.mkdir()
        if wrong := _mount("-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder)):
            raise OSError(wrong)
        self.folder = folder
        command.out = str(folder / "out")

    def strike(self, command: Command, rng: Random) -> str:
        """Make the disk as small as what is on it, or a little larger.

        The run writes on meanwhile, and a disk cannot be made smaller than what is on it: hence again.
        """
        pages = rng.randrange(6)
        while command.running:
            state = os.statvfs(self.folder)
            room = pages * state.f_frsize
            size = (state.f_blocks - state.f_bfree) * state.f_frsize + room
            if not _mount("-o", f"remount,size={size}", str(self.folder)):
                return f"{room} bytes left"
        return ""

    def mend(self, command: Command) -> None:
        """Make room."""
        _mount("-o", f"remount,size={_SIZE}", str(self.folder))

    def clear(self, command: Command) -> None:
        """See `Fault.clear`."""
        if hasattr(self, "folder"):
            _unmount(self.folder)


class FileLimit(_Disk):
    """Files may not grow: what a quota or ``ulimit -f`` does."""

    name, summary = "file-limit", "no file may be longer than 1 kB any more (RLIMIT_FSIZE)"
    words = ("File too large",)

    def miss(self) -> str:
        """See `Fault.miss`."""
        import resource

        return super().miss() if hasattr(resource, "prlimit") else "this system sets no limits from outside"

    def strike(self, command: Command, rng: Random) -> str:
        """Set the limit of the command at work."""
        import resource

        if command.process is None or not command.running:
            return ""
        with suppress(ProcessLookupError):
            _, hard = resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (1024, hard))
            return f"limit of process {command.process.pid} is 1024 bytes"
        return ""


@dataclass
class ReadOnly(_Disk):
    """Nothing can be written any more."""

    name: ClassVar[str] = "read-only"
    summary: ClassVar[str] = "the disk of the release becomes read-only"
    words: ClassVar = ("Read-only file system", "Permission denied")

    def miss(self) -> str:
        """See `Fault.miss`."""
        return (_explain_refusal() if is_root() else "") or super().miss()

    def strike(self, command: Command, rng: Random) -> str:
        """Put a read-only view of the same folder over it; without root, take the permission away."""
        out = Path(command.out)
        if not is_root():
            for folder in [out, *(p for p in out.rglob("*") if p.is_dir())]:
                folder.chmod(0o555)
            return "no folder may be written"
        if _mount("--bind", str(out), str(out)) or _mount("-o", "remount,bind,ro", str(out)):
            return ""
        return "mounted read-only"

    def mend(self, command: Command) -> None:
        """Make it writable again."""
        out = Path(command.out)
        if is_root():
            _unmount(out)
        else:
            for folder in [out, *(p for p in out.rglob("*") if p.is_dir())]:
                folder.chmod(0o755)

    def clear(self, command: Command) -> None:
        """See `Fault.clear`."""
        if is_root() and os.path.ismount(command.out):
            _unmount(Path(command.out))
