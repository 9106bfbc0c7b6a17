"""The trial release: two simulated fields, the built-in stages, and one that can be made to misbehave."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import survey_ml
from survey_ml.field import split_tiles
from survey_ml.hookspecs import GROUP
from survey_ml.selftest.plugin import NAME
from survey_ml.selftest.stage import ODD

CORE, HALO = 128, 16
WORKERS = 2
FIELDS = {"large": (384, 384), "small": (200, 330)}
"""Name of each field to its rows and columns."""
_DISTRIBUTION = "survey-ml-selftest"
"""The trial plugin is announced by a distribution that is only on the path of our own commands: the
listings of an installation do not show it, and the stage itself is importable on every worker."""


@dataclass(frozen=True)
class TrialRelease:
    """What every run of a self-test processes.

    Attributes
    ----------
    folder : Path
        Holds the images, the YAML and all that runs leave.
    """

    folder: Path

    @property
    def yaml(self) -> Path:
        """The configuration; it says nothing of where the release goes."""
        return self.folder / "trial.yaml"

    @property
    def site(self) -> Path:
        """Folder for the Python path: announces the trial stage."""
        return self.folder / "site"

    def write(self) -> None:
        """Write images, configuration and the announcement of the trial stage."""
        from survey_ml.data.sky import write_sky
        from survey_ml.simulation.sky import Recipe, simulate_sky

        fields = self.folder / "fields"
        fields.mkdir(parents=True, exist_ok=True)
        for seed, (name, size) in enumerate(FIELDS.items(), start=11):
            recipe = Recipe(size=size, seed=seed, blank=name == "large", centre=(150.0 + seed, 2.2))
            write_sky(simulate_sky(recipe, name), fields / f"{name}.fits")
        info = self.site / "survey_ml_selftest-1.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {_DISTRIBUTION}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\nselftest = survey_ml.selftest.plugin\n")
        document = {
            "name": "selftest",
            "fields": ["fields/*.fits"],
            "tiling": {"core_px": CORE, "halo_px": HALO},
            "stages": {"extraction": {}, NAME: {"folder": str(self.folder)}},
            "engine": {"workers": WORKERS, "batch_seconds": 1.0},
            "export": {"formats": ["parquet", "fits"]},
            "out": "out",
        }
        # JSON is YAML, whatever characters a path has.
        self.yaml.write_text(json.dumps(document, indent=1))

    def ask(self, how: str, unit: str = "", **more: float) -> None:
        """Ask the trial stage for odd behaviour, from now on."""
        aside = self.folder / f".{ODD}"
        aside.write_text(json.dumps({"how": how, "unit": unit, **more}))
        aside.replace(self.folder / ODD)

    def forgive(self) -> None:
        """Ask the trial stage for nothing but its work."""
        (self.folder / ODD).unlink(missing_ok=True)

    def make_environment(self, **more: str) -> dict[str, str]:
        """Return the variables of a command that processes this release; empty in ``more`` is unset."""
        kept: dict[str, str] = {k: v for k, v in os.environ.items() if k not in ("SURVEY_ML_PLUGINS",)}
        if "PREFECT_API_URL" not in kept:
            kept["PREFECT_HOME"] = str(self.folder / "prefect")
        kept |= {"PYTHONPATH": os.pathsep.join([str(self.site), *_list_paths(kept)]), "DO_NOT_TRACK": "1"}
        return {name: value for name, value in (kept | more).items() if value or name not in more}


def _list_paths(environment: Mapping[str, str]) -> list[str]:
    """Return where this survey_ml is, if that is no standard place, and the path as it is."""
    own = str(Path(survey_ml.__file__).parents[1])
    standard = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    given = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    return given if own in standard or own in given or own not in sys.path else [own, *given]


def list_units() -> list[str]:
    """Return all tiles, as ``FIELD/TILE``."""
    return [f"{name}/{tile.name}" for name, size in FIELDS.items() for tile in split_tiles(size, CORE, HALO)]
