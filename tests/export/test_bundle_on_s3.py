"""The catalogue on an object store: S3 as moto plays it on the loopback."""

from __future__ import annotations

from survey_ml.data.store import ReleaseStore
from survey_ml.export.bundle import export_release


def test_a_bucket_gets_the_same_files(s3_bucket, tmp_path, commit, config):
    url = f"s3://{s3_bucket}/out"
    local = str(tmp_path / "out")
    for out in (url, local):
        commit(out)
    paths = export_release(url, config(url))
    assert [p.relative_to("catalogue") for p in paths] == [
        p.relative_to(f"{local}/catalogue") for p in export_release(local, config(local))
    ]
    files = ReleaseStore(url).medium
    for path in paths:
        assert files.read(str(path)) == (tmp_path / "out" / path).read_bytes()
    sums = files.read("SHA256SUMS")
    assert sums == (tmp_path / "out/SHA256SUMS").read_bytes()
    # Fewer formats: what is not written any more is gone.
    export_release(url, config(url, export={"formats": ["fits"]}))
    assert files.read("catalogue/sources.vot") is None
