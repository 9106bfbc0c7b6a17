"""Classes and uncertainties in a release: the same whatever the tiling, others with other weights."""

from __future__ import annotations

import numpy as np
import pytest
from trial_model import write_bayesian, write_model, write_posterior

from survey_ml.config import LoadedConfig, ReleaseConfig
from survey_ml.data.release import Release
from survey_ml.data.sky import write_sky
from survey_ml.engine.run import run_release
from survey_ml.simulation.sky import Recipe, simulate_sky

pytest.importorskip("torch", reason="survey-ml[learning] is not installed")


LAST_LAYER = {
    "morphology": {"model": "trial.safetensors"},
    "uncertainty": {"method": "laplace", "model": "trial-laplace.safetensors"},
}
ALL_WEIGHTS = {
    "morphology": {"model": "bayes.safetensors", "centre": "position", "cutout_arcsec": 80},
    "uncertainty": {"model": "bayes.safetensors", "samples": 24},
}


def configure(base, core, stages=LAST_LAYER):
    release = ReleaseConfig(
        name="trial",
        fields=["sky.fits"],
        tiling={"core_px": core, "halo_px": 64},
        stages=stages,
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


def test_samples_of_whole_networks_look_at_what_morphology_was_shown(tmp_path):
    write_sky(simulate_sky(Recipe(size=256, seed=4, blank=True), "sky"), tmp_path / "sky.fits")
    path = write_bayesian(tmp_path / "bayes.safetensors")
    tables = []
    for core in (256, 64):
        result = run_release(configure(tmp_path, core, ALL_WEIGHTS))
        assert result.exit_code == 0, result
        tables.append(Release.open(tmp_path / f"out{core}").catalogue("sources"))
    one, many = tables
    assert len(one) > 10 and (one["source_id"] == many["source_id"]).all()
    for name in ("unc_entropy", "unc_mutual_information", "unc_overlap", "unc_margin", "unc_p_compact"):
        np.testing.assert_allclose(one[name], many[name], atol=1e-4)
    assert (one["unc_set"] == many["unc_set"]).all()
    # Each sample is near the mean network, so that what they say together is near what morphology says.
    p = np.stack([one[f"morph_p_{name.lower()}"] for name in ("FRI", "FRII", "compact", "bent")], axis=1)
    entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(axis=1)
    known = np.isfinite(entropy)
    assert known.sum() > 10 and np.ptp(entropy[known]) > 0.1
    assert np.corrcoef(entropy[known], one["unc_entropy"][known])[0, 1] > 0.9
    write_bayesian(path, seed=1)
    again = run_release(configure(tmp_path, 256, ALL_WEIGHTS))
    assert (again.done, again.redone) == (2, 2)
