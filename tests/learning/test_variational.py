"""Bayes by backprop over any network: the exact answer where there is one, and what samples are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from survey_ml.learning.networks import Architecture, AttentionNetwork
from survey_ml.learning.priors import Prior
from survey_ml.learning.training import Recipe, train_network
from survey_ml.learning.variational import (
    FreeEnergy,
    VariationalNetwork,
    draw_states,
    mask_states,
    measure_signal,
    measure_variance,
)

NOISE, PRIOR = 0.5, 0.8


def test_linear_regression_finds_the_best_independent_gaussians():
    """Of a Gaussian posterior they have its mean, and the diagonal of its precision (Bishop 2006, 10.1.2)."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3)) @ np.array([[1.0, 0.4, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 1.0]])
    y = x @ np.array([0.7, -0.4, 0.1]) + NOISE * rng.standard_normal(40)
    precision = x.T @ x / NOISE**2 + np.eye(3) / PRIOR**2
    mean = np.linalg.solve(precision, x.T @ y / NOISE**2)
    torch.manual_seed(0)
    network = VariationalNetwork(nn.Linear(3, 1, bias=False).double()).double()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4000)
    images, values = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(4000):
        drawn = network.draw()
        apart = network.run(drawn, images)[:, 0] - values
        cost = 0.5 * apart.square().sum() / NOISE**2
        cost = cost + network.measure_divergence(Prior("gaussian", PRIOR), drawn)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        schedule.step()
    means, scales = network.split_state()
    np.testing.assert_allclose(means["weight"][0], mean, atol=0.01)
    np.testing.assert_allclose(scales["weight"][0], 1.0 / np.sqrt(np.diag(precision)), rtol=0.1)


def test_the_cost_is_loss_and_divergence():
    torch.manual_seed(1)
    network = VariationalNetwork(_Flat())
    x, labels = torch.randn(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 1, 0])
    prior = Prior("gaussian", 0.3)

    def cost(**settings):
        torch.manual_seed(2)
        done = settings.pop("done", 1.0)
        return float(FreeEnergy(prior, 50, **settings)(network, x, labels, done).detach())

    torch.manual_seed(2)
    one, other = network.draw(), network.draw()
    losses = [
        functional.cross_entropy(network.run(drawn, x)[0], labels, reduction="none") for drawn in (one, other)
    ]
    losses = [one.detach() for one in losses]
    far = float(network.measure_divergence(prior, one).detach())
    assert cost() == pytest.approx(float(losses[0].mean()) + far / 50, rel=1e-6)
    assert cost(temperature=0.1) == pytest.approx(float(losses[0].mean()) + 0.1 * far / 50, rel=1e-6)
    half = cost(warm_up=0.4, done=0.2)
    assert half == pytest.approx(float(losses[0].mean()) + 0.5 * far / 50, rel=1e-6)
    assert cost(warm_up=0.4, done=0.7) == cost()
    spread = measure_variance(-losses[0], -losses[1]).mean()
    wanted = float((losses[0] + losses[1]).mean() / 2 - spread) + far / 50
    assert cost(misspecified=True) == pytest.approx(wanted, rel=1e-6)


def test_the_term_of_misspecification_has_gradients_and_never_overflows():
    one = torch.tensor([-0.2, -900.0], requires_grad=True)
    two = torch.tensor([-0.9, -1000.0], requires_grad=True)
    found = measure_variance(one, two)
    p = np.exp([-0.2, -0.9])
    assert found[0].item() == pytest.approx((p[0] - p[1]) ** 2 / (4 * p[0] ** 2), rel=1e-6)
    assert found[1].item() == pytest.approx(0.25)
    found.sum().backward()
    # By hand: d/dl1 of (e^l1 - e^l2)^2 / (4 m^2), with m held.
    assert one.grad[0].item() == pytest.approx(p[0] * (p[0] - p[1]) / (2 * p[0] ** 2), rel=1e-5)
    assert two.grad[0].item() == pytest.approx(-p[1] * (p[0] - p[1]) / (2 * p[0] ** 2), rel=1e-5)


def test_it_is_trained_like_other_networks():
    rng = np.random.default_rng(3)
    labels = (np.arange(80) % 2).astype(np.int64)
    images = np.tile((labels + 0.1 * rng.standard_normal(80)).astype(np.float32)[:, None, None], (1, 2, 2))
    torch.manual_seed(0)
    network = VariationalNetwork(_Flat())
    recipe = Recipe(epochs=60, batch_size=40, learning_rate=0.03, weight_decay=0.0, scales=(1, 1), shift=0)
    objective = FreeEnergy(Prior("gaussian", 1.0), 80)
    state = train_network(network, (images, labels), recipe, objective=objective, validation=(images, labels))
    assert state.history[-1]["loss"] < state.history[0]["loss"]
    assert state.history[-1]["val_accuracy"] > 0.95 and state.best_epoch == 60
    means, scales = network.split_state()
    assert set(means) == set(scales) == {"head.weight", "head.bias"}
    assert all(bool((value > 0.02).all()) for value in scales.values())  # they began at 0.007 to 0.018


def test_any_network_can_be_made_so():
    torch.manual_seed(0)
    plain = AttentionNetwork(Architecture(2, "D4", (2, 3, 4, 4), side=16, reduce=1))
    network = VariationalNetwork(plain)
    x = torch.rand(4, 1, 16, 16)
    network.train()
    assert not torch.equal(network(x)[0], network(x)[0])
    network.eval()
    assert torch.equal(network(x)[0], plain(x)[0])
    network.train()
    FreeEnergy(Prior(), 10)(network, x, torch.tensor([0, 1, 0, 1]), 0.0).backward()
    assert all(value.grad is not None for value in network.log_scales)


def test_samples_follow_from_the_seed_and_scatter_as_told():
    means = {"weight": torch.full((3,), 2.0), "bias": torch.zeros(2), "count": torch.tensor([5.0])}
    scales = {"weight": torch.tensor([0.0, 0.1, 1.0]), "bias": torch.ones(2)}
    drawn = draw_states(means, scales, 4000, 7)
    values = torch.stack([one["weight"] for one in drawn])
    backwards = {name: scales[name] for name in reversed(scales)}
    assert torch.equal(values[0], draw_states(means, backwards, 1, 7)[0]["weight"])
    np.testing.assert_allclose(values.mean(0), 2.0, atol=0.06)
    np.testing.assert_allclose(values.std(0), scales["weight"], rtol=0.05)
    assert all(torch.equal(one["count"], means["count"]) for one in drawn[:5])


def test_dropped_inputs_keep_their_mean():
    state = {"dense.weight": torch.ones(2, 400), "dense.bias": torch.zeros(2)}
    drawn = mask_states(state, ["dense.weight"], 0.25, 50, 0)
    values = torch.stack([one["dense.weight"] for one in drawn])
    assert torch.equal(values[:, 0], values[:, 1])
    np.testing.assert_allclose(values.unique(), [0.0, 4 / 3], rtol=1e-6)
    assert float(values.mean()) == pytest.approx(1.0, abs=0.02)
    assert drawn[0]["dense.bias"] is state["dense.bias"]


def test_signal_is_in_decibel():
    found = measure_signal({"w": torch.tensor([1.0, -0.1])}, {"w": torch.tensor([0.1, 1.0])})
    np.testing.assert_allclose(found["w"], [20.0, -20.0], atol=1e-5)
    # What was taken out before is the first to go again.
    gone = measure_signal({"w": torch.tensor([0.0, 1.0])}, {"w": torch.tensor([0.0, 1.0])})["w"]
    assert gone.tolist() == [-np.inf, 0.0]


class _Flat(nn.Module):
    """One linear layer on all pixels of two by two."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        features = x.flatten(1)
        return self.head(features), features, features
