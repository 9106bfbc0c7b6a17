"""Run every benchmark with its defaults, one after the other: ``python -m benchmarks [name ...]``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.processes import ROOT

SHARED = {"__init__", "__main__", "reporting", "processes", "pybdsf", "realdata"}
"""Modules here that are no benchmarks."""


def main() -> int:
    """Run them; return 1 if any bar was missed or a benchmark could not run."""
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in SHARED)
    chosen = sys.argv[1:] or known
    if unknown := [name for name in chosen if name not in known]:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    missed = []
    for name in chosen:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, check=False).returncode:
            missed.append(name)
        print(flush=True)
    print(f"bars missed in: {', '.join(missed)}" if missed else "all bars are met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
