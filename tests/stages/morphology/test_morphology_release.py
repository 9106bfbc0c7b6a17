"""Classes and uncertainties in a release: the same whatever the tiling, others with other weights."""

from __future__ import annotations

import numpy as np
import pytest
from trial_model import write_model, write_posterior

from survey_ml.config import LoadedConfig, ReleaseConfig
from survey_ml.data.release import Release
from survey_ml.data.sky import write_sky
from survey_ml.engine.run import run_release
from survey_ml.simulation.sky import Recipe, simulate_sky

pytest.importorskip("torch", reason="survey-ml[learning] is not installed")


def configure(base, core):
    release = ReleaseConfig(
        name="trial",
        fields=["sky.fits"],
        tiling={"core_px": core, "halo_px": 64},
        stages={
            "morphology": {"model": "trial.safetensors"},
            "uncertainty": {"method": "laplace", "model": "trial-laplace.safetensors"},
        },
        engine={"kind": "local"},
        export={"formats": ["parquet"]},
        out=f"out{core}",
    )
    return LoadedConfig(release=release, base=base, out=str(base / f"out{core}"), source="")


def test_classes_do_not_depend_on_the_tiling_and_follow_the_weights(tmp_path):
    write_sky(simulate_sky(Recipe(size=256, seed=4, blank=True), "sky"), tmp_path / "sky.fits")
    write_posterior(write_model(tmp_path / "trial.safetensors"))
    tables = []
    for core in (256, 64):
        result = run_release(configure(tmp_path, core))
        assert result.exit_code == 0, result
        release = Release.open(tmp_path / f"out{core}")
        assert len(release.commits(stage="morphology")) == (256 // core) ** 2
        tables.append((release.catalogue("sources"), release.catalogue("morphology_features")))
    (one, features), (many, other) = tables
    assert len(one) > 10 and (one["source_id"] == many["source_id"]).all()
    assert (one["morph_class"] == many["morph_class"]).all()
    assert (one["morph_flags"] == many["morph_flags"]).all() and len(set(one["morph_class"])) > 1
    for name in ("morph_p_fri", "morph_p_frii", "morph_p_compact", "morph_p_bent"):
        np.testing.assert_allclose(one[name], many[name], atol=1e-6)
        assert one[name].meta["ucd"] == "stat.probability;src.morph.type"
    np.testing.assert_allclose(features["morph_embedding"], other["morph_embedding"], atol=1e-5)
    for name in ("unc_entropy", "unc_mutual_information", "unc_overlap", "unc_margin", "unc_p_compact"):
        np.testing.assert_allclose(one[name], many[name], atol=1e-5)
    assert (one["unc_set"] == many["unc_set"]).all() and (one["unc_flags"] == many["unc_flags"]).all()
    assert len(set(one["unc_set"])) > 2 and np.ptp(one["unc_entropy"]) > 0.1
    config = configure(tmp_path, 256)
    assert run_release(config).done == 0
    write_posterior(write_model(tmp_path / "trial.safetensors", seed=1))
    again = run_release(config)
    assert (again.done, again.redone) == (2, 2)
    changed = Release.open(config.out).catalogue("sources")
    assert set(changed["morph_model"]).isdisjoint(one["morph_model"])
