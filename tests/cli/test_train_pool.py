"""`survey-ml train morphology --semi-supervised`: what is left out, refused, and said in the card."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from trial_model import write_model

from survey_ml.cli.train_pool import open_pool
from survey_ml.data.labelled.product import write_cutout_file
from survey_ml.data.labelled.reading import read_labelled
from survey_ml.errors import InputError
from survey_ml.models.classifier import load_classifier
from survey_ml.models.fitting import Fitting
from survey_ml.models.format import read_model
from survey_ml.models.trial import make_images

IMAGES = make_images(200, 50, 1)
BYTES = np.rint(255 * IMAGES).astype(np.uint8)
CONFIG = """
name: semi
model: lenet
architecture: {side: 48, reduce: 3, mean: 0.1, std: 0.2}
fixmatch: {epochs: 2, steps: 3, batch_size: 4, beam: 2.0, noise: 0.05}
validation: 0.2
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "trial.safetensors", classes=("FRI", "FRII"))


@pytest.fixture
def sets(model, tmp_path):
    """Labelled images, a pool like them of which three are of the same sources, and a blurred one."""
    said = load_classifier(model).predict(IMAGES).probabilities.argmax(axis=1)
    labels, ra = np.where(said == 0, "FRI", "FRII"), np.arange(200) * 0.1
    names = np.array([f"s{k}" for k in range(200)])

    def write(name, images, rows, places):
        path = tmp_path / f"{name}.npz"
        write_cutout_file(path, images, names[rows], places, np.zeros(len(rows)), 1.8, label=labels[rows])
        return path

    first, rest = np.arange(100), np.arange(100, 200)
    near = ra[rest].copy()
    near[:60] = ra[:60] + 5.0 / 3600.0
    blurred = gaussian_filter(IMAGES[rest], (0.0, 4.0, 4.0))
    blurred = np.rint(255 * blurred / blurred.max(axis=(1, 2), keepdims=True)).astype(np.uint8)
    (tmp_path / "train.yaml").write_text(CONFIG)
    write("labelled", BYTES[first], first, ra[first])
    write("pool", BYTES[rest], rest, near)
    write("blurred", blurred, rest, ra[rest])
    return tmp_path


def train(call, sets, model, pool, *more):
    return call(
        "train", "morphology", "--data", sets / "labelled.npz", "--semi-supervised", sets / pool,
        "--config", sets / "train.yaml", "--pool-model", model, "--out", sets / "out", *more,
    )  # fmt: skip


def test_a_pool_is_learnt_from_and_the_card_says_so(call, sets, model):
    answer = train(call, sets, model, "pool.npz", "--json")
    assert answer.code == 0, answer.err
    _, card, _ = read_model(answer.json["model"])
    # Of the sixty that are labelled sources as well, those that were held back for validation are gone.
    assert "within 30 arcsec of validation or test images" in answer.err
    assert card.training.unlabelled == str(sets / "pool.npz") and 70 < card.training.n_unlabelled < 100
    gone = 100 - card.training.n_unlabelled
    assert f"left out of the pool: {gone} images" in answer.err
    assert card.training.recipe["fixmatch"]["steps"] == 3
    head = (sets / "out" / "curves.csv").read_text().splitlines()
    assert "mask_rate" in head[0] and len(head) == 3
    shown = call("models", "show", answer.json["model"]).out
    assert "and without labels" in shown and f"({card.training.n_unlabelled} images)" in shown


def test_a_pool_that_is_not_safe_is_refused_unless_one_insists(call, sets, model):
    answer = train(call, sets, model, "blurred.npz")
    assert answer.code == 2 and "not safe to learn from" in answer.err and "--pool-anyway" in answer.err
    assert not (sets / "out").exists()
    answer = train(call, sets, model, "blurred.npz", "--pool-anyway", "--json")
    assert answer.code == 0, answer.err
    assert "not safe, and taken nevertheless" in answer.err
    _, card, _ = read_model(answer.json["model"])
    assert "taken although sources of a class look different" in card.training.unlabelled


def test_an_array_of_images_has_no_positions_and_that_is_said(call, sets, model):
    np.save(sets / "pool.npy", BYTES[100:])
    answer = train(call, sets, model, "pool.npy", "--json")
    assert answer.code == 0, answer.err
    assert "the pool has no positions" in answer.err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("fixmatch: {tau: 0.9}", "no setting tau"),
        ("fixmatch: {preset: tiny}", "no preset 'tiny'"),
        ("fixmatch: {ratio: many}", "ratio of fixmatch is wrong"),
        ("fixmatch: {threshold: 2.0}", "threshold of fixmatch is 2.0"),
        ("model: forest", "a forest cannot"),
        ("recipe: {epochs: 3}", "recipe mean nothing"),
        ("posterior: {method: mc-dropout}", "no posterior is fitted"),
    ],
)
def test_settings_that_mean_nothing_are_said(call, sets, model, config, message):
    (sets / "train.yaml").write_text(f"validation: 0.25\n{config}\n")
    (sets / "pool.npz").unlink()  # not looked at before
    answer = train(call, sets, model, "pool.npz", "--json")
    assert answer.code == 2
    assert message in answer.json["error"]


def test_other_classes_than_the_model_and_settings_without_a_pool(call, sets, model, tmp_path):
    other = write_model(tmp_path / "four.safetensors")
    answer = train(call, sets, other, "pool.npz", "--json")
    assert answer.code == 2 and "name a model of these classes" in answer.json["hint"]
    answer = call(
        "train", "morphology", "--data", sets / "labelled.npz", "--config", sets / "train.yaml", "--out",
        tmp_path / "out", "--json",
    )  # fmt: skip
    assert answer.code == 2 and "no unlabelled images" in answer.json["error"]


def test_without_a_model_of_the_classes_only_positions_are_looked_at(sets, capsys):
    data = replace(read_labelled(sets / "labelled.npz"), classes=("one", "two"))
    none = data.take(slice(0))
    pool = open_pool(str(sets / "blurred.npz"), None, data, none, Fitting(validation=0.25))
    assert "there is no model of one, two; name one with --pool-model" in capsys.readouterr().err
    assert "taken although nothing told whether they are like the labelled ones" in pool.describe()
    with pytest.raises(InputError, match="all 100 images of the pool are of validation or test sources"):
        open_pool(str(sets / "labelled.npz"), None, data, data, Fitting(validation=0.25))
