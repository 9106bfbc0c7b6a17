"""A classifier says the same of an image in any batch and on any runtime, and keeps the card's promises."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from model_files import make_card, make_network, write_forest, write_model

from survey_ml.errors import ConfigError, InputError
from survey_ml.learning.convolution import freeze_network
from survey_ml.learning.training import predict_logits
from survey_ml.models import classifier as classifier_module
from survey_ml.models.classifier import list_runtimes, load_classifier
from survey_ml.models.trial import make_images

IMAGES = make_images(70, 50, seed=2)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "C1": write_model(folder / "c1.safetensors"),
        "D4": write_model(folder / "d4.safetensors", group="D4", card={"temperature": 1.7}),
        "forest": write_forest(folder / "forest.safetensors"),
    }


@pytest.fixture(scope="module")
def load(paths):
    """Return a function that gives each classifier, made once."""
    made: dict = {}

    def get(kind, runtime="auto"):
        if (kind, runtime) not in made:
            made[kind, runtime] = load_classifier(paths[kind], runtime, threads=1)
        return made[kind, runtime]

    return get


EACH = [("C1", "torch"), ("C1", "openvino"), ("D4", "torch"), ("D4", "openvino"), ("forest", "auto")]


@pytest.mark.parametrize(("kind", "runtime"), EACH)
def test_a_row_depends_on_its_image_alone(load, kind, runtime):
    classifier = load(kind, runtime)
    whole = classifier.predict(IMAGES)
    assert whole.probabilities.std(axis=0).max() > 1e-3
    order = np.random.default_rng(0).permutation(len(IMAGES))
    for size in (1, 7, 64):
        for places in (np.arange(len(IMAGES)), order):
            found = classifier.predict(IMAGES[places], batch_size=size)
            for one, two in (
                (found.logits, whole.logits),
                (found.probabilities, whole.probabilities),
                (found.embedding, whole.embedding),
                (found.attention, whole.attention),
            ):
                assert (one is None) == (two is None)
                if one is not None:
                    np.testing.assert_allclose(one, two[places], atol=1e-6)
            np.testing.assert_array_equal(
                found.probabilities.argmax(axis=1), whole.probabilities[places].argmax(axis=1)
            )


@pytest.mark.parametrize(("kind", "runtime"), EACH)
def test_shapes_and_dtypes(load, kind, runtime):
    classifier = load(kind, runtime)
    for n in (0, 1, 3):
        found = classifier.predict(IMAGES[:n])
        assert found.logits.shape == found.probabilities.shape == (n, 2)
        assert found.embedding.shape[0] == n
        arrays = [found.logits, found.probabilities, found.embedding]
        if kind == "forest":
            assert found.attention is None
        else:
            assert found.attention.shape == (n, 24, 24)
            arrays.append(found.attention)
        assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
        np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("kind", ["C1", "D4"])
def test_runtimes_agree(load, kind):
    one, two = (load(kind, runtime).predict(IMAGES) for runtime in ("torch", "openvino"))
    np.testing.assert_allclose(one.logits, two.logits, atol=1e-4)
    np.testing.assert_allclose(one.probabilities, two.probabilities, atol=1e-4)
    np.testing.assert_allclose(one.embedding, two.embedding, atol=1e-4)
    np.testing.assert_allclose(one.attention, two.attention, atol=1e-4)


def test_it_says_what_the_trained_network_says(load):
    expected = predict_logits(make_network(group="D4"), IMAGES)
    for runtime in ("torch", "openvino"):
        np.testing.assert_allclose(load("D4", runtime).predict(IMAGES).logits, expected, atol=1e-4)


def test_the_temperature_divides_the_logits(load):
    found = load("D4").predict(IMAGES)
    powers = np.exp(found.logits.astype(float) / 1.7)
    np.testing.assert_allclose(found.probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)


def move(images):
    """Yield the images under the seven symmetries that are not the identity."""
    for reflected in (images, images[:, :, ::-1]):
        for turns in range(4):
            if turns or reflected is not images:
                yield np.ascontiguousarray(np.rot90(reflected, turns, axes=(1, 2)))


@pytest.mark.parametrize(("kind", "runtime"), EACH)
def test_only_what_claims_to_be_invariant_is(load, kind, runtime):
    classifier = load(kind, runtime)
    plain = classifier.predict(IMAGES).probabilities
    change = max(np.abs(classifier.predict(m).probabilities - plain).max() for m in move(IMAGES))
    if kind == "C1":
        assert classifier.card.invariant_under == ""
        assert change > 1e-3
    else:
        assert classifier.card.invariant_under == "D4"
        assert change < 1e-5


def test_a_forest_says_what_its_trees_say(load, paths):
    from survey_ml.learning.forest import Forest, evaluate_forest
    from survey_ml.learning.measurements import NAMES, measure_images
    from survey_ml.models.format import read_model

    tensors, card, _ = read_model(paths["forest"])
    forest = Forest.from_arrays(tensors, len(NAMES))
    found = load("forest").predict(IMAGES)
    np.testing.assert_allclose(
        found.probabilities, evaluate_forest(forest, measure_images(IMAGES)), atol=1e-6
    )
    assert found.embedding.shape == (len(IMAGES), len(card.architecture["measurements"]))


def test_it_says_which_model_it_is(load):
    classifier = load("C1")
    assert classifier.classes == ("FRI", "FRII")
    assert classifier.label == f"trial 1 {classifier.hash[:12]}"
    assert len(classifier.hash) == 64


@pytest.mark.parametrize("shape", [(50, 50), (2, 1, 50, 50), (2, 49, 50)])
def test_images_of_another_shape_are_an_error(load, shape):
    with pytest.raises(InputError, match=r"not \(n, 50, 50\)"):
        load("C1").predict(np.zeros(shape, np.float32))


def test_values_that_are_not_finite_and_empty_batches_are_errors(load):
    with pytest.raises(InputError, match="not finite"):
        load("C1").predict(np.full((1, 50, 50), np.nan, np.float32))
    with pytest.raises(ConfigError, match="batch of 0"):
        load("C1").predict(IMAGES, batch_size=0)


def test_given_images_may_be_read_only_views_of_any_kind(load):
    views = IMAGES.astype(np.float64)[:, ::-1, ::-1]
    views.flags.writeable = False
    found = load("C1").predict(views).logits
    np.testing.assert_allclose(found, load("C1").predict(IMAGES[:, ::-1, ::-1]).logits, atol=1e-6)


def test_without_openvino_torch_runs_it(paths, monkeypatch):
    monkeypatch.setattr(classifier_module, "has_openvino", lambda: False)
    monkeypatch.setattr("survey_ml.models.runtime.has_openvino", lambda: False)
    classifier = load_classifier(paths["C1"])
    assert classifier.runtime == "torch"
    assert list_runtimes(classifier.card) == ["torch"]
    with pytest.raises(ConfigError, match="openvino is not installed"):
        load_classifier(paths["C1"], "openvino")


def test_what_cannot_be_loaded_is_an_error(paths):
    with pytest.raises(ConfigError, match="no runtime"):
        load_classifier(paths["C1"], "cuda")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has the hash"):
        load_classifier(paths["C1"], expected_hash="0" * 64)
    with pytest.raises(ConfigError, match="there is no model"):
        load_classifier("nobody")


def test_a_damaged_forest_is_refused(tmp_path, paths):
    from survey_ml.models.format import read_model, save_model

    tensors, card, _ = read_model(paths["forest"])
    tensors["left"] = np.zeros_like(tensors["left"])
    save_model(tmp_path / "bad.safetensors", tensors, card)
    with pytest.raises(InputError, match="leads left"):
        load_classifier(tmp_path / "bad.safetensors")
    odd = card.model_copy(
        update={"architecture": {**card.architecture, "measurements": ["area", "colour", "flux"]}}
    )
    with pytest.raises(InputError, match="colour"):
        save_model(tmp_path / "odd.safetensors", tensors, odd)


def test_frozen_networks_hold_only_plain_convolutions():
    from torch import nn

    network = freeze_network(make_network(group="D4"))
    kinds = {type(m).__name__ for m in network.modules() if not list(m.children())}
    assert "GroupConvolution" not in kinds
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 11 + 9
    assert make_card().kind == "attention"


@pytest.mark.slow
def test_openvino_reports_nothing_to_anybody(paths, tmp_path):
    """As it comes, importing it writes into the home folder and opens a connection."""
    source = f"""
import sys
def hear(event, arguments):
    if event.startswith("socket."):
        raise SystemExit(f"{{event}} {{arguments}}")
sys.addaudithook(hear)
from survey_ml.models.classifier import load_classifier
assert load_classifier({str(paths["C1"])!r}).runtime == "openvino"
assert "openvino_telemetry" not in sys.modules
"""
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(home.iterdir()) == []
