"""Take weights out of a network whose weights are Gaussians, those first that matter least."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from survey_ml.errors import ConfigError

AT_ONCE = 32
"""Images whose gradients are held at once."""


def list_dense(network: nn.Module) -> list[str]:
    """Return the names of the weights of fully connected layers, without their biases."""
    return [f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Linear)]


def measure_information(
    network: nn.Module, images: NDArray[np.float32], labels: NDArray[np.int64], names: Collection[str]
) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of some weights.

    Parameters
    ----------
    network : nn.Module
        With the weights that it is wanted at; looked at as when it is used.
    images : (n, y, x) ndarray of float32
    labels : (n,) ndarray of int
    names : collection of str

    Returns
    -------
    dict
        For each name the mean over images of the squared gradient of the log likelihood: the empirical
        Fisher information an image.
    """
    network.eval()
    state = {name: value.detach() for name, value in network.state_dict().items()}
    chosen = {name: state[name] for name in names}

    def measure_loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(network, {**state, **weights}, (image[None, None],))[0]
        return functional.cross_entropy(logits, label[None])

    differentiate = vmap(grad(measure_loss), in_dims=(None, 0, 0))
    total = {name: torch.zeros_like(value) for name, value in chosen.items()}
    for start in range(0, len(labels), AT_ONCE):
        part = torch.from_numpy(np.ascontiguousarray(images[start : start + AT_ONCE], np.float32))
        found = differentiate(chosen, part, torch.from_numpy(labels[start : start + AT_ONCE]))
        for name, value in found.items():
            total[name] += value.square().sum(dim=0)
    return {name: value / len(labels) for name, value in total.items()}


def rank_by_information(information: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return by how much the loss rises without each weight, to second order (LeCun, Denker & Solla 1990).

    Half the information times the square of the weight, with the Fisher information for the curvature
    (Theis et al. 2018).
    """
    return {name: 0.5 * value * means[name].square() for name, value in information.items()}


def prune_weights(
    means: Mapping[str, Tensor], scales: Mapping[str, Tensor], ranks: Mapping[str, Tensor], share: float
) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """Take out the share of weights that rank lowest.

    Parameters
    ----------
    means, scales : mapping
        Of the posterior.
    ranks : mapping
        Of the weights that may be taken out, all compared with each other.
    share : float
        From 0 to 1.

    Returns
    -------
    means, scales : dict
        Those of what was taken out are zero: it is zero in every sample.
    n : int
        Weights taken out.

    Raises
    ------
    ConfigError
        When the share is out of range.
    """
    if not 0.0 <= share < 1.0:
        raise ConfigError(f"{share:g} of the weights cannot be taken out", "give 0 or more, and less than 1")
    names = sorted(ranks)
    flat = torch.cat([ranks[name].flatten() for name in names])
    n = round(share * len(flat))
    # Ties are broken by the order of weights, so that exactly n go.
    out = torch.zeros(len(flat), dtype=torch.bool)
    out[torch.argsort(flat, stable=True)[:n]] = True
    new_means, new_scales = dict(means), dict(scales)
    start = 0
    for name in names:
        gone = out[start : start + ranks[name].numel()].reshape(ranks[name].shape)
        start += ranks[name].numel()
        new_means[name] = torch.where(gone, 0.0, means[name])
        new_scales[name] = torch.where(gone, 0.0, scales[name])
    return new_means, new_scales, n
