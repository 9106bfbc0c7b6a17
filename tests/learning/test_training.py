"""Training: it learns, goes on where it was interrupted, and stops when validation says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from survey_ml.errors import SurveyMLError
from survey_ml.learning.augmentation import augment_images
from survey_ml.learning.networks import Architecture, AttentionNetwork
from survey_ml.learning.training import Recipe, State, predict_logits, train_network

ARCHITECTURE = Architecture(2, fields=(4, 4, 6, 8), side=16, reduce=1, mean=0.02, std=0.1)


def draw_sources(n, seed):
    """Single blobs and doubles, at any angle."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 2).astype(np.int64)
    y, x = np.mgrid[:16, :16] - 7.5
    images = np.zeros((n, 16, 16), np.float32)
    for image, label in zip(images, labels, strict=True):
        angle = rng.uniform(0, 2 * np.pi)
        for side in (-1, 1):
            dx, dy = 4.0 * label * side * np.cos(angle), 4.0 * label * side * np.sin(angle)
            image += np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / 4.0)
        image /= image.max()
    return images, labels


def make_network(seed=0):
    torch.manual_seed(seed)
    return AttentionNetwork(ARCHITECTURE)


def test_it_learns_what_can_be_learnt():
    network = make_network()
    recipe = Recipe(epochs=8, batch_size=16, learning_rate=5e-3)
    state = train_network(network, draw_sources(96, 1), recipe, validation=draw_sources(40, 2))
    images, labels = draw_sources(100, 3)
    assert (predict_logits(network, images).argmax(1) == labels).mean() > 0.9
    assert [entry["epoch"] for entry in state.history] == list(range(1, 9))
    assert state.history[-1]["loss"] < state.history[0]["loss"]


class InterruptedTrainingError(Exception):
    pass


def test_an_interrupted_training_ends_like_one_that_was_not(tmp_path):
    data, recipe = draw_sources(33, 1), Recipe(epochs=4, batch_size=16, learning_rate=5e-3, seed=3)
    whole = make_network()
    train_network(whole, data, recipe, validation=draw_sources(10, 2))

    def stop(state):
        torch.save(vars(state), tmp_path / "state.pt")
        if state.epoch == 2:
            raise InterruptedTrainingError

    with pytest.raises(InterruptedTrainingError):
        train_network(make_network(), data, recipe, validation=draw_sources(10, 2), report=stop)
    kept = State(**torch.load(tmp_path / "state.pt", weights_only=True))
    again = make_network(seed=99)
    train_network(again, data, recipe, validation=draw_sources(10, 2), state=kept)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_it_stops_when_validation_gets_no_better():
    wrong = draw_sources(20, 2)
    recipe = Recipe(epochs=30, learning_rate=5e-3, patience=2)
    state = train_network(make_network(), draw_sources(32, 1), recipe, validation=(wrong[0], 1 - wrong[1]))
    assert state.epoch == state.best_epoch + 2 < 30
    # Interrupted after its last epoch it is not gone on with.
    seen = []
    again = train_network(
        make_network(),
        draw_sources(32, 1),
        recipe,
        validation=(wrong[0], 1 - wrong[1]),
        state=state,
        report=seen.append,
    )
    assert not seen and again.epoch == state.epoch


def test_too_little_to_train_on():
    with pytest.raises(SurveyMLError, match="too few"):
        train_network(make_network(), draw_sources(1, 1), Recipe(epochs=1))


def test_a_loss_that_is_no_number_ends_the_training():
    images, labels = draw_sources(8, 1)
    images[0] = np.nan
    with pytest.raises(SurveyMLError, match="loss of step"):
        train_network(make_network(), (images, labels), Recipe(epochs=1, batch_size=8))


def test_a_validation_loss_that_is_no_number_is_said():
    images, labels = draw_sources(8, 1)
    with pytest.raises(SurveyMLError, match="never a number"):
        train_network(
            make_network(), (images, labels), Recipe(epochs=2), validation=(images * np.nan, labels)
        )


def test_a_class_without_images_weighs_nothing():
    images, _ = draw_sources(8, 1)
    state = train_network(make_network(), (images, np.zeros(8, np.int64)), Recipe(epochs=1, balance=True))
    assert np.isfinite(state.history[0]["loss"])


def test_changed_images_keep_their_flux_and_their_seed():
    images = torch.from_numpy(draw_sources(32, 5)[0])[:, None]
    images = torch.nn.functional.pad(images, (8, 8, 8, 8))
    one, two = (augment_images(images, torch.Generator().manual_seed(4), scales=(1.0, 1.0)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.allclose(one, images, atol=0.1)
    ratio = one.sum((1, 2, 3)) / images.sum((1, 2, 3))
    assert torch.allclose(ratio, torch.ones(32), atol=0.02)
    larger = augment_images(images, torch.Generator().manual_seed(4), scales=(1.2, 1.2), shift=0.0)
    assert torch.allclose(larger.sum((1, 2, 3)) / images.sum((1, 2, 3)), torch.full((32,), 1.44), atol=0.05)
