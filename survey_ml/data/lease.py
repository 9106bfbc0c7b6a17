"""Who works on a release: one record, renewed while the work lasts, taken over from the dead."""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import platform
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from survey_ml.data.stored_json import Kinds, decode_object
from survey_ml.errors import LeaseError, StoreError

if TYPE_CHECKING:
    from survey_ml.data.bucket import Bucket
    from survey_ml.data.disk import Disk

logger = logging.getLogger(__name__)

LEASE = "lease.json"
SECONDS = 60.0
"""How long a lease holds that is not renewed."""
_LONGEST = 86400.0
"""Seconds that a record may ask for; more is damage."""
_RENEWALS = 3
"""Renewals in that time: two may fail."""
_LOOKS = 20
"""Looks at another's record in that time."""
_CHALLENGES = 5
"""Times that a record may change hands under our eyes before we give up."""
_GONE = "another run, which has ended since"
"""Who took a lease over whose record is not there any more."""
_held: set[str] = set()
"""Runs of this process."""


@dataclass(frozen=True)
class Holder:
    """What the record says.

    Attributes
    ----------
    run : str
        Random name of the run: whose record it is.
    host, pid, user, command : str, int, str, str
        For people, and to find the process.
    started, renewed, expires : str
        UTC of the holder's clock; for people only, clocks differ.
    seconds : float
        Of the holder.
    machine, born : str
        Boot and process namespace of the machine, and start of the process: another process of the
        same number is not the holder.
    """

    run: str
    host: str
    pid: int
    user: str
    command: str
    started: str
    renewed: str
    expires: str
    seconds: float
    machine: str
    born: str

    def __str__(self) -> str:
        return f"{self.user}@{self.host}, process {self.pid}, since {self.started}: {self.command}"

    def encode(self) -> bytes:
        """Write it as JSON."""
        return json.dumps(asdict(self), indent=1).encode()


_KINDS: Kinds = {
    **{each.name: str for each in fields(Holder)},
    "pid": int,
    "seconds": (int, float),
}


def _decode(data: bytes) -> Holder | None:
    """Return what a record says; None where it is damaged."""
    values = decode_object(data, _KINDS)
    if values is None or values.keys() != _KINDS.keys():
        return None
    # A wrong number would end the run, watch for years or ask for a process that cannot be.
    sane = 0 < values["seconds"] <= _LONGEST and 0 < values["pid"] < 1 << 31
    return Holder(**values) if sane else None


def _now(later: float = 0.0) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + later))


def _tick() -> float:
    """Seconds on a clock that only this machine knows, and that goes on while it sleeps."""
    kind = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if kind is None else time.clock_gettime(kind)


def _identify_machine() -> str:
    """Name the kernel and the space of process numbers: where a pid of ours means something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _look_up(pid: int) -> tuple[str, str]:
    """Return when a process of this machine started, and its state; empty when there is none."""
    try:
        # The name of the command is in brackets and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[19], fields[0]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return "", ""
    except OSError:
        return "", ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = ["ps", "-o", "lstart=,stat=", "-p", str(pid)]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False).stdout
        start, _, state = said.strip().rpartition(" ")
        return start.strip(), state[:1]
    return "", ""


def _judge(holder: Holder) -> str:
    """Say ``dead``, ``alive`` or ``unknown``: it is elsewhere, or suspended."""
    if holder.machine != _identify_machine():
        return "unknown"
    born, state = _look_up(holder.pid)
    if not born and process_exists(holder.pid):
        # The processes of others may be hidden from us.
        return "unknown"
    if born != holder.born or state in ("Z", "X"):
        return "dead"
    if holder.pid == os.getpid() and holder.run not in _held:
        # Ours, and it could not be given back: the store did not answer.
        return "dead"
    return "unknown" if state in ("T", "t") else "alive"


def process_exists(pid: int) -> bool:
    """Ask the kernel for a process by its number alone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid())


def read_holder(medium: Disk | Bucket) -> Holder | None:
    """Return who works on a release by its record; None when nobody does."""
    data = medium.read(LEASE)
    return None if data is None else _decode(data)


def is_dead(holder: Holder) -> bool:
    """Tell whether a holder was a process of this machine that is gone."""
    return _judge(holder) == "dead"


class Lease:
    """The right to work on a release, from `acquire` to `release`.

    Parameters
    ----------
    medium : Disk or Bucket
        The release.
    seconds : float
        How long the lease holds without being renewed.
    """

    def __init__(self, medium: Disk | Bucket, seconds: float = SECONDS) -> None:
        self._medium, self.seconds = medium, min(seconds, _LONGEST)
        self.run = uuid.uuid4().hex
        self._started = _now()
        self._born = _look_up(os.getpid())[0]
        program = Path(sys.argv[0]).name if sys.argv else ""
        self._command = " ".join([program, *sys.argv[1:]])[:200]
        self._tag = ""
        self._confirmed = 0.0
        self._lost = ""
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def _describe(self) -> Holder:
        return Holder(
            run=self.run,
            host=platform.node(),
            pid=os.getpid(),
            user=_user(),
            command=self._command,
            started=self._started,
            renewed=_now(),
            expires=_now(self.seconds),
            seconds=self.seconds,
            machine=_identify_machine(),
            born=self._born,
        )

    # ---- taking

    def acquire(self) -> None:
        """Take the lease; of one whose holder is gone, take it over.

        A holder on this machine is looked up among its processes. Any other is watched on our own
        clock until its record changes, or has not changed for as long as a lease holds.

        Raises
        ------
        LeaseError
            When somebody else holds it.
        """
        for _ in range(_CHALLENGES):
            before = _tick()
            data = self._describe().encode()
            if self._medium.create(LEASE, data):
                return self._begin(data, before)
            held = self._medium.read_tagged(LEASE)
            if held is None:
                continue
            holder = _decode(held[0])
            if holder is not None and _judge(holder) == "alive":
                raise self._refuse(holder)
            if holder is None or _judge(holder) == "unknown":
                self._watch(holder, held[1])
            before = _tick()
            data = self._describe().encode()
            if self._medium.swap(LEASE, data, held[1]):
                logger.warning("the lease is taken over from %s", holder or "a damaged record")
                return self._begin(data, before)
        raise self._refuse(read_holder(self._medium))

    def _watch(self, holder: Holder | None, tag: str) -> None:
        """Return when the record has not changed for a lease."""
        seconds = max(self.seconds, holder.seconds if holder else 0.0)
        end = _tick() + seconds
        logger.warning("%s may still work here; watching for %.0f s", holder or "somebody", seconds)
        while (left := end - _tick()) > 0:
            time.sleep(min(left, seconds / _LOOKS))
            held = self._medium.read_tagged(LEASE)
            if held is None:
                return
            if held[1] != tag:
                raise self._refuse(_decode(held[0]) or holder)

    def _refuse(self, holder: Holder | None) -> LeaseError:
        return LeaseError(
            f"another run is at work on {self._medium.root}: {holder or 'its record cannot be read'}",
            "Wait for it to end, then run the same command again, or choose another `out`.",
        )

    def _begin(self, data: bytes, before: float) -> None:
        _held.add(self.run)
        self._confirm(data, before)
        self._thread.start()

    def _confirm(self, data: bytes, before: float) -> None:
        """Note the tag of what we wrote, and when we began to write it: the careful side."""
        held = self._medium.read_tagged(LEASE)
        if held is None or held[0] != data:
            self._lose(_decode(held[0]) if held else None)
        else:
            self._tag, self._confirmed = held[1], before

    # ---- holding

    def _keep(self) -> None:
        while not self._end.wait(self.seconds / _RENEWALS):
            with self._lock:
                if self._lost or self._end.is_set():
                    return
                # A store that does not answer lets nobody else in either.
                try:
                    self._renew()
                except StoreError as error:
                    logger.debug("the lease could not be renewed: %s", error.message)

    def _renew(self) -> None:
        before = _tick()
        data = self._describe().encode()
        for _ in range(2):
            if self._medium.swap(LEASE, data, self._tag):
                return self._confirm(data, before)
            held = self._medium.read_tagged(LEASE)
            holder = _decode(held[0]) if held else None
            if held is None or holder is None or holder.run != self.run:
                return self._lose(holder)
            # An earlier renewal came through whose answer did not.
            self._tag = held[1]
        return None

    def _lose(self, holder: Holder | None) -> None:
        self._lost = str(holder) if holder else _GONE

    def check(self) -> None:
        """Make sure that the lease is still held; costs nothing while it is fresh.

        Raises
        ------
        LeaseError
            When another has taken it over: nothing more may be written.
        StoreError
            When the store does not answer.
        """
        if not self._lost and _tick() - self._confirmed > self.seconds:
            with self._lock:
                if not self._lost and _tick() - self._confirmed > self.seconds:
                    self._renew()
        if self._lost:
            raise _tell_loss(self._medium.root, self._lost)

    def release(self) -> None:
        """Give the lease back; one that another has taken over is left alone."""
        self._end.set()
        _held.discard(self.run)
        with self._lock:
            # A record that stays is that of a dead process: the next run takes it over.
            with contextlib.suppress(StoreError):
                if not self._lost:
                    self._medium.take(LEASE, self._tag)
            self._lost = self._lost or "nobody: it was given back"


def _tell_loss(root: str, holder: str) -> LeaseError:
    return LeaseError(
        f"this run was suspended or cut off for so long that {root} was taken over by {holder}",
        "Nothing more is written by this run. When the other has ended, the same command goes on from there.",
    )


class Guard:
    """Looks for a worker whether the run that it works for still holds the lease.

    Parameters
    ----------
    medium : Disk or Bucket
        The release.
    run : str
        Name of the run; empty to look at nothing.
    seconds : float
        How old the last look may be.
    """

    def __init__(self, medium: Disk | Bucket, run: str, seconds: float) -> None:
        self._medium, self._run, self._seconds = medium, run, seconds
        self._looked = float("-inf")

    def check(self) -> None:
        """Raise `LeaseError` when the lease is another's."""
        before = _tick()
        if not self._run or before - self._looked <= self._seconds:
            return
        holder = read_holder(self._medium)
        if holder is None or holder.run != self._run:
            raise _tell_loss(self._medium.root, str(holder) if holder else _GONE)
        self._looked = before


@contextlib.contextmanager
def hold_lease(medium: Disk | Bucket, seconds: float = SECONDS) -> Iterator[Lease]:
    """Hold the lease of a release.

    Raises
    ------
    LeaseError
        When somebody else holds it.
    """
    lease = Lease(medium, seconds)
    lease.acquire()
    try:
        yield lease
    finally:
        lease.release()
