"""What runs in a process of its own: ``python -m survey_ml.conformance.child TASK GIVEN RECORDS``."""

from __future__ import annotations

import faulthandler
import importlib
import json
import sys
from pathlib import Path
from typing import Any

TASKS = {
    "register": "survey_ml.conformance.registration:register",
    "factories": "survey_ml.conformance.registration:import_factories",
    "prepare": "survey_ml.conformance.release:prepare",
    "trial": "survey_ml.conformance.trial:try_stage",
    "repeat": "survey_ml.conformance.trial:repeat_stage",
}
"""Task to the function that does it, which takes the arguments and `Notes`."""


class Notes:
    """Keeps what a process found in a file, line by line, so that it outlives the process."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("a", encoding="utf-8")

    def doing(self, what: str) -> None:
        """Note what is begun now."""
        self._write({"doing": what})

    def check(self, about: str, name: str, passed: bool | None, detail: str = "", hint: str = "") -> None:
        """Note the outcome of a check."""
        self._write({"check": [about, name, passed, detail, hint]})

    def data(self, name: str, value: Any) -> None:
        """Note a value for the process that asked."""
        self._write({"data": name, "value": value})

    def finish(self) -> None:
        """Note that the task is done."""
        self._write({"finished": True})

    def _write(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record, default=str) + "\n")
        self._stream.flush()


def main(task: str, given: str, records: str) -> None:
    """Do a task."""
    notes = Notes(Path(records))
    arguments = json.loads(Path(given).read_text())
    # Shows where it hangs, shortly before it is killed.
    faulthandler.dump_traceback_later(max(0.3, 0.85 * arguments["timeout"]))
    module, _, name = TASKS[task].partition(":")
    getattr(importlib.import_module(module), name)(arguments, notes)
    notes.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
