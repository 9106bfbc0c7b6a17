"""Posteriors over all weights of a network: how they lie in a file, and networks drawn from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import ConfigError, InputError
from survey_ml.models.calibration import PREFIX as HELD_OUT
from survey_ml.models.card import Posterior

if TYPE_CHECKING:
    from torch import Tensor, nn

MEAN, SCALE = "mean.", "scale."
"""Beginning of the names of means and of standard deviations; of an ensemble each member has its number."""

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name of an array to its dtype and shape."""
States = Mapping[str, NDArray[Any]]


def list_weights(posterior: Posterior | None, state: Shapes, learnt: Collection[str]) -> Shapes:
    """Return names, dtypes and shapes of what a file holds of a network.

    Parameters
    ----------
    posterior : Posterior or None
    state : mapping
        Of the network's own arrays.
    learnt : collection of str
        Those of them that are weights.
    """
    if posterior is None or posterior.method == "mc-dropout":
        return state
    if posterior.method == "deep-ensemble":
        return {f"{k}.{name}": shape for k in range(posterior.members) for name, shape in state.items()}
    means = {f"{MEAN}{name}": shape for name, shape in state.items()}
    return means | {f"{SCALE}{name}": shape for name, shape in state.items() if name in learnt}


def find_networks(tensors: States, posterior: Posterior | None) -> list[dict[str, NDArray[Any]]]:
    """Return the arrays of what classifies: the mean network, or all members of an ensemble."""
    if posterior is None or posterior.method == "mc-dropout":
        return [{name: array for name, array in tensors.items() if not name.startswith(HELD_OUT)}]
    if posterior.method == "deep-ensemble":
        return [_select(tensors, f"{k}.") for k in range(posterior.members)]
    return [_select(tensors, MEAN)]


def draw_networks(
    tensors: States, posterior: Posterior, network: nn.Module, samples: int, seed: int
) -> list[dict[str, NDArray[Any]]]:
    """Return the arrays of networks drawn from a posterior: the same ones for the same seed.

    Parameters
    ----------
    tensors : mapping
        Of the file.
    posterior : Posterior
    network : nn.Module
        One of the architecture, for what it drops.
    samples, seed : int
        An ensemble has its members and no more.

    Raises
    ------
    ConfigError
        When dropout is asked of a network that drops nothing before a linear layer.
    InputError
        When standard deviations are negative.
    """
    import torch

    from survey_ml.learning.variational import draw_states, mask_states

    def convert(one: States) -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.array(array)) for name, array in one.items()}

    if posterior.method == "deep-ensemble":
        return find_networks(tensors, posterior)
    (mean,) = find_networks(tensors, posterior)
    if posterior.method == "mc-dropout":
        drawn = mask_states(convert(mean), list_dropped(network), posterior.rate, samples, seed)
    else:
        scales = _select(tensors, SCALE)
        if any((array < 0.0).any() for array in scales.values()):
            raise InputError(
                "standard deviations of the weights are negative", "the file was changed; get it again"
            )
        drawn = draw_states(convert(mean), convert(scales), samples, seed)
    return [{name: value.numpy() for name, value in one.items()} for one in drawn]


def list_dropped(network: nn.Module) -> list[str]:
    """Return the weights of the layers whose inputs dropout thins.

    Raises
    ------
    ConfigError
        When it thins the inputs of anything but linear layers, or of none.
    """
    from torch import nn

    from survey_ml.learning.baselines import PlainNetwork
    from survey_ml.learning.committee import Committee
    from survey_ml.learning.networks import AttentionNetwork

    if isinstance(network, Committee):
        return [
            f"members.{k}.{name}" for k, member in enumerate(network.members) for name in list_dropped(member)
        ]
    if isinstance(network, PlainNetwork):
        layers = list(network.dense)
        return [
            f"dense.{k + 1}.weight" for k, layer in enumerate(layers[:-1]) if isinstance(layer, nn.Dropout)
        ]
    if isinstance(network, AttentionNetwork) and network.heads.joint is not None and not network.heads.each:
        return ["heads.joint.weight"]
    raise ConfigError(
        "what this network drops is not the input of one linear layer", "take the aggregation concat"
    )


def _select(tensors: States, begin: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(begin): array for name, array in tensors.items() if name.startswith(begin)}
