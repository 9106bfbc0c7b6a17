"""The networks of Bowles et al. 2021a, b: attention gates on plain or on group convolutions.

Three convolutions at each of three scales, two at the fourth, and a gate on each of the first three.
Over the group ``C1`` this is the attention-gated network; over others the equivariant one, whose
fields are reduced to plain channels before the gates, and whose logits do not change when the image
is turned or reflected by the group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from survey_ml.errors import ConfigError
from survey_ml.learning.attention import Aggregation, AttentionGate, Heads, Normalisation
from survey_ml.learning.convolution import FeatureStandard, FieldNorm, GroupConvolution, GroupMaximum
from survey_ml.learning.groups import Group, parse_group

DEPTHS = (3, 3, 3, 2)
"""Convolutions at each scale."""
FAINTEST = 1e-6
"""Least brightness that an image is scaled by: an empty one stays empty."""
LEAST_STRETCH, LARGEST_STRETCH = 0.05, 10.0
"""Powers beyond which an image is nearly the same everywhere that is lit, or but one pixel."""


@dataclass(frozen=True)
class View:
    """What one of several networks looks at.

    Parameters
    ----------
    side, reduce : int
        As those of the architecture, in place of them.
    """

    side: int
    reduce: int


@dataclass(frozen=True)
class Architecture:
    """All that a network is built from, beside its weights.

    Parameters
    ----------
    n_classes : int
        Logits.
    group : str
        ``C1`` for plain convolutions; others as `survey_ml.learning.groups.parse_group` reads them.
    fields : tuple of int
        Fields at each of the four scales.
    size : int
        Odd side of the filters.
    normalisation, aggregation : str
        Of the attention gates.
    side : int
        Pixels of the image that are looked at, about its middle; smaller images are padded with
        empty sky. Divisible by eight times ``reduce``, so that no pooling drops a row.
    reduce : int
        Blocks of so many pixels are averaged first.
    mean, std : float
        Brightness and scatter of the training images, taken off and divided by.
    dropout : float
        Share of features dropped in training.
    turned : bool
        Outside of training features are means over the image and the same turned by 45 degrees, which the
        turns of a pixel grid do not reach; symmetric under C4 and D4 as before, and twice the work.
    pooled : bool
        The mean and the maximum over the image of every field of the coarsest scale, which sees a whole
        source at once, are features as well; attention maps show the gates alone. Without, that scale only
        says where to look.
    stretch : float
        Power that the brightness is raised to first; 0.5 brings out faint tails beside a bright core.
        ``mean`` and ``std`` are of what comes out.
    scaled : bool
        Brightness is divided by the largest that is looked at, so that a bright neighbour beyond does not
        make a source faint.
    members : tuple of View
        What each of several networks looks at, trained from other first weights, whose logits are averaged;
        empty for one network.
    """

    n_classes: int
    group: str = "C1"
    fields: tuple[int, int, int, int] = (6, 16, 32, 64)
    size: int = 3
    normalisation: str = "softmax"
    aggregation: str = "concat"
    side: int = 144
    reduce: int = 2
    mean: float = 0.0031
    std: float = 0.0350
    dropout: float = 0.2
    turned: bool = False
    pooled: bool = False
    stretch: float = 1.0
    scaled: bool = False
    members: tuple[View, ...] = ()


class Stem(nn.Module):
    """Stretch an image, cut or pad it to the side that is looked at, average blocks, and standardise."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        if not LEAST_STRETCH <= architecture.stretch <= LARGEST_STRETCH:
            raise ConfigError(
                f"a stretch of {architecture.stretch:g} shows nothing of an image",
                f"give a power from {LEAST_STRETCH:g} to {LARGEST_STRETCH:g}; 1 changes nothing",
            )
        if architecture.members:
            raise ConfigError(
                f"one network cannot be {len(architecture.members)} members",
                "make each by itself, and put them together by survey_ml.learning.committee.Committee",
            )
        self.side, self.reduce, self.stretch = architecture.side, architecture.reduce, architecture.stretch
        self.scaled = architecture.scaled
        self.mean, self.std = architecture.mean, architecture.std

    def forward(self, x: Tensor) -> Tensor:
        """Prepare (n, 1, y, x) with brightness from 0 to 1; an odd difference is not symmetric."""
        rows, columns = self.side - x.shape[2], self.side - x.shape[3]
        if rows or columns:
            left, top = columns // 2, rows // 2
            x = functional.pad(x, (left, columns - left, top, rows - top))
        if self.scaled:
            x = x / x.amax(dim=(1, 2, 3), keepdim=True).clamp_min(FAINTEST)
        if self.stretch != 1.0:
            x = x.clamp_min(0.0) ** self.stretch
        if self.reduce > 1:
            x = functional.avg_pool2d(x, self.reduce)
        return (x - self.mean) / self.std


def turn_images(x: Tensor, side: int) -> Tensor:
    """Turn images by 45 degrees about their middle, interpolated bilinearly, and cut them to a side.

    Returns (n, c, side, side) of (n, c, y, x); what is beyond the edge is empty sky.
    """
    away = torch.arange(side, device=x.device, dtype=x.dtype) - 0.5 * (side - 1)
    rows, columns = away[:, None], away[None, :]
    reach = 2.0 * 0.5**0.5
    places = torch.stack(
        [(columns + rows) * (reach / x.shape[3]), (rows - columns) * (reach / x.shape[2])], -1
    )
    grid = places[None].expand(x.shape[0], -1, -1, -1)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class AttentionNetwork(nn.Module):
    """A network with three attention gates over a group.

    Parameters
    ----------
    architecture : Architecture

    Raises
    ------
    ConfigError
        When the side does not fit the poolings, or there is no such group.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        block = 8 * architecture.reduce
        if architecture.side < 2 * block:
            raise ConfigError(
                f"{architecture.side} px leave nothing to see at the fourth scale",
                f"use a side of at least {2 * block}",
            )
        if architecture.side % block:
            raise ConfigError(
                f"{architecture.side} px cannot be halved three times after blocks of {architecture.reduce}",
                f"use a side that {block} divides",
            )
        group = parse_group(architecture.group)
        self.stem = Stem(architecture)
        self.turned = self.turning = architecture.turned
        """Whether it is to look at the turned image as well, and whether it does now."""
        self.scales = nn.ModuleList()
        before = 0
        for fields, depth in zip(architecture.fields, DEPTHS, strict=True):
            self.scales.append(_make_scale(before, fields, depth, architecture.size, group))
            before = fields
        self.pool = nn.MaxPool2d(2)
        self.invariant = GroupMaximum(group.order)
        fine, coarse = architecture.fields[:3], architecture.fields[3]
        how = Normalisation(architecture.normalisation)
        self.gates = nn.ModuleList(AttentionGate(width, coarse, how) for width in fine)
        # The mean over a mostly empty sky differs little between images: in training it is standardised
        # over the batch, afterwards by fixed numbers, so that no image depends on another.
        widths = (*fine, 2 * coarse) if architecture.pooled else fine
        self.standards = nn.ModuleList(FeatureStandard(width) for width in widths)
        self.dropout = nn.Dropout(architecture.dropout)
        self.heads = Heads(widths, architecture.n_classes, Aggregation(architecture.aggregation))

    def look(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return features, fine to coarse, and weights, one (n, 1, y, x) a gate.

        Features are (n, fields) of each gate and, where they are pooled, (n, 2 fields) of the coarsest scale.
        """
        features, weights = self._look_once(x)
        if self.turning and not self.training:
            others, _ = self._look_once(turn_images(x, self.architecture.side))
            features = [0.5 * (one + other) for one, other in zip(features, others, strict=True)]
        return [standard(one) for standard, one in zip(self.standards, features, strict=True)], weights

    def _look_once(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return features before they are standardised, and weights."""
        x = self.stem(x)
        seen = []
        for number, scale in enumerate(self.scales):
            x = scale(self.pool(x) if number else x)
            seen.append(self.invariant(x))
        looks = [gate(fine, seen[3]) for gate, fine in zip(self.gates, seen[:3], strict=True)]
        features = [features for features, _ in looks]
        if self.architecture.pooled:
            features.append(torch.cat([seen[3].mean(dim=(2, 3)), seen[3].amax(dim=(2, 3))], dim=1))
        return features, [weights for _, weights in looks]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classify images.

        Parameters
        ----------
        x : Tensor
            Shape (n, 1, y, x), brightness from 0 to 1.

        Returns
        -------
        logits : Tensor
            Shape (n, n_classes).
        features : Tensor
            Shape (n, sum of the fields of three scales), and twice those of the fourth where it is pooled.
        attention : Tensor
            Shape (n, y, x) on the pixels of the first scale: the mean over the gates, each scaled to
            a largest value of one.
        """
        features, weights = self.look(x)
        size = (weights[0].shape[2], weights[0].shape[3])
        maps = [_spread(one, size) for one in weights]
        logits = self.heads([self.dropout(one) for one in features])
        return logits, torch.cat(features, dim=1), torch.stack(maps).mean(dim=0)[:, 0]


def _spread(weights: Tensor, size: tuple[int, int]) -> Tensor:
    large = functional.interpolate(weights, size, mode="bilinear", align_corners=False)
    return large / large.flatten(1).amax(dim=1).clamp_min(1e-12)[:, None, None, None]


def _make_scale(before: int, fields: int, depth: int, size: int, group: Group) -> nn.Sequential:
    """Return the convolutions of one scale; ``before`` is 0 where images come in."""
    layers: list[nn.Module] = []
    n_groups = 2 if fields % 2 == 0 else 1
    for number in range(depth):
        lifts = before == 0 and number == 0
        n_in = fields if number else max(before, 1)
        layers += [
            GroupConvolution(n_in, fields, size, group, lifts=lifts),
            FieldNorm(fields, group.order, n_groups),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)
