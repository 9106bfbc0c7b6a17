"""How the last run of a release ended, from its log and the lease; Prefect is never asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from survey_ml.data.lease import Holder, is_dead, read_holder
from survey_ml.data.store import ReleaseStore
from survey_ml.data.stored_json import Kinds, decode_object
from survey_ml.engine.runlog import FOLDER
from survey_ml.errors import SurveyMLError

_SECOND = len("20261124T134323Z")
"""Characters of a log's name that order runs: those begun within one second tie."""
_KINDS: Kinds = {"time": str, "run": str, "host": str, "pid": int}


@dataclass(frozen=True)
class LastRun:
    """The run that began last.

    Attributes
    ----------
    id : str
        Its name.
    state : str
        ``running``; ``completed``, ``set aside``, ``failed`` or ``cancelled`` as its log says;
        ``interrupted`` when its log says nothing of an end, and nobody holds its lease any more.
    reason : str
        Why it failed or was cancelled.
    host, pid : str, int
        Its driver.
    began, heard : str
        UTC of the first and the last record in its log.
    ended : str or None
        UTC of its end; None while it runs, and for one that was interrupted.
    exit_code : int or None
        As of ``survey-ml run``; 130 for Ctrl-C.
    set_aside : int
        Fields and tiles that it left out, when it ended with a result.
    """

    id: str
    state: str
    reason: str
    host: str
    pid: int
    began: str
    heard: str
    ended: str | None
    exit_code: int | None
    set_aside: int


def read_last_run(store: ReleaseStore) -> LastRun | None:
    """Return how the last run of a release ended or how it stands; None when no log tells of one."""
    logs = []
    try:
        names = [name for name in store.medium.list_folder(FOLDER) if name.endswith(".jsonl")]
        for name in names:
            if name[:_SECOND] == names[-1][:_SECOND]:
                logs.append(_parse(store.medium.read(f"{FOLDER}/{name}") or b""))
        holder = read_holder(store.medium)
    except SurveyMLError:
        return None
    records = max((log for log in logs if log), key=lambda log: log[0]["time"], default=[])
    return _judge(records, holder) if records else None


def _parse(data: bytes) -> list[dict[str, Any]]:
    """Return the records of a log that bear on how it went: the first, what ends a run, the last."""
    lines = data.splitlines()
    wanted = [line for line in lines[1:-1] if b'"event": "run_' in line]
    found = []
    for line in [*lines[:1], *wanted, *lines[1:][-1:]]:
        record = decode_object(line, _KINDS)
        if record is not None:  # the last line is cut off where the driver was killed
            found.append(record)
    return found


def _judge(records: list[dict[str, Any]], holder: Holder | None) -> LastRun:
    first, last = records[0], records[-1]
    events = {record["event"]: record for record in records if isinstance(record.get("event"), str)}
    end, asked = events.get("run_ends"), events.get("run_stops")
    if end is not None:
        state = str(end.get("state", "ended"))
    elif holder is not None and _is_at_work(holder, first):
        state = "running"
    else:
        # Cancelled, and killed before it could say more.
        state = "cancelled" if asked else "interrupted"
    code, aside = (None if end is None else end.get(name) for name in ("exit_code", "set_aside"))
    return LastRun(
        id=first["run"],
        state=state,
        reason=str((end or asked or {}).get("reason", "")),
        host=first["host"],
        pid=first["pid"],
        began=first["time"],
        heard=last["time"],
        ended=None if end is None else end["time"],
        exit_code=code if isinstance(code, int) else None,
        set_aside=aside if isinstance(aside, int) else 0,
    )


def _is_at_work(holder: Holder, first: dict[str, Any]) -> bool:
    """Tell whether the lease is that of the run, and of one that may live."""
    if (holder.host, holder.pid) != (first["host"], first["pid"]) or is_dead(holder):
        return False
    # Of a process elsewhere there is only its record; clocks may differ by another lease.
    try:
        expires = datetime.strptime(holder.expires, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    except ValueError:
        return False
    return datetime.now(UTC) < expires + timedelta(seconds=holder.seconds)
