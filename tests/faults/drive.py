"""Run a release of trial stages in a process of its own, to be killed: ``drive.py FOLDER ENGINE OPTIONS``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from releases import make_config, make_registry

from survey_ml.engine.run import run_release


def main() -> int:
    folder, engine, options = sys.argv[1:4]
    logging.basicConfig(level=logging.WARNING)
    given = json.loads(options)
    stages = given.pop("stages", {"census": {}, "smooth": {"seconds": 0.15}})
    config = make_config(Path(folder), engine=engine, stages=stages, **given)
    result = run_release(config, registry=make_registry(), assemble=False)
    print(
        json.dumps(
            {
                "done": result.done,
                "redone": result.redone,
                "skipped": result.skipped,
                "aside": [vars(entry) for entry in result.set_aside],
                "exit_code": result.exit_code,
            }
        )
    )
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
