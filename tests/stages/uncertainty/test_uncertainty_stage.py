"""The stage: columns, what stands where there is no class, and independence of the other sources."""

from __future__ import annotations

import numpy as np
import pytest
from trial_model import write_model, write_posterior

from survey_ml import uncertainty_flags as flags
from survey_ml.engine.outputs import check_outputs
from survey_ml.errors import ConfigError
from survey_ml.field import Beam, Field, Tile, Window
from survey_ml.models.classifier import load_classifier
from survey_ml.stage import Inputs
from survey_ml.stages.uncertainty.spec import SPEC
from survey_ml.stages.uncertainty.stage import Uncertainties, UncertaintyOptions

pytest.importorskip("torch", reason="survey-ml[learning] is not installed")

CLASSES = ("FRI", "FRII", "compact", "bent")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_model(tmp_path_factory.mktemp("model") / "trial.safetensors")
    write_posterior(path)
    return path


@pytest.fixture(scope="module")
def classified(model):
    """What morphology writes of thirty sources, the fourth without data."""
    from survey_ml.models.trial import make_images

    classifier = load_classifier(model, "torch")
    found = classifier.predict(make_images(30, 50, seed=2))
    p, embedding = found.probabilities.copy(), found.embedding.copy()
    p[3], embedding[3] = np.nan, np.nan
    number = np.arange(30) * 7
    morphology = {"source_id": number} | {
        f"morph_p_{name.lower()}": np.ascontiguousarray(p[:, k]) for k, name in enumerate(CLASSES)
    }
    summary = {"name": "trial", "hash": classifier.hash, "classes": list(CLASSES)}
    return morphology, {"source_id": number, "morph_embedding": embedding}, summary


def set_up(trial, /, **options):
    own = {"method": "laplace", "model": str(trial.with_name("trial-laplace.safetensors"))}
    made = Uncertainties(UncertaintyOptions(**own | options))
    made.setup()
    return made


def run(stage, classified, rows=slice(None)):
    morphology, features, summary = classified
    tables = {
        "morphology": {name: values[rows] for name, values in morphology.items()},
        "morphology_features": {name: values[rows] for name, values in features.items()},
    }  # fmt: skip
    window = Window(0, 50, 0, 50)
    tile = Tile("0_0", window, window)
    inputs = Inputs(
        Field("sky", (50, 50), "", Beam(5.4, 5.4, 0.0), 1.4e9),
        tile,
        {},
        tables,
        {"morphology_model": summary},
    )
    _, found, summaries = check_outputs("uncertainty", SPEC.writes, stage.run(inputs), tile)
    return found["uncertainty"][0], summaries["uncertainty_model"]


def test_columns_are_as_promised(model, classified):
    rows, summary = run(set_up(model), classified)
    assert list(rows) == [
        "source_id", "unc_entropy", "unc_expected_entropy", "unc_mutual_information", "unc_overlap",
        "unc_margin", "unc_p_fri", "unc_p_frii", "unc_p_compact", "unc_p_bent", "unc_set", "unc_flags",
    ]  # fmt: skip
    known = np.arange(30) != 3
    parts = rows["unc_expected_entropy"] + rows["unc_mutual_information"]
    np.testing.assert_allclose(rows["unc_entropy"][known], parts[known], atol=1e-6)
    p = np.stack([rows[f"unc_p_{name.lower()}"] for name in CLASSES], axis=1)
    np.testing.assert_allclose(p[known].sum(axis=1), 1.0, atol=1e-6)
    assert {part for text in rows["unc_set"] for part in text.split("|")} <= {*CLASSES, ""}
    several = np.char.find(rows["unc_set"].astype(str), "|") >= 0
    assert several.any() and ((rows["unc_flags"][several] & flags.DOUBTFUL) != 0).all()
    assert (summary["method"], summary["samples"], summary["coverage"]) == ("laplace", 100, 0.9)
    assert len(summary["hash"]) == 64 and summary["held_out"]["n"] == 160


def test_without_a_class_there_is_no_uncertainty(model, classified):
    rows, _ = run(set_up(model), classified)
    assert rows["unc_flags"][3] == flags.NO_DATA and rows["unc_set"][3] == ""
    assert np.isnan(rows["unc_entropy"][3]) and np.isnan(rows["unc_p_bent"][3])


def test_no_source_depends_on_the_others(model, classified):
    stage = set_up(model)
    whole, summary = run(stage, classified)
    for chosen in ([17], np.arange(30)[::-1], slice(0, 0)):
        rows, same = run(stage, classified, chosen)
        for name, values in rows.items():
            assert np.array_equal(values, whole[name][chosen], equal_nan=values.dtype.kind == "f"), name
        assert same == summary


def test_margin_and_coverage_do_what_they_say(model, classified):
    strict, _ = run(set_up(model, margin=1.0), classified)
    assert ((strict["unc_flags"] & (flags.DOUBTFUL | flags.NO_DATA)) != 0).all()
    wide, _ = run(set_up(model, coverage=0.99), classified)
    narrow, _ = run(set_up(model, coverage=0.3), classified)
    assert sum(map(len, wide["unc_set"])) > sum(map(len, narrow["unc_set"]))


def test_shares_of_the_survey_change_weighted_sets(model, classified):
    shares = {"FRI": 0.01, "FRII": 0.01, "compact": 0.97, "bent": 0.01}
    plain, _ = run(set_up(model), classified)
    weighted, _ = run(set_up(model, guarantee="weighted", shares=shares), classified)
    assert (plain["unc_set"] != weighted["unc_set"]).any()
    assert np.array_equal(plain["unc_entropy"], weighted["unc_entropy"], equal_nan=True)
    with pytest.raises(ConfigError, match="shares of FRI for classes"):
        run(set_up(model, guarantee="weighted", shares={"FRI": 1.0}), classified)


def test_what_is_missing_or_of_another_model_is_said(model, classified):
    with pytest.raises(ConfigError, match="there is no model"):
        set_up(model, model="nobody")
    with pytest.raises(ConfigError, match="of the method laplace"):
        set_up(model, method="mc-dropout")
    with pytest.raises(ConfigError, match="is no posterior of a model"):
        set_up(model, model=str(model))
    morphology, features, summary = classified
    with pytest.raises(ConfigError, match="but classes are by trial"):
        run(set_up(model), (morphology, features, summary | {"hash": "f" * 64}))
    with pytest.raises(ConfigError, match="nothing is known of the uncertainty of model trial"):
        run(set_up(model, model=None), classified)


def test_the_key_holds_the_file_that_is_named_or_all_that_could_be():
    named = UncertaintyOptions(model="mirabest-d4-bayes-by-backprop").files()
    assert list(named) == ["mirabest-d4-bayes-by-backprop"]
    assert set(UncertaintyOptions().files()) >= {*named, "firstgalaxy-d4-bayes-by-backprop"}
    assert not UncertaintyOptions(method="mc-dropout").files()
