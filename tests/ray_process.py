"""A Ray cluster of its own, in a process of its own, for tests that attach to one."""

from __future__ import annotations

import contextlib
import os
import secrets
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
def ray_cluster(gpus: float = 0, **environment: str) -> Iterator[dict[str, str]]:
    """Start a cluster with this environment, yield the variables that attach to it, and end it.

    It has a token made for it alone: Ray asks for one, and the user's own is nobody else's business.
    """
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(gpus), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"} | token | environment,
        )
        try:
            for line in process.stdout:
                if line.startswith("ADDRESS "):
                    yield {"RAY_ADDRESS": line.split()[1], **token}
                    return
            raise RuntimeError("Ray did not start")
        finally:
            process.stdin.close()
            process.wait(60)
            process.stdout.close()
