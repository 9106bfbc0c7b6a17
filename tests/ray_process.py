"""A Ray cluster of its own, in a process of its own, for tests that attach to one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

SERVE = """
import os, sys, ray
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
gpus = float(sys.argv[1])
found = ray.init(address="local", num_cpus=2, num_gpus=gpus, include_dashboard=False,
                 object_store_memory=100 << 20, log_to_driver=False, _temp_dir=sys.argv[2])
print("ADDRESS " + found.address_info["gcs_address"], flush=True)
sys.stdin.read()
ray.shutdown()
"""


@contextlib.contextmanager
def ray_cluster(gpus: float = 0, **environment: str) -> Iterator[str]:
    """Start a cluster with this environment, yield its address, and end it."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(gpus), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"} | environment,
        )
        try:
            for line in process.stdout:
                if line.startswith("ADDRESS "):
                    yield line.split()[1]
                    return
            raise RuntimeError("Ray did not start")
        finally:
            process.stdin.close()
            process.wait(60)
            process.stdout.close()
