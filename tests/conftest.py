"""What tests of several rooms share."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MakeDistribution = Callable[..., Path]
_COMPILER = pytest.StashKey["subprocess.Popen[bytes]"]()


def pytest_configure(config: pytest.Config) -> None:
    """Fill the cache of compiled functions once, beside the tests of servers, which mostly wait.

    A job that a shell starts in the background is deaf to Ctrl-C, and so are its children: tests send one.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        with contextlib.suppress(ValueError):  # only the main thread may say so
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        script = Path(__file__).with_name("compile_once.py")
        config.stash[_COMPILER] = subprocess.Popen([sys.executable, str(script)])


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what `pytest_configure` began."""
    if (compiler := config.stash.get(_COMPILER, None)) is not None:
        compiler.kill()
        compiler.wait()


@pytest.fixture
def make_distribution(tmp_path: Path) -> MakeDistribution:
    """Return a function that puts an installed plugin distribution into a folder for ``sys.path``."""

    def make(name: str, source: str, *, version: str = "1.0", entry: str = "", folder: str = "site") -> Path:
        site = tmp_path / folder
        module = name.replace("-", "_")
        site.mkdir(exist_ok=True)
        (site / f"{module}.py").write_text(source)
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[survey_ml.v1]\n{entry or module} = {module}\n")
        return site

    return make


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Return the address of an S3 server on the loopback: moto's."""
    moto_server = pytest.importorskip("moto.server")
    pytest.importorskip("obstore")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Return the name of an empty bucket; the environment says where it is, for child processes too."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    letters = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())
    name = f"{letters[:40].strip('-')}-{abs(hash(request.node.nodeid)) % 10**6}"
    put = urllib.request.Request(f"{s3_server}/{name}", method="PUT")
    urllib.request.urlopen(put, timeout=10).close()
    return name
