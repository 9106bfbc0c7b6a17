"""Two processes take the steps that one would take with the whole batch."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch

from survey_ml.errors import ConfigError
from survey_ml.learning.networks import Architecture, AttentionNetwork
from survey_ml.learning.team import Team
from survey_ml.learning.training import Recipe, predict_logits, train_network

ARCHITECTURE = Architecture(
    2, fields=(2, 2, 4, 4), side=16, reduce=1, mean=0.02, std=0.1, dropout=0.0, group="C4"
)
RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=1e-3, seed=2)


def draw_images(n, seed):
    rng = np.random.default_rng(seed)
    return rng.random((n, 16, 16)).astype(np.float32), (np.arange(n) % 2).astype(np.int64)


def train(team):
    torch.set_num_threads(1)
    torch.manual_seed(1)
    network = AttentionNetwork(ARCHITECTURE)
    done = train_network(network, draw_images(24, 1), RECIPE, validation=draw_images(8, 2), team=team)
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    return done.history, predict_logits(network, draw_images(8, 2)[0]), weights


def work(rank, folder, queue):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    queue.put((rank, *train(Team.join())))
    torch.distributed.destroy_process_group()


def test_two_processes_train_what_one_does(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=work, args=(rank, str(tmp_path), queue)) for rank in range(2)]
    for process in processes:
        process.start()
    found = {rank: rest for rank, *rest in (queue.get(timeout=120) for _ in range(2))}
    for process in processes:
        process.join(30)
    history, logits, weights = train(Team())
    for rank in range(2):
        for mine, theirs in zip(history, found[rank][0], strict=True):
            assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
            assert theirs["val_loss"] == pytest.approx(mine["val_loss"], rel=1e-4)
        # Not weight by weight: where a gradient is zero the optimizer makes much of its rounding.
        np.testing.assert_allclose(found[rank][1], logits, atol=1e-3)
    for name in weights:
        assert np.array_equal(found[0][2][name], found[1][2][name]), name


def test_batches_must_divide():
    network = AttentionNetwork(ARCHITECTURE)
    with pytest.raises(ConfigError, match="batches of 8 images cannot be shared out among 3 workers"):
        train_network(network, draw_images(24, 1), replace(RECIPE), team=Team(0, 3))
