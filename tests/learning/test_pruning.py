"""Pruning: what information is, and that what ranks lowest goes, and only that."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from survey_ml.errors import ConfigError
from survey_ml.learning.pruning import list_dense, measure_information, prune_weights, rank_by_information


class Linear(nn.Module):
    """Logits of four pixels."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2).double()

    def forward(self, x):
        return (self.head(x.double().flatten(1)),)


def test_information_of_a_linear_layer_is_known():
    """The gradient of the log likelihood by the weights is (onehot - p) x."""
    torch.manual_seed(0)
    network, rng = Linear(), np.random.default_rng(0)
    images, labels = rng.standard_normal((70, 2, 2)).astype(np.float32), rng.integers(2, size=70)
    found = measure_information(network, images, labels, ["head.weight"])["head.weight"]
    with torch.no_grad():
        p = torch.softmax(network(torch.from_numpy(images))[0], dim=1).numpy()
    slope = (np.eye(2)[labels] - p)[:, :, None] * images.reshape(70, 1, 4)
    np.testing.assert_allclose(found, (slope**2).mean(axis=0), rtol=1e-6)
    rank = rank_by_information({"w": torch.tensor([2.0])}, {"w": torch.tensor([3.0])})
    assert rank["w"].item() == 9.0


def test_the_lowest_go_across_layers():
    means = {"a": torch.arange(1.0, 5.0).reshape(2, 2), "b": torch.ones(4), "c": torch.ones(3)}
    scales = {name: torch.full_like(value, 0.5) for name, value in means.items()}
    ranks = {"a": torch.tensor([[9.0, 1.0], [8.0, 7.0]]), "b": torch.tensor([2.0, 6.0, 3.0, 5.0])}
    new_means, new_scales, n = prune_weights(means, scales, ranks, 0.375)
    assert n == 3
    assert new_means["a"].tolist() == [[1.0, 0.0], [3.0, 4.0]] and new_means["b"].tolist() == [0, 1, 0, 1]
    assert new_scales["a"].tolist() == [[0.5, 0.0], [0.5, 0.5]] and torch.equal(new_scales["c"], scales["c"])
    # Of equal ranks just so many go.
    same = {"b": torch.zeros(4)}
    assert prune_weights(means, scales, same, 0.5)[0]["b"].sum() == 2
    assert prune_weights(means, scales, ranks, 0.0)[2] == 0
    with pytest.raises(ConfigError, match="cannot be taken out"):
        prune_weights(means, scales, ranks, 1.0)


def test_only_fully_connected_layers_are_listed():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    assert list_dense(network) == ["2.weight", "4.weight"]
