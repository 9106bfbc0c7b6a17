"""Posteriors are fitted to a model, written with what held-out images say, and judge its classes alone."""

from __future__ import annotations

import numpy as np
import pytest
from model_files import write_forest
from safetensors.numpy import load_file, save_file
from trial_model import write_model, write_posterior

from survey_ml.errors import ConfigError, InputError
from survey_ml.learning.judgement import Standard
from survey_ml.learning.scores import measure_loss
from survey_ml.models.classifier import load_classifier
from survey_ml.models.estimator import find_estimator
from survey_ml.models.format import read_card, read_model
from survey_ml.models.posterior_fitting import choose_calibrator
from survey_ml.models.trial import make_images

IMAGES = make_images(40, 50, seed=9)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("base") / "trial.safetensors")


@pytest.fixture(scope="module")
def classifier(base):
    return load_classifier(base, "torch")


@pytest.fixture(scope="module")
def posterior(base):
    return write_posterior(base)


def find(classifier, path, method="laplace", **settings):
    return find_estimator(classifier.card.name, classifier.hash, method, given=path, **settings)


def test_it_judges_what_its_model_made(classifier, posterior):
    found = classifier.predict(IMAGES)
    estimator = find(classifier, posterior)
    judged = estimator.judge(found.embedding)
    assert estimator.classes == classifier.classes
    # Laplace's posterior is about the trained weights: the mean is near what the model says.
    assert np.abs(judged.uncertainty.probabilities - found.probabilities).max() < 0.15
    assert (judged.uncertainty.mutual_information > 0).all()
    said = estimator.describe()
    assert said["held_out"]["n"] == 160 and said["held_out"]["data"] == "drawn"
    assert sum(one["n"] for one in said["held_out"]["reliability"]) == 160
    for one in said["held_out"]["coverage"]:
        assert one["low"] <= 0.9 <= one["high"] or one["value"] > 0.9


def test_samples_follow_from_the_seed_alone(classifier, posterior):
    embedding = classifier.predict(IMAGES).embedding
    one, same, other = (find(classifier, posterior, seed=seed).judge(embedding) for seed in (4, 4, 5))
    assert np.array_equal(one.calibrated, same.calibrated)
    assert not np.array_equal(one.calibrated, other.calibrated)
    np.testing.assert_allclose(one.calibrated, other.calibrated, atol=0.15)
    backwards = find(classifier, posterior, seed=4).judge(embedding[::-1])
    assert np.array_equal(backwards.calibrated[::-1], one.calibrated)


def test_a_wider_coverage_gives_larger_sets(classifier, posterior):
    embedding = classifier.predict(IMAGES).embedding
    sizes = [
        find(classifier, posterior, standard=lambda classes, share=share: Standard(share))
        .judge(embedding)
        .sets.sum()
        for share in (0.5, 0.8, 0.95)
    ]
    assert sizes[0] < sizes[1] < sizes[2]


def test_dropout_needs_no_fit_but_a_rate(base, classifier, tmp_path):
    path = write_posterior(base, method="mc-dropout")
    tensors, card, _ = read_model(path)
    assert "factor" not in tensors and card.posterior.rate == classifier.card.architecture["dropout"]
    judged = find(classifier, path, "mc-dropout").judge(classifier.predict(IMAGES).embedding)
    assert (judged.uncertainty.mutual_information > 0).any()


def test_what_does_not_belong_together_is_said(base, classifier, posterior, tmp_path):
    with pytest.raises(ConfigError, match="is of the method laplace, not bayes-by-backprop"):
        find(classifier, posterior, "bayes-by-backprop")
    with pytest.raises(ConfigError, match=r"judges trial .* but classes are by other"):
        find_estimator("other", "0" * 64, "laplace", given=posterior)
    with pytest.raises(ConfigError, match="is no posterior of a model"):
        find(classifier, base)
    with pytest.raises(ConfigError, match="nothing is known of the uncertainty of model nobody"):
        find_estimator("nobody", "0" * 64, "laplace")
    with pytest.raises(ConfigError, match="classifies nothing"):
        load_classifier(posterior)
    with pytest.raises(ConfigError, match="not one linear layer"):
        write_posterior(write_forest(tmp_path / "forest.safetensors"))


@pytest.mark.parametrize("fault", ["missing", "shape", "nan"])
def test_a_damaged_file_is_named(posterior, tmp_path, fault):
    tensors = load_file(posterior)
    if fault == "missing":
        del tensors["held_out.labels"]
    elif fault == "shape":
        tensors["mean"] = tensors["mean"][:, :-1].copy()
    else:
        tensors["factor"][0, 0] = np.nan
    card, _ = read_card(posterior)
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path, metadata={"card": card.to_json()})
    with pytest.raises(InputError, match=r"bad\.safetensors"):
        read_model(path)


def test_the_calibrator_is_the_one_that_others_vouch_for():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (900, 2))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random(900) > p[:, 0]).astype(np.int64)
    hot = p**3 / (p**3).sum(axis=1, keepdims=True)
    calibrator, calibrated = choose_calibrator(hot, labels)
    assert calibrator.method in ("temperature", "vector")
    assert calibrator.scale[0] == pytest.approx(1 / 3, rel=0.25)
    before, after = (measure_loss(np.log(values), labels) for values in (hot, calibrated))
    assert after < before - 0.05


def test_the_command_fits_to_labelled_images_and_says_what_is_missing(base, classifier, tmp_path, capsys):
    from survey_ml.cli import main
    from survey_ml.data.labelled.product import write_cutout_file

    sources = []
    for number in range(2):
        images = (make_images(80, 50, seed=20 + number) * 255).round().astype(np.uint8)
        labels = np.array(classifier.classes)[np.arange(80) % 4]
        names, ra = np.array([f"s{k}" for k in range(80)]), np.linspace(0, 80, 80)
        sources.append(tmp_path / f"images{number}.npz")
        write_cutout_file(sources[-1], images, names, ra, ra / 2, np.full(80, 1.8), labels)
    given = ["train", "uncertainty", "--model", base, "--data", sources[0], "--method", "laplace"]
    given = [*map(str, given), "--out", str(tmp_path / "out"), "--threads", "1"]
    with pytest.raises(SystemExit) as ended:
        main([*given, "--held", str(sources[1])])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert "sets of 90 % hold bent" in said.out and "trial-laplace.safetensors" in said.out
    card, _ = read_card(tmp_path / "out/trial-laplace.safetensors")
    assert card.calibration.n == 80 and card.training.n == 80
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2 and "has no validation images" in capsys.readouterr().err


def test_a_card_that_is_half_a_head_is_refused(posterior, base, tmp_path):
    card, _ = read_card(posterior)
    for changes in ({"base": None}, {"calibration": None}, {"kind": "attention"}):
        path = tmp_path / "half.safetensors"
        text = card.model_copy(update=changes).to_json()
        save_file(load_file(posterior), path, metadata={"card": text})
        with pytest.raises(InputError, match="a head"):
            read_model(path)
