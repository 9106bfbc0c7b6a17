"""Plugins that keep the contract, and plugins that break it, written as distributions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PYPROJECT = """
[project]
name = "{name}"
version = "1.0"
[project.entry-points."survey_ml.v1"]
{name} = "{package}.plugin"
"""
HOOKS = """
from survey_ml.hookspecs import hookimpl
from survey_ml.products import array, summary
from survey_ml.stage import Resources, Scope, StageSpec

def spec(name, writes=None, **more):
    writes = writes or (array(name + "_map"), summary(name + "_looks"))
    return StageSpec(name, "{package}.stages:" + name.title(), reads=(array("image"),), writes=writes, **more)

@hookimpl
def survey_ml_stages():
    return [{specs}]
"""
STAGES = """
import os
import random
import socket
import sys
import time
from pathlib import Path

import numpy as np

from survey_ml.stage import Options, Stage


class Base(Stage):
    def run(self, inputs):
        return self.make(inputs.arrays["image"], inputs.tile)

    def make(self, image, tile, **more):
        name = type(self).__name__.lower()
        core = image[tile.core.inside(tile.window)]
        looks = {"n": int(np.isfinite(core).sum())}
        return {name + "_map": core * np.float32(2), name + "_looks": looks, **more}
"""
GOOD = """
class Good(Base):
    pass
"""


def write_kit(folder: Path, name: str, specs: str, stages: str = GOOD, head: str = "") -> Path:
    """Write a distribution; its stages are classes named after their spec, derived from ``Base``."""
    package = name.replace("-", "_")
    root = folder / name
    (root / package).mkdir(parents=True)
    (root / "pyproject.toml").write_text(PYPROJECT.format(name=name, package=package))
    (root / package / "__init__.py").write_text("")
    (root / package / "plugin.py").write_text(head + HOOKS.format(package=package, specs=specs))
    (root / package / "stages.py").write_text(STAGES + stages)
    return root


def install(roots: list[Path], site: Path) -> str:
    """Make distributions importable and known without pip; return the search path for processes."""
    from survey_ml.conformance.target import find_target

    site.mkdir()
    for root in roots:
        find_target(root).install(site)
    return os.pathsep.join([str(site), *map(str, roots), *(path for path in sys.path if path)])


def call(path: str, *args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call ``survey-ml`` in a process that finds ``path``."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("SURVEY_ML_")}
    return subprocess.run(
        [sys.executable, "-m", "survey_ml.cli", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=400,
        env=known | {"PYTHONPATH": path} | environment,
        check=False,
    )


EXTRA = """
class Extra(Base):
    def run(self, inputs):
        return self.make(inputs.arrays["image"], inputs.tile, surprise={})
"""
HANGS = """
class Hangs(Base):
    def run(self, inputs):
        while True:
            time.sleep(0.1)
"""
LEAVES = """
class Leaves(Base):
    def run(self, inputs):
        sys.exit(3)
"""
EXITS = """
class Exits(Base):
    def run(self, inputs):
        os._exit(3)
"""


def write_broken(folder: Path) -> dict[str, Path]:
    """Write the six broken plugins, by what is wrong with them, and a good one."""
    misspelt = write_kit(folder, "kit-misspelt", 'spec("good")')
    path = misspelt / "kit_misspelt" / "plugin.py"
    path.write_text(path.read_text().replace("def survey_ml_stages", "def survey_ml_stagez"))
    return {
        "good": write_kit(folder, "kit-good", 'spec("good")'),
        "import": write_kit(folder, "kit-import", 'spec("good")', head="raise RuntimeError('at import')\n"),
        "api": write_kit(folder, "kit-api", 'spec("newer", api=(2, 0))'),
        "misspelt": misspelt,
        "extra": write_kit(folder, "kit-extra", 'spec("extra")', EXTRA),
        "hangs": write_kit(folder, "kit-hangs", 'spec("hangs")', HANGS),
        "leaves": write_kit(folder, "kit-leaves", 'spec("leaves")', LEAVES),
        "exits": write_kit(folder, "kit-exits", 'spec("exits")', EXITS),
    }
