"""FixMatch: its loss by hand, the same again from a seed and after an interruption, and it helps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from survey_ml.errors import ConfigError, SurveyMLError
from survey_ml.learning.baselines import make_lenet, make_tang
from survey_ml.learning.fixmatch import (
    Unlabelled,
    align_probabilities,
    choose_sure,
    measure_consistency,
    train_fixmatch,
)
from survey_ml.learning.fixmatch_recipe import PAPER, SMALL, FixMatchRecipe
from survey_ml.learning.networks import Architecture, AttentionNetwork
from survey_ml.learning.tang import TangNetwork
from survey_ml.learning.training import State, predict_logits

LENET = Architecture(2, side=32, reduce=2, mean=0.1, std=0.2, dropout=0.2)
QUICK = replace(SMALL, epochs=3, steps=4, batch_size=8, ratio=2, beam=2.0, noise=0.05, align=True)


def draw_sources(n, seed, side=32):
    """Single blobs and doubles, at any angle."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 2).astype(np.int64)
    y, x = np.mgrid[:side, :side] - 0.5 * (side - 1)
    images = np.zeros((n, side, side), np.float32)
    for image, label in zip(images, labels, strict=True):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(5.0, 9.0)
        for end in (-1, 1):
            dx, dy = reach * label * end * np.cos(angle), reach * label * end * np.sin(angle)
            image += rng.uniform(0.4, 1.0) * np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / rng.uniform(6.0, 16.0))
        image /= image.max()
        image[image < 0.02] = 0.0
    return images, labels


def make_network(seed=0, architecture=LENET):
    torch.manual_seed(seed)
    return make_lenet(architecture)


def make_pool(n=40, seed=9):
    return Unlabelled(*draw_sources(n, seed))


def test_the_presets_are_those_of_the_paper_and_of_a_cpu():
    assert (PAPER.threshold, PAPER.weight, PAPER.ratio, PAPER.batch_size) == (0.95, 1.0, 7, 20)
    assert (PAPER.learning_rate, PAPER.epochs, PAPER.average, PAPER.operations) == (5e-4, 800, 0.0, 2)
    assert SMALL.threshold == 0.95 and SMALL.epochs * SMALL.steps == 800


def test_the_published_network_has_as_many_weights_and_keeps_its_statistics():
    network = TangNetwork(Architecture(2, side=150, reduce=1, dropout=0.5))
    assert sum(value.numel() for value in network.parameters()) == 213_358
    torch.manual_seed(0)
    small = TangNetwork(Architecture(2, side=72, reduce=1, mean=0.1, std=0.2))
    state = train_fixmatch(small, draw_sources(8, 1, 72), Unlabelled(*draw_sources(20, 2, 72)), QUICK)
    means = [value for name, value in state.best.items() if name.endswith(".mean")]
    assert len(means) == 4 and all(value.abs().max() > 0 for value in means)
    with pytest.raises(ConfigError, match="too small for the network tang"):
        TangNetwork(Architecture(2, side=48, reduce=1))


def test_only_sure_images_count_and_the_mean_is_over_all():
    probabilities = torch.tensor([[0.97, 0.03], [0.5, 0.5], [0.06, 0.94], [0.04, 0.96]])
    label, sure = choose_sure(probabilities, 0.95)
    assert label.tolist()[2:] == [1, 1] and label[0] == 0
    assert sure.tolist() == [True, False, False, True]
    logits = torch.tensor([[2.0, 0.0], [9.0, -9.0], [5.0, 5.0], [1.0, 0.0]])
    by_hand = (np.log(1 + np.exp(-2.0)) + np.log(1 + np.exp(1.0))) / 4
    assert float(measure_consistency(logits, label, sure)) == pytest.approx(by_hand, rel=1e-6)
    assert float(measure_consistency(logits, label, torch.zeros(4, dtype=torch.bool))) == 0.0


def test_alignment_by_hand():
    found = align_probabilities(
        torch.tensor([[0.9, 0.1], [0.5, 0.5]]), torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5])
    )
    # 0.9 * 2/3 = 0.6 and 0.1 * 2 = 0.2; 1/3 and 1.
    assert found.flatten().tolist() == pytest.approx([0.75, 0.25, 0.25, 0.75])


def test_the_loss_is_the_sum_of_its_parts_and_a_pool_counts():
    recipe = replace(QUICK, threshold=0.0, weight=2.0)
    pool = make_pool()
    history = train_fixmatch(make_network(), draw_sources(10, 1), pool, recipe).history
    for entry in history:
        assert entry["loss"] == pytest.approx(
            entry["loss_labelled"] + 2.0 * entry["loss_unlabelled"], rel=1e-5
        )
        assert entry["mask_rate"] == 1.0 and 0.0 <= entry["impurity"] <= 1.0
    wrong = train_fixmatch(
        make_network(), draw_sources(10, 1), Unlabelled(pool.images, 1 - pool.truth), recipe
    ).history
    # The truth is only told, never learnt from.
    assert [e["loss"] for e in wrong] == [e["loss"] for e in history]
    assert [e["impurity"] for e in wrong] == pytest.approx([1.0 - e["impurity"] for e in history])


class InterruptedTrainingError(Exception):
    pass


@pytest.mark.parametrize("kind", ["lenet", "attention"])
def test_an_interrupted_training_ends_like_one_that_was_not(kind, tmp_path):
    attention = Architecture(2, fields=(2, 2, 2, 4), side=32, reduce=2, mean=0.1, std=0.2)

    def make(seed=0):
        torch.manual_seed(seed)
        return make_lenet(LENET) if kind == "lenet" else AttentionNetwork(attention)

    data, valid = draw_sources(11, 1), draw_sources(10, 2)
    whole = make()
    train_fixmatch(whole, data, make_pool(), QUICK, validation=valid)

    def stop(state):
        torch.save(vars(state), tmp_path / "state.pt")
        if state.epoch == 2:
            raise InterruptedTrainingError

    broken = make()
    with pytest.raises(InterruptedTrainingError):
        train_fixmatch(broken, data, make_pool(), QUICK, validation=valid, report=stop)
    assert (broken.stem.side, broken.stem.reduce) == (32, 2)
    kept = State(**torch.load(tmp_path / "state.pt", weights_only=True))
    again = make(seed=99)
    train_fixmatch(again, data, make_pool(), QUICK, validation=valid, state=kept)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_seed_gives_it_again_and_another_does_not():
    results = []
    for seed in (1, 1, 2):
        network = make_network()
        train_fixmatch(network, draw_sources(11, 1), make_pool(), replace(QUICK, seed=seed))
        results.append(torch.cat([value.flatten() for value in network.state_dict().values()]))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_averaging_blocks_beforehand_is_what_the_network_does():
    from survey_ml.learning.fixmatch import _seeing_blocks

    images = torch.from_numpy(np.random.default_rng(0).random((3, 1, 51, 50), np.float32))
    network = make_network().eval()
    with torch.no_grad():
        plain = network(images)[0]
        with _seeing_blocks(network) as blocks:
            small = blocks.finish(blocks.prepare(images))
            assert blocks.prepare(images).shape[2:] == (48, 48) and small.shape[2:] == (24, 24)
            assert torch.allclose(network(small)[0], plain, atol=1e-6)
        assert torch.equal(network(images)[0], plain)
        # Images smaller than the network's side are padded alike.
        with _seeing_blocks(network) as blocks:
            less = network(blocks.finish(blocks.prepare(images[:, :, :20, :21])))[0]
        assert torch.allclose(less, network(images[:, :, :20, :21])[0], atol=1e-6)


def test_it_stops_when_validation_gets_no_better():
    images, labels = draw_sources(10, 2)
    recipe = replace(QUICK, epochs=40, steps=8, patience=2, align=False, choose="loss")
    state = train_fixmatch(
        make_network(), draw_sources(10, 1), make_pool(), recipe, validation=(images, 1 - labels)
    )
    assert state.epoch == state.best_epoch + 2 < 40


def test_faults_are_said():
    with pytest.raises(SurveyMLError, match="too few"):
        train_fixmatch(make_network(), draw_sources(1, 1), make_pool(), QUICK)
    with pytest.raises(SurveyMLError, match="too few"):
        train_fixmatch(make_network(), draw_sources(8, 1), make_pool(0), QUICK)
    images, labels = draw_sources(8, 1)
    images[:] = np.nan
    with pytest.raises(SurveyMLError, match="loss of step"):
        train_fixmatch(make_network(), (images, labels), make_pool(), QUICK)
    with pytest.raises(ConfigError, match="for 2 classes"):
        train_fixmatch(
            make_network(), draw_sources(8, 1), make_pool(), replace(QUICK, target=(0.2, 0.3, 0.5))
        )
    for settings in ({"threshold": 1.5}, {"ratio": 0}, {"target": (0.5, 0.6)}, {"average": 1.0}):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            FixMatchRecipe(**settings)


def draw_blobs(n, seed, *, alike=True, side=36):
    """Narrow and wide blobs in noise; ``alike`` as bright, else the narrow ones are the brighter."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 2).astype(np.int64)
    y, x = np.mgrid[:side, :side] - 0.5 * (side - 1)
    width = np.where(labels == 1, 6.0, 3.0) * rng.uniform(0.9, 1.1, n)
    peak = rng.uniform(0.3, 1.0, n) if alike else np.where(labels == 1, 0.35, 0.95)
    images = peak[:, None, None] * np.exp(-0.5 * (x**2 + y**2) / width[:, None, None] ** 2)
    images += 0.15 * rng.normal(size=images.shape)
    return np.clip(images, 0.0, 1.0).astype(np.float32), labels


@pytest.mark.slow
def test_with_four_labels_a_pool_helps():
    # The four can be told by their brightness as well, and the pool shows that this means nothing.
    images, labels = draw_blobs(300, 11)
    architecture = Architecture(2, side=36, reduce=2, mean=0.2, std=0.2)
    recipe = replace(SMALL, threshold=0.8, align=True, epochs=6, steps=30, batch_size=4)
    shares = []
    for seed in (0, 1):
        right = []
        for pool in (None, Unlabelled(*draw_blobs(200, 5))):
            torch.manual_seed(seed)
            network = make_tang(architecture)
            few = draw_blobs(4, 20 + seed, alike=False)
            train_fixmatch(network, few, pool, replace(recipe, ratio=7, seed=seed))
            right.append(float((predict_logits(network, images).argmax(1) == labels).mean()))
        shares.append(right)
    plain, helped = np.mean(shares, axis=0)
    assert helped > max(0.9, plain + 0.1), shares
