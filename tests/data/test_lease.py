"""The lease between real processes, on disk and on an object store: killed, suspended, in a hurry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import pytest

from survey_ml.data.lease import LEASE, Guard, Holder, Lease, _decode, hold_lease, is_dead, read_holder
from survey_ml.data.store import ReleaseStore
from survey_ml.data.unreliable import UnreliableProxy
from survey_ml.errors import LeaseError

SECONDS = 1.0
HOLDER = """
import os, signal, sys, time
from survey_ml.data.lease import hold_lease
from survey_ml.data.store import ReleaseStore
from survey_ml.errors import LeaseError
out, seconds = sys.argv[1], float(sys.argv[2])
medium = ReleaseStore(out).medium
try:
    with hold_lease(medium, seconds) as lease:
        print("held", flush=True)
        for number in range(3000):
            if number == 5 and "sleepy" in sys.argv:
                os.kill(os.getpid(), signal.SIGSTOP)
            lease.check()
            medium.replace("work", str(number).encode())
            time.sleep(0.02)
except LeaseError as error:
    print("refused:", error.message, flush=True)
"""


@pytest.fixture(params=["disk", "s3"])
def out(request, tmp_path):
    if request.param == "disk":
        return str(tmp_path / "out")
    return f"s3://{request.getfixturevalue('s3_bucket')}/out"


@pytest.fixture
def medium(out):
    medium = ReleaseStore(out).medium
    medium.prepare()
    return medium


@pytest.fixture
def start():
    """Start processes that hold a lease; none outlives the test."""
    begun = []

    def start(out: str, seconds: float = SECONDS, *words: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, out, str(seconds), *words], stdout=subprocess.PIPE, text=True
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for(process: subprocess.Popen, what: str) -> str:
    line = process.stdout.readline()
    assert line.startswith(what), line
    return line


def test_the_second_is_told_who_holds_it(out, medium, start):
    first = start(out)
    wait_for(first, "held")
    holder = read_holder(medium)
    assert (holder.pid, holder.seconds) == (first.pid, SECONDS)
    said = wait_for(start(out), "refused")
    assert f"{holder.user}@{holder.host}, process {first.pid}, since {holder.started}" in said
    # It is renewed for as long as it is needed.
    time.sleep(1.5 * SECONDS)
    assert read_holder(medium).renewed >= holder.renewed
    assert first.poll() is None


def test_after_a_kill_it_is_taken_over_at_once(out, medium, start):
    first = start(out, 600.0)
    wait_for(first, "held")
    first.kill()
    first.wait()
    assert is_dead(read_holder(medium))
    begun = time.monotonic()
    with hold_lease(medium, 600.0) as lease:
        assert time.monotonic() - begun < 5
        assert read_holder(medium).run == lease.run
    assert medium.read(LEASE) is None


def test_one_that_was_suspended_too_long_stops(out, medium, start):
    first = start(out, SECONDS, "sleepy")
    wait_for(first, "held")
    os.waitid(os.P_PID, first.pid, os.WSTOPPED)
    begun = time.monotonic()
    with hold_lease(medium, SECONDS) as lease:
        assert time.monotonic() - begun >= SECONDS
        medium.replace("work", b"mine")
        first.send_signal(signal.SIGCONT)
        said = wait_for(first, "refused")
        assert "taken over by" in said and str(os.getpid()) in said
        assert first.wait(timeout=20) == 0
        # It has written nothing since, and left the lease of the other alone.
        assert medium.read("work") == b"mine"
        lease.check()
        assert read_holder(medium).run == lease.run


def test_a_short_sleep_costs_nothing(out, medium, start):
    first = start(out, 3.0)
    wait_for(first, "held")
    first.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    first.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    before = medium.read("work")
    time.sleep(0.5)
    assert medium.read("work") != before


def make_foreign(medium, seconds: float = SECONDS) -> Holder:
    """Leave the record of a process of another machine, whose clock is years ahead."""
    with hold_lease(medium) as lease:
        mine = read_holder(medium)
    assert mine.run == lease.run
    foreign = replace(
        mine, run="theirs", machine="elsewhere", seconds=seconds, renewed="2099-01-01 00:00:00 UTC"
    )
    assert medium.create(LEASE, foreign.encode())
    return foreign


def test_clocks_of_other_hosts_do_not_matter(medium):
    make_foreign(medium)
    begun = time.monotonic()
    with hold_lease(medium, 0.5) as lease:
        # The longer of both leases counts.
        assert time.monotonic() - begun >= SECONDS
        lease.check()


def test_a_record_that_changes_is_of_somebody_who_lives(medium):
    foreign = make_foreign(medium, 30.0)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: Lease(medium, 30.0).acquire())
        time.sleep(0.3)
        medium.replace(LEASE, replace(foreign, renewed="2001-01-01 00:00:00 UTC").encode())
        with pytest.raises(LeaseError, match="another run is at work"):
            asked.result(timeout=20)
    medium.remove(LEASE)


def test_another_process_of_the_same_number_is_not_the_holder(medium):
    with hold_lease(medium):
        mine = read_holder(medium)
    assert medium.create(LEASE, replace(mine, run="old", born="1").encode())
    begun = time.monotonic()
    with hold_lease(medium, 600.0):
        assert time.monotonic() - begun < 5


def test_what_could_not_be_given_back_is_no_obstacle(medium, monkeypatch):
    """A process that lives on, such as a watch, after an outage at the end of a run."""
    with monkeypatch.context() as patch, hold_lease(medium, 600.0):
        patch.setattr(medium, "take", lambda path, tag: None)
        with pytest.raises(LeaseError), hold_lease(medium, 600.0):
            pass
    assert medium.read(LEASE)
    begun = time.monotonic()
    with hold_lease(medium, 600.0):
        assert time.monotonic() - begun < 5


def test_of_many_in_a_hurry_one_gets_it(out, medium):
    make_foreign(medium, 0.5)

    def take(_: int) -> Lease | None:
        lease = Lease(ReleaseStore(out).medium, 0.5)
        try:
            lease.acquire()
        except LeaseError:
            return None
        return lease

    with ThreadPoolExecutor(6) as pool:
        held = [lease for lease in pool.map(take, range(6)) if lease]
    assert len(held) == 1
    held[0].check()
    held[0].release()
    assert medium.read(LEASE) is None


def test_a_worker_stops_when_its_run_has_lost_it(medium):
    with hold_lease(medium) as lease:
        guard = Guard(medium, lease.run, 0.0)
        guard.check()
        Guard(medium, "", 0.0).check()
        medium.replace(LEASE, json.dumps({**asdict(read_holder(medium)), "run": "theirs"}).encode())
        with pytest.raises(LeaseError, match="taken over"):
            guard.check()
        assert lease.run != "theirs"
    medium.remove(LEASE)


def test_an_outage_longer_than_the_lease_loses_nothing(s3_bucket, s3_server, monkeypatch):
    with UnreliableProxy(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        medium = ReleaseStore(f"s3://{s3_bucket}/out").medium
        with hold_lease(medium, 0.6) as lease:
            proxy.fail_for(2)
            time.sleep(1.0)
            lease.check()
            assert read_holder(medium).run == lease.run
            assert proxy.counts["outage"] >= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("seconds", None), ("seconds", "60"), ("seconds", 1e9), ("pid", "12"), ("pid", 2**70), ("host", None)],
)
def test_a_record_with_odd_values_is_damaged(name: str, value: object) -> None:
    good = dict.fromkeys(Holder.__dataclass_fields__, "x") | {"pid": 12, "seconds": 60.0}
    assert _decode(json.dumps(good).encode()) is not None
    assert _decode(json.dumps(good | {name: value}).encode()) is None


def test_a_deeply_nested_record_is_damaged() -> None:
    assert _decode(b"[" * 100_000) is None
