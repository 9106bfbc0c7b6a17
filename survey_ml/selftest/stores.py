"""Faults of an object store: errors, writes that succeed and say otherwise, slow answers, an outage."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import urllib.request
import uuid
from contextlib import ExitStack
from random import Random
from typing import Any, ClassVar

from survey_ml.data.store import ReleaseStore
from survey_ml.data.unreliable import Faults, UnreliableProxy
from survey_ml.selftest.command import Command, Ended
from survey_ml.selftest.fault import Fault

OUTAGE = 60.0
"""Seconds without any answer."""

_OURS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
}
"""Of the store that is started here."""


class _Store(Fault):
    """A release in a bucket behind a proxy that fails on purpose from the moment on."""

    faults: ClassVar[Faults] = Faults()
    counted: ClassVar[tuple[str, ...]] = ()
    """What the proxy must have done for the fault to have taken place."""

    def miss(self) -> str:
        """See `Fault.miss`."""
        if importlib.util.find_spec("obstore") is None:
            return "obstore is not installed: pip install 'survey-ml[s3]'"
        if self.means.bucket:
            if not _find_endpoint().startswith("http://"):
                return "AWS_ENDPOINT_URL is not an http:// address, which the proxy needs"
        elif any(importlib.util.find_spec(name) is None for name in ("moto", "flask")):
            return "moto is not installed (pip install 'moto[server,s3]'), and no --bucket is given"
        return super().miss()

    def prepare(self, command: Command, rng: Random) -> None:
        """Start a store, unless there is one, and the proxy."""
        self.stack = ExitStack()
        bucket = self.means.bucket
        if bucket:
            endpoint, keys = _find_endpoint(), {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
        else:
            endpoint, bucket = self.stack.enter_context(_serving()), "selftest"
            keys = _OURS
        self.proxy = self.stack.enter_context(UnreliableProxy(endpoint, seed=rng.randrange(1 << 30)))
        # The user's own are nobody else's business.
        own = {name: "" for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN") if name not in keys}
        address = {"AWS_ENDPOINT_URL": self.proxy.url, "AWS_ENDPOINT_URL_S3": self.proxy.url}
        command.environment |= own | keys | address
        command.direct |= dict.fromkeys(address, endpoint)
        command.out = f"s3://{bucket}/survey-ml-selftest/{uuid.uuid4().hex[:12]}"

    def strike(self, command: Command, rng: Random) -> str:
        """Let the store fail from now on."""
        self.proxy.faults = self.faults
        return ", ".join(f"{getattr(self.faults, kind):.0%} {kind}" for kind in self.counted)

    def tell(self, command: Command) -> str:
        """Count the requests that it was given."""
        counts = self.proxy.counts
        return f"{sum(counts.values())} requests, " + ", ".join(f"{counts[k]} {k}" for k in self.counted)

    def judge(self, command: Command, ends: list[Ended]) -> str:
        """See whether the run bore it, and the store did fail."""
        counts = self.proxy.counts
        if ends[0].code:
            return f"the run did not bear it: it ended with {ends[0].code}"
        missing = [kind for kind in self.counted if not counts[kind]]
        return f"no request was {missing[0]}" if missing else ""

    def mend(self, command: Command) -> None:
        """Let the store be well again."""
        self.proxy.faults = Faults()

    def clear(self, command: Command) -> None:
        """Remove the release from a bucket that is not ours."""
        if not hasattr(self, "stack"):
            return
        with self.stack:
            if self.means.bucket and "://" in command.out:
                self.proxy.faults = Faults()
                with command.seeing():
                    medium = ReleaseStore(command.out).medium
                    for path, _ in list(medium.walk_files("")):
                        medium.remove(path)


class Errors(_Store):
    """The store refuses some requests."""

    name, summary = "s3-errors", "the object store answers 8 % of the requests with 500 or 503"
    faults, counted = Faults(refused=0.08), ("refused",)


class Applied(_Store):
    """The store carries writes out and says that it did not."""

    name, summary = "s3-applied", "the object store carries out 20 % of the writes and answers them with 500"
    faults, counted = Faults(applied=0.20), ("applied",)


class Slow(_Store):
    """The store takes its time."""

    name, summary = "s3-slow", "the object store answers 5 % of the requests after half a second"
    faults, counted = Faults(slow=0.05, delay=0.5), ("slow",)


class Outage(_Store):
    """The store is away for a minute."""

    name, summary = "s3-outage", "the object store gives no answer for a minute"
    counted = ("outage",)
    window = (0.05, 0.7)

    def strike(self, command: Command, rng: Random) -> str:
        """Let the store be away from now on."""
        self.proxy.fail_for(OUTAGE)
        return f"no answer for {OUTAGE:g} s"


def _find_endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")


@contextlib.contextmanager
def _serving() -> Any:
    """Start an object store on the loopback with an empty bucket; yield its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        request = urllib.request.Request(f"{endpoint}/selftest", method="PUT")  # noqa: S310 (our own)
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 (our own)
        yield endpoint
    finally:
        server.stop()
