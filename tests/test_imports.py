"""Start-up is light: what is heavy is imported when it is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = (
    "prefect", "ray", "torch", "zarr", "astropy", "dask", "scipy", "numba", "matplotlib", "pyarrow",
    "openvino", "safetensors", "sklearn",
)  # fmt: skip
ENGINES = ("prefect", "ray", "torch")
LIMIT = 0.5
"""CPU seconds, user and system."""

PROBE = """
import json, resource, sys
argv = {argv!r}
if argv is None:
    import survey_ml
else:
    from survey_ml.cli.group import call
    sys.stdout, out = sys.stderr, sys.stdout
    assert call(argv) == 0
    sys.stdout = out
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({{"cpu": used.ru_utime + used.ru_stime, "modules": sorted(sys.modules)}}))
"""


def start(argv: list[str] | None) -> dict:
    """Run in a fresh interpreter; the least of three, since other work disturbs a single one."""
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    found = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", PROBE.format(argv=argv)],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    return min(found, key=lambda one: one["cpu"])


@pytest.mark.parametrize("argv", [None, ["--help"], ["run", "--help"], ["--version"]])
def test_start_up_is_fast_and_imports_nothing_heavy(argv):
    found = start(argv)
    assert not set(HEAVY) & set(found["modules"])
    assert found["cpu"] < LIMIT


def test_listing_plugins_imports_no_engine_and_no_stage():
    found = start(["plugins"])
    assert not set(ENGINES) & set(found["modules"])
    assert "numba" not in found["modules"]
    assert not [
        name for name in found["modules"] if name.startswith("survey_ml.stages.") and "stage" in name[17:]
    ]
