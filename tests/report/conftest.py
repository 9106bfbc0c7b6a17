from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from survey_ml.config import LoadedConfig, ReleaseConfig
from survey_ml.data.release import Release
from survey_ml.data.sky import write_sky
from survey_ml.engine.run import run_release
from survey_ml.export.bundle import load_tables
from survey_ml.report.context import Context
from survey_ml.simulation.sky import Recipe, simulate_sky

BAD = "bad <script>alert(1)</script>"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedConfig:
    """A release of two simulated fields, made by the local engine, with a truth and a reference.

    One field's name is markup, another file is no FITS at all.
    """
    base = tmp_path_factory.mktemp("report")
    truths = []
    for seed, name in enumerate(("one", "two")):
        recipe = Recipe(size=384, seed=seed + 3, blank=seed == 1, centre=(150.0 + seed, 2.2))
        sky = simulate_sky(recipe)
        write_sky(sky, base / f"{name}.fits")
        truths.append({c: sky.truth[c] for c in ("ra", "dec", "peak_flux", "local_rms")})
    truth = Table({c: np.concatenate([t[c] for t in truths]) for c in truths[0]})
    truth.write(base / "truth.fits")
    bright = truth[truth["peak_flux"] > 10 * truth["local_rms"]]
    bright["ra", "dec", "peak_flux"].write(base / "reference.csv", format="ascii.csv")
    (base / "broken.fits").write_text("this is no image")
    release = ReleaseConfig(
        name="trial",
        fields=[{"path": "one.fits", "name": BAD}, "two.fits", "broken.fits"],
        tiling={"core_px": 256, "halo_px": 64},
        engine={"kind": "local"},
        truth="truth.fits",
        reference_catalogue="reference.csv",
        export={"formats": ["parquet"]},
        out="out",
    )
    config = LoadedConfig(release=release, base=base, out=str(base / "out"), source="")
    result = run_release(config)
    assert result.exit_code == 1, result
    return config


@pytest.fixture(scope="session")
def context(run: LoadedConfig) -> Context:
    release = Release.open(run.out)
    return Context(
        release, run.release, Path(run.base), load_tables(release, run), (), dict(release.commits())
    )
