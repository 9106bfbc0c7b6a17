"""Models are trained from labelled images, go on after an interruption, and carry their figures."""

from __future__ import annotations

import json

import numpy as np
import pytest

from survey_ml.cli import main
from survey_ml.data.labelled.product import write_cutout_file
from survey_ml.errors import ConfigError, InputError
from survey_ml.labelled import LabelledImages
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.models.classifier import load_classifier
from survey_ml.models.fitting import CHECKPOINT, Fitting, divide_images, fit_model
from survey_ml.models.format import read_model

SMALL = {"fields": [2, 4, 4, 6], "side": 32, "reduce": 1}


def draw_sources(n, seed, classes=("single", "double")):
    """Single blobs and doubles of 24 px, at random angles and places on the sky."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 2).astype(np.int64)
    y, x = np.mgrid[:24, :24] - 12.0
    images = np.zeros((n, 24, 24))
    for image, label in zip(images, labels, strict=True):
        angle = rng.uniform(0, 2 * np.pi)
        for side in (-1, 1):
            dx, dy = 5.0 * label * side * np.cos(angle), 5.0 * label * side * np.sin(angle)
            image += np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / 4.0)
        image *= 255.0 / image.max()
    return LabelledImages(
        images=images.astype(np.uint8),
        labels=labels,
        classes=classes,
        names=np.array([f"s{k}" for k in range(n)]),
        ra=rng.uniform(0, 10, n),
        dec=rng.uniform(0, 10, n),
        split=np.full(n, "train"),
    )


def make_fitting(**settings):
    given = {
        "name": "trial",
        "architecture": SMALL,
        "recipe": {"epochs": 3, "learning_rate": 5e-3},
        "validation": 0.25,
    }
    return Fitting(**{**given, **settings})


@pytest.mark.parametrize("model", ["attention-gate", "equivariant", "cnn", "tang", "forest"])
def test_every_kind_is_trained_written_and_read_again(model, tmp_path):
    settings = {"recipe": {"n_trees": 20}, "architecture": {}} if model == "forest" else {}
    if model in ("cnn", "tang"):  # no fewer pixels fit the poolings of tang
        settings = {"architecture": {"side": 72, "reduce": 1}}
    path = fit_model(
        draw_sources(64, 1), make_fitting(model=model, **settings), tmp_path, test=draw_sources(20, 2),
        source="drawn",
    )  # fmt: skip
    _, card, _ = read_model(path)
    assert card.training.n == 48 and card.training.data == "drawn" and card.classes == ("single", "double")
    assert card.invariant_under == ("D4" if model == "equivariant" else "")
    figures = {(metric.data, metric.quantity): metric for metric in card.metrics}
    accuracy = figures["test", "accuracy"]
    assert accuracy.n == 20 and accuracy.low < accuracy.value <= accuracy.high <= 1.0
    assert json.loads((tmp_path / "metrics.json").read_text())
    found = load_classifier(path).predict(np.zeros((1, 150, 150), np.float32))
    assert found.probabilities.sum() == pytest.approx(1.0)
    assert (found.attention is None) == (model in ("cnn", "tang", "forest"))
    assert not (tmp_path / CHECKPOINT).exists()
    if model != "forest":
        curves = (tmp_path / "curves.csv").read_text().splitlines()
        assert curves[0].startswith("epoch,loss,val_loss") and len(curves) == 4


class InterruptedFitError(Exception):
    pass


def test_an_interrupted_fit_gives_the_same_file(tmp_path):
    data, fitting = draw_sources(40, 1), make_fitting()
    whole = fit_model(data, fitting, tmp_path / "whole")

    def stop(entry, epochs):
        if entry["epoch"] == 2:
            raise InterruptedFitError

    with pytest.raises(InterruptedFitError):
        fit_model(data, fitting, tmp_path / "broken", progress=stop)
    other = make_fitting(seed=5)
    with pytest.raises(ConfigError, match="other images or settings"):
        fit_model(data, other, tmp_path / "broken")
    seen = []
    again = fit_model(data, fitting, tmp_path / "broken", progress=lambda entry, epochs: seen.append(entry))
    assert [entry["epoch"] for entry in seen] == [3]
    assert again.read_bytes() == whole.read_bytes()


def test_looking_at_the_turned_image_as_well_changes_no_weight(tmp_path):
    data = draw_sources(40, 1)
    once, twice = (
        read_model(fit_model(data, make_fitting(architecture={**SMALL, **more}), tmp_path / name))
        for name, more in (("once", {}), ("twice", {"turned": True}))
    )
    assert twice[1].architecture["turned"] and not once[1].architecture["turned"]
    changed = {name for name, values in once[0].items() if not np.array_equal(values, twice[0][name])}
    # What features are standardised by is measured on what the network sees.
    assert changed and all(name.startswith("standards.") for name in changed)
    images = prepare_images(data, 150)
    one, other = (load_classifier(tmp_path / name / "trial.safetensors") for name in ("once", "twice"))
    assert np.abs(one.predict(images).logits - other.predict(images).logits).max() > 1e-3


def test_validation_is_apart_on_the_sky():
    data = draw_sources(60, 3)
    again = [f"{name}b" for name in data.names]
    keys = ("images", "labels", "ra", "dec", "split")
    twice = LabelledImages(
        **{key: np.concatenate([getattr(data, key)] * 2) for key in keys},
        names=np.concatenate([data.names, again]),
        classes=data.classes,
    )
    train, valid = divide_images(twice, make_fitting())
    assert len(valid.labels) and len(train.labels) + len(valid.labels) == 120
    assert not set(train.ra) & set(valid.ra)


def test_a_class_without_images_is_named(tmp_path):
    data = draw_sources(30, 1)
    with pytest.raises(InputError, match="no training images of double"):
        fit_model(data.take(data.labels == 0), make_fitting(), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": {"depth": 3}}, "unknown"),
        ({"recipe": {"epoch": 3}}, "unknown"),
        ({"recipe": {"observation": {"beam": 3}}}, "unknown"),
        ({"recipe": {"observation": {"share": 3}}}, "share is 3"),
        ({"group": "E2"}, "no group"),
        ({"architecture": {"side": 50}}, "halved"),
        ({"architecture": {"stretch": 0}}, "stretch"),
        ({"architecture": {"stretch": "nan"}}, "stretch of nan"),
        ({"architecture": {"stretch": None}}, "architecture.stretch is wrong"),
        ({"architecture": {"pooled": "maybe"}}, "architecture.pooled is wrong"),
        ({"architecture": {"fields": [2, 2, 2]}}, "architecture.fields.3 is wrong"),
        ({"architecture": {"fields": [0, 2, 2, 2]}}, "architecture.fields is"),
        ({"architecture": {"mean": "inf"}}, "architecture.mean is inf"),
        ({"architecture": {"std": -0.1}}, "architecture.std is -0.1"),
        ({"architecture": {"dropout": 1.0}}, "architecture.dropout is 1.0"),
        ({"architecture": {"reduce": 0}}, "architecture.reduce is 0"),
        ({"architecture": {"side": 8, "reduce": 1}}, r"fourth scale\n.*at least 16"),
        ({"architecture": {"normalisation": "foo"}}, "foo, none of range, standard, sigmoid, softmax"),
        ({"architecture": {"n_classes": 3}}, "2 classes"),
        ({"architecture": {"group": "C1"}}, "architecture.group is C1"),
        ({"model": "cnn", "architecture": {"side": 32, "reduce": 2}}, "too small"),
        ({"model": "lenet", "architecture": {"side": 144, "turned": True}}, "turned means nothing"),
        ({"model": "cnn", "architecture": {"side": 144, "aggregation": "mean"}}, "aggregation means nothing"),
        ({"model": "cnn", "group": "C8", "architecture": {"side": 144}}, "group means nothing"),
        ({"model": "attention-gate", "group": "D4"}, "group means nothing to the model attention-gate"),
        ({"model": "forest", "recipe": {}}, "architecture.fields means nothing to the model forest"),
        ({"model": "forest", "recipe": {}, "architecture": {}, "group": "C8"}, "group means nothing"),
        ({"group": "D33"}, "a number of turns to 32"),
        ({"model": "tang", "architecture": {"side": 150, "pooled": True}}, "pooled means nothing"),
        ({"recipe": {"epochs": "two"}}, "epochs of recipe is wrong"),
        ({"recipe": {"epochs": 0}}, "epochs of a training is 0"),
        ({"recipe": {"batch_size": 0}}, "batch_size"),
        ({"recipe": {"learning_rate": float("nan")}}, "learning_rate"),
        ({"recipe": {"scales": [1]}}, "scales.1 of recipe is wrong"),
        ({"recipe": {"scales": [1.1, 0.9]}}, "smaller first"),
        ({"recipe": {"observation": 3}}, "observation of recipe is wrong"),
    ],
)
def test_wrong_settings_are_said_before_anything_is_trained(settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        fit_model(draw_sources(20, 1), make_fitting(**settings), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_trains_on_a_folder_and_names_what_is_wrong(tmp_path, capsys):
    data = draw_sources(40, 1)
    names = np.array(data.classes)[data.labels]
    source = tmp_path / "mine.npz"
    write_cutout_file(source, data.images, data.names, data.ra, data.dec, np.full(40, 1.8), names)
    config = tmp_path / "train.yaml"
    config.write_text("model: equivariant\narchitecture: {fields: [2, 2, 2, 2], side: 32, reduce: 1}\n"
                      "recipe: {epochs: 2}\nvalidation: 0.2\n")  # fmt: skip
    out = tmp_path / "out"
    given = [
        "train",
        "morphology",
        "--data",
        str(source),
        "--config",
        str(config),
        "--out",
        str(out),
        "--json",
    ]
    with pytest.raises(SystemExit) as ended:
        main(given)
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    told = json.loads(said.out)
    assert load_classifier(told["model"]).hash == told["hash"]
    assert {metric["data"] for metric in told["metrics"]} == {"validation"}
    # Eight images were held out: too few for a shift to be told by.
    assert told["reference"] is None
    config.write_text("modell: equivariant\n")
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    assert "modell" in capsys.readouterr().out


@pytest.mark.slow
def test_two_workers_train_what_one_does(tmp_path):
    """Batches of eight are shared out; what one process would have learnt is learnt, by each member."""
    data = draw_sources(44, 1)
    fitting = make_fitting(
        architecture={**SMALL, "dropout": 0.0, "members": [{"side": 32, "reduce": 1}] * 2},
        recipe={"epochs": 3, "batch_size": 8, "learning_rate": 2e-3},
    )
    names = np.array(data.classes)[data.labels]
    source, config = tmp_path / "mine.npz", tmp_path / "train.yaml"
    write_cutout_file(source, data.images, data.names, data.ra, data.dec, np.full(44, 1.8), names)
    config.write_text(fitting.model_dump_json())
    common = ["train", "morphology", "--data", str(source), "--config", str(config), "--quiet"]
    for workers in "12":
        with pytest.raises(SystemExit) as ended:
            main([*common, "--out", str(tmp_path / workers), "--workers", workers])
        assert ended.value.code == 0
    one, two = (load_classifier(tmp_path / workers / "trial.safetensors", "torch") for workers in "12")
    images = draw_sources(20, 5).images.astype(np.float32) / 255.0
    images = np.pad(images, ((0, 0), (63, 63), (63, 63)))
    np.testing.assert_allclose(
        two.predict(images).probabilities, one.predict(images).probabilities, atol=5e-3
    )
    curves = [(tmp_path / workers / "curves.csv").read_text().splitlines() for workers in "12"]
    assert len(curves[1]) == len(curves[0]) == 1 + 2 * 3
    assert not list((tmp_path / "2").glob("checkpoint*"))
