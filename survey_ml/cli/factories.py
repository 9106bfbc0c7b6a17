"""Import what third parties' specs name, in processes of their own, to learn what fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from survey_ml.plugins import Broken, Registry
from survey_ml.specs import Spec
from survey_ml.stage import StageSpec

LONGEST = 120.0
"""Seconds that an import may take."""
_CHILD = """
import sys
from survey_ml.plugins import load_factory
from survey_ml.stage import Stage
found = load_factory(sys.argv[1])
if sys.argv[2] == "stage" and not (isinstance(found, type) and issubclass(found, Stage)):
    raise TypeError("it is not a class derived from survey_ml.stage.Stage")
"""


def try_factories(registry: Registry) -> list[Broken]:
    """Import every factory of third parties.

    Listing plugins imports none of them, and an import may hang, print or end the process: each one
    has a process of its own.

    Parameters
    ----------
    registry : Registry
        What is installed.

    Returns
    -------
    list of Broken
        One for each factory that cannot be imported, or is no stage where one is announced.
    """
    return list(_list_broken(registry))


def _list_broken(registry: Registry) -> Iterator[Broken]:
    for spec, origin in registry.offers:
        if not origin.builtin:
            cause, trace = _try(spec)
            if cause:
                cause = f"{spec.name}: {spec.factory} cannot be imported: {cause}"
                yield Broken(origin.plugin, origin.distribution, origin.version, cause, trace)


def _try(spec: Spec) -> tuple[str, str]:
    """Return the cause and the traceback of a failed import; two empty strings when it is well."""
    kind = "stage" if isinstance(spec, StageSpec) else "other"
    # The child looks where this process does.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, spec.factory, kind],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=LONGEST,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the import takes more than {LONGEST:g} s", ""
    if done.returncode == 0:
        return "", ""
    if done.returncode < 0:
        return f"the import ended the process (signal {-done.returncode})", done.stderr
    return _find_cause(done.stderr) or f"the import ended the process (exit code {done.returncode})", (
        done.stderr
    )


def _find_cause(trace: str) -> str:
    """Return the error that a traceback is about: the first one, which the others follow from."""
    lines = trace.splitlines()
    if not any(line.startswith("Traceback") for line in lines):
        return ""
    # Lines of a traceback are indented, the error itself is not.
    begins = [i for i, line in enumerate(lines) if line.startswith("Traceback")]
    for line in lines[begins[0] + 1 :]:
        if line and not line[0].isspace():
            return line
    return ""
