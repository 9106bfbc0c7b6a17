"""The small simulated release that stages are tried on (in a child process)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from survey_ml.errors import PluginError, SurveyMLError

if TYPE_CHECKING:
    from survey_ml.config import LoadedConfig
    from survey_ml.conformance.child import Notes

CORE = 128
"""Pixels of a tile: each field has several, and no field is a whole number of them."""


def write_fields(folder: Path) -> None:
    """Write two simulated images: a sky with blank pixels, and noise without a source."""
    from survey_ml.data.sky import write_sky
    from survey_ml.simulation.sky import Recipe, simulate_sky

    write_sky(simulate_sky(Recipe(size=192, seed=5, blank=True), "sky"), folder / "sky.fits")
    empty = Recipe(size=(96, 160), seed=6, content="noise")
    write_sky(simulate_sky(empty, "empty"), folder / "empty.fits")


def configure(folder: Path, stages: list[str], settings: list[str], distribution: str) -> LoadedConfig:
    """Write the YAML of a trial and load it as a run does.

    Parameters
    ----------
    folder : Path
        Holds the images and the release.
    stages : list of str
        To run, with those that they need.
    settings : list of str
        ``stage.key=value``; those of other stages are left out.
    distribution : str
        Provides the stages that others may provide too.
    """
    from survey_ml.allowed import release_list
    from survey_ml.loader import load_config

    given = {
        "name": "trial",
        "fields": ["*.fits"],
        "stages": {name: {} for name in stages},
        "providers": _list_providers(distribution),
        "tiling": {"core_px": CORE, "halo_px": 16},
        "engine": {"kind": "local", "retries": 0},
        "plugins": {"allow": release_list()},
        "out": "out",
    }
    path = folder / "trial.yaml"
    path.write_text(json.dumps(given))
    return load_config(path, settings=[s for s in settings if s.partition(".")[0] in stages])


def _list_providers(distribution: str) -> dict[str, str]:
    """Pick the distribution under test wherever several provide a stage."""
    from survey_ml.allowed import normalise
    from survey_ml.plugins import get_manager
    from survey_ml.stage import StageSpec

    wanted = normalise(distribution)
    offers = [(s, o) for s, o in get_manager().offers if isinstance(s, StageSpec)]
    return {s.name: o.distribution for s, o in offers if normalise(o.distribution) == wanted}


def prepare(given: dict[str, Any], notes: Notes) -> None:
    """Make all that a stage reads, by a run of the stages before it."""
    from survey_ml.engine.progress import QuietProgress
    from survey_ml.engine.run import run_release
    from survey_ml.graph import INGEST, build_graph

    folder, stage = Path(given["release"]), given["stage"]
    try:
        notes.doing("simulating a field")
        if not (folder / "sky.fits").exists():
            write_fields(folder)
        config = configure(folder, [stage], given["settings"], given["distribution"])
        graph = build_graph(config)
        before = [spec.name for spec in graph.order if spec.name in graph.needs(stage) - {INGEST}]
        notes.doing(f"running {', '.join([INGEST, *before])}, which come before it")
        settings = given["settings"]
        config = configure(folder, before, settings, given["distribution"])
        result = run_release(config, progress=QuietProgress(), assemble=False)
        if result.set_aside:
            first = result.set_aside[0]
            raise PluginError(
                f"what it reads cannot be made: stage {first.stage}: {first.cause}",
                first.hint or f"mend stage {first.stage} first",
            )
    except SurveyMLError as error:
        notes.data("error", [error.message, error.hint])
    else:
        notes.data("before", before)
