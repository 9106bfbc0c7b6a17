"""Verdicts in a release: the same whatever the tiling, and one field's troubles are not the others'."""

from __future__ import annotations

import numpy as np
import pytest
from trial_model import write_model, write_reference

from survey_ml.config import LoadedConfig, ReleaseConfig
from survey_ml.data.release import Release
from survey_ml.data.sky import write_sky
from survey_ml.engine.run import run_release
from survey_ml.simulation.sky import Recipe, simulate_sky

pytest.importorskip("torch", reason="survey-ml[learning] is not installed")


def configure(base, core, **shift):
    release = ReleaseConfig(
        name="trial",
        fields=["*.fits"],
        tiling={"core_px": core, "halo_px": 64},
        stages={
            "morphology": {"model": "trial.safetensors", "cutout_arcsec": 60},
            "shift": {"reference": "trial.reference", "permutations": 100} | shift,
        },
        engine={"kind": "local"},
        export={"formats": ["parquet"]},
        out=f"out{core}",
    )
    return LoadedConfig(release=release, base=base, out=str(base / f"out{core}"), source="")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    write_sky(simulate_sky(Recipe(size=384, seed=4, rms=5e-6, uniform=True), "sky"), folder / "sky.fits")
    write_sky(simulate_sky(Recipe(size=96, seed=5), "few"), folder / "few.fits")
    write_reference(write_model(folder / "trial.safetensors"))
    return folder


@pytest.mark.slow
def test_verdicts_do_not_depend_on_the_tiling(base):
    tables = []
    for core in (384, 128):
        result = run_release(configure(base, core))
        assert result.exit_code == 0, result
        release = Release.open(base / f"out{core}")
        assert len(release.commits(stage="shift")) == 2
        tables.append(release.catalogue("shift"))
    one, many = tables
    assert one["field"].tolist() == many["field"].tolist() == ["few", "sky"]
    for name in ("shift_level", "shift_cause", "shift_n", "shift_n_left_out", "shift_reason"):
        assert one[name].tolist() == many[name].tolist(), name
    for name in ("shift_score", "shift_p_value", "shift_effect", "shift_share_bent"):
        np.testing.assert_allclose(one[name], many[name], atol=1e-4)
    assert one["shift_level"][0] == "unknown" and "20 are needed" in one["shift_reason"][0]
    # The images are of 7.2 arcsec, those of the reference of 5.4.
    assert one["shift_n"][1] >= 20 and one["shift_level"][1] in ("amber", "red")
    assert one["shift_cause"][1] == "beam"
    assert run_release(configure(base, 384)).done == 0
    # What sources are compared with is part of what a verdict is made from.
    write_reference(base / "trial.safetensors", seed=6)
    assert run_release(configure(base, 128)).redone == 2


def test_without_a_reference_the_rest_of_the_release_goes_on(base):
    # What lies beside a model that is given by its path is found, so it is taken away.
    (base / "trial.reference").rename(base / "elsewhere.reference")
    config = configure(base, 384, reference="auto")
    result = run_release(config)
    assert result.exit_code == 1 and {one.stage for one in result.set_aside} == {"shift"}
    assert all("nothing is known of the images that model trial" in one.cause for one in result.set_aside)
    assert len(Release.open(config.out).catalogue("sources")) > 20
