"""Networks whose weights are independent Gaussians instead of numbers: Bayes by backprop.

Source: Blundell et al. 2015 (arXiv 1505.05424); for radio galaxies Mohan et al. 2022 (MNRAS 511, 3722). Any
network will do: its own weights become the means, and one more number each is learnt.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from survey_ml.learning.priors import Prior

FIRST_SCALES = (-5.0, -4.0)
"""Range of the logarithms of the standard deviations that training begins with (Mohan et al. 2022)."""


class VariationalNetwork(nn.Module):
    """A network with a Gaussian over each of its weights.

    In training each call draws one set of weights for all its images; afterwards the means are used.

    Parameters
    ----------
    network : nn.Module
        Returns logits first. Its parameters are the means.

    Attributes
    ----------
    log_scales : nn.ParameterList
        Logarithms of the standard deviations, in the order of the network's parameters.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        low, high = FIRST_SCALES
        self.log_scales = nn.ParameterList(
            nn.Parameter(low + (high - low) * torch.rand_like(value)) for value in network.parameters()
        )

    @property
    def architecture(self) -> Any:
        """Of the network."""
        return getattr(self.network, "architecture")  # noqa: B009 (the checker knows no such attribute)

    def draw(self) -> dict[str, Tensor]:
        """Return one sample of the weights by name; gradients go through it to means and scales."""
        return {
            name: mean + torch.exp(log) * torch.randn_like(mean)
            for (name, mean), log in zip(self.network.named_parameters(), self.log_scales, strict=True)
        }

    def run(self, weights: Mapping[str, Tensor], x: Tensor) -> Any:
        """Return what the network gives for images with a sample of its weights."""
        return functional_call(self.network, dict(weights), (x,))

    def forward(self, x: Tensor) -> Any:
        """Return what the network gives."""
        return self.run(self.draw(), x) if self.training else self.network(x)

    def measure_divergence(self, prior: Prior, drawn: Mapping[str, Tensor]) -> Tensor:
        """Return the divergence of the posterior from a prior in nats, given a sample of the weights."""
        parts = [
            prior.measure_divergence(mean, torch.exp(log), drawn[name])
            for (name, mean), log in zip(self.network.named_parameters(), self.log_scales, strict=True)
        ]
        return torch.stack(parts).sum()

    def split_state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the state of the network with means as weights, and the standard deviation of each."""
        scales = {
            name: torch.exp(log.detach())
            for (name, _), log in zip(self.network.named_parameters(), self.log_scales, strict=True)
        }
        return {name: value.detach() for name, value in self.network.state_dict().items()}, scales


class FreeEnergy:
    """What Bayes by backprop makes small: the loss, and the divergence from the prior.

    Parameters
    ----------
    prior : Prior
    n : int
        Images of the whole training set.
    temperature : float
        Factor of the divergence: 1 for Bayes' rule; less makes the posterior cold (Wenzel et al. 2020).
    misspecified : bool
        Take off the variance of the likelihood over the posterior, the second-order term for models that
        are not true (Masegosa 2020, arXiv 1912.08335, theorem 4). It wants two samples a step.
    warm_up : float
        Share of the training over which the divergence rises from nothing to all that it counts (Bowman et
        al. 2016; Soenderby et al. 2016). Without, weights give way to the prior before they have learnt
        anything, and some trainings never leave it.
    """

    def __init__(
        self,
        prior: Prior,
        n: int,
        *,
        temperature: float = 1.0,
        misspecified: bool = False,
        warm_up: float = 0.0,
    ) -> None:
        self.prior, self.n = prior, n
        self.temperature, self.misspecified, self.warm_up = temperature, misspecified, warm_up

    def __call__(self, network: VariationalNetwork, x: Tensor, labels: Tensor, done: float) -> Tensor:
        """Return an estimate of the cost an image in nats, for a batch, when a share of training is done."""
        drawn = network.draw()
        losses = _measure_losses(network, drawn, x, labels)
        weight = self.temperature * (min(1.0, done / self.warm_up) if self.warm_up else 1.0)
        far = weight / self.n * network.measure_divergence(self.prior, drawn)
        if not self.misspecified:
            return losses.mean() + far
        other = _measure_losses(network, network.draw(), x, labels)
        return 0.5 * (losses + other).mean() - measure_variance(-losses, -other).mean() + far


def measure_variance(one: Tensor, two: Tensor) -> Tensor:
    """Return the variance of likelihoods over weights, relative to the square of the largest.

    Parameters
    ----------
    one, two : Tensor
        Logarithms of the likelihood of each image by two samples of the weights.

    Returns
    -------
    Tensor
        (p1 - p2)^2 / (4 max(p1, p2)^2): half the unbiased variance of two samples. Gradients go through
        both samples, and not through what it is divided by.
    """
    largest = torch.maximum(one, two).detach()
    return 0.25 * (torch.exp(one - largest) - torch.exp(two - largest)).square()


def draw_states(
    means: Mapping[str, Tensor], scales: Mapping[str, Tensor], samples: int, seed: int
) -> list[dict[str, Tensor]]:
    """Draw states of a network from its posterior: the same for the same seed, one after another.

    Parameters
    ----------
    means : mapping
        State of the network; what has no scale is taken as it is.
    scales : mapping
        Standard deviations by name.
    samples, seed : int
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(samples):
        one = dict(means)
        for name in sorted(scales):  # what is read from a file comes in any order
            noise = torch.randn(means[name].shape, generator=generator, dtype=means[name].dtype)
            one[name] = means[name] + scales[name] * noise
        found.append(one)
    return found


def mask_states(
    state: Mapping[str, Tensor], dropped: Collection[str], rate: float, samples: int, seed: int
) -> list[dict[str, Tensor]]:
    """Draw states of a network with features dropped, as in training (Gal & Ghahramani 2016).

    Parameters
    ----------
    state : mapping
    dropped : collection of str
        Names of the weights (n_out, n_in) of layers whose inputs are dropped.
    rate : float
        Share that is dropped.
    samples, seed : int
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(samples):
        one = dict(state)
        for name in sorted(dropped):
            kept = torch.rand(state[name].shape[1], generator=generator) >= rate
            one[name] = state[name] * kept / (1.0 - rate)
        found.append(one)
    return found


def measure_signal(means: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the signal to noise of weights in dB: 20 log10(|mean| / scale) (Graves 2011).

    That of a weight whose mean is zero is minus infinity, also of one that was taken out before.
    """
    found = {}
    for name, scale in scales.items():
        size = means[name].abs()
        decibel = 20.0 / math.log(10.0) * (torch.log(size) - torch.log(scale))
        found[name] = torch.where(size > 0.0, decibel, -torch.inf)
    return found


def _measure_losses(
    network: VariationalNetwork, weights: Mapping[str, Tensor], x: Tensor, labels: Tensor
) -> Tensor:
    return functional.cross_entropy(network.run(weights, x)[0].float(), labels, reduction="none")
