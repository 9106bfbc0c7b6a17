"""The catalogue on an object store: S3 as moto plays it on the loopback."""

from __future__ import annotations

import gc

import pytest

from survey_ml.export.bundle import export_release

moto_server = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def url(monkeypatch):
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("catalogues")
    yield "s3://catalogues/out"
    s3fs.S3FileSystem.clear_instance_cache()
    # Sessions complain when they are collected: let that happen here, not in another test.
    gc.collect()
    server.stop()


def test_a_bucket_gets_the_same_files(url, tmp_path, commit, config):
    local = str(tmp_path / "out")
    for out in (url, local):
        commit(out)
    paths = export_release(url, config(url))
    assert [p.relative_to("catalogue") for p in paths] == [
        p.relative_to(f"{local}/catalogue") for p in export_release(local, config(local))
    ]
    files = s3fs.S3FileSystem()
    for path in paths:
        assert files.cat(f"catalogues/out/{path}") == (tmp_path / "out" / path).read_bytes()
    sums = files.cat("catalogues/out/SHA256SUMS")
    assert sums == (tmp_path / "out/SHA256SUMS").read_bytes()
    # Fewer formats: what is not written any more is gone.
    export_release(url, config(url, export={"formats": ["fits"]}))
    assert not files.exists("catalogues/out/catalogue/sources.vot")
