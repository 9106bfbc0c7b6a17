"""The simpler networks that the attention-gated ones are held against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from survey_ml.errors import ConfigError
from survey_ml.learning.networks import Architecture, Stem


class PlainNetwork(nn.Module):
    """Convolutions, then fully connected layers: the networks of the earlier papers.

    Parameters
    ----------
    architecture : Architecture
        Of which the classes, the side, the reduction, mean, std and dropout count.
    layers : sequence of tuple
        Channels, filter side, and side of the pooling after it (1 for none), one a convolution.
    widths : sequence of int
        Of the hidden fully connected layers.
    normalised : bool
        Whether channels are normalised after each convolution.

    Raises
    ------
    ConfigError
        When the side is too small for the poolings.
    """

    def __init__(
        self,
        architecture: Architecture,
        layers: tuple[tuple[int, int, int], ...],
        widths: tuple[int, ...],
        *,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.stem = Stem(architecture)
        side, before = architecture.side // architecture.reduce, 1
        convolutions: list[nn.Module] = []
        for channels, size, pool in layers:
            convolutions.append(nn.Conv2d(before, channels, size, padding=size // 2))
            if normalised:
                convolutions.append(nn.GroupNorm(2 if channels % 2 == 0 else 1, channels))
            convolutions.append(nn.ReLU())
            if pool > 1:
                convolutions.append(nn.MaxPool2d(pool))
            side, before = side // pool, channels
        if side < 1:
            raise ConfigError(
                f"images of {architecture.side} px in blocks of {architecture.reduce} are too small for the "
                "poolings of this network", "use a larger side",
            )  # fmt: skip
        self.convolutions = nn.Sequential(*convolutions)
        dense: list[nn.Module] = []
        width = before * side * side
        for wider in widths:
            dense += [nn.Dropout(architecture.dropout), nn.Linear(width, wider), nn.ReLU()]
            width = wider
        self.dense = nn.Sequential(*dense)
        self.head = nn.Linear(width, architecture.n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (n, n_classes), features (n, d), and an attention of one everywhere (n, 1, 1)."""
        features = self.dense(self.convolutions(self.stem(x)).flatten(1))
        return self.head(features), features, torch.ones_like(features[:, :1, None])


def make_tang(architecture: Architecture) -> PlainNetwork:
    """Return the network of Tang, Scaife & Leahy 2019 (MNRAS 488, 3358), with five convolutions."""
    layers = ((6, 11, 2), (16, 5, 3), (24, 3, 1), (24, 3, 1), (16, 3, 3))
    return PlainNetwork(architecture, layers, (256, 256))


def make_lenet(architecture: Architecture) -> PlainNetwork:
    """Return the LeNet-like network of Mohan et al. 2022 (MNRAS 511, 3722), with four convolutions.

    They are padded by two pixels, not one, so that a side that 16 divides is halved four times; nothing is
    normalised, as published.
    """
    layers = ((6, 5, 2), (16, 5, 2), (26, 5, 2), (32, 5, 2))
    return PlainNetwork(architecture, layers, (120, 84), normalised=False)
