"""Attention gates: where in an image each of three scales looks, and what it sees there.

Source: Bowles et al. 2021, MNRAS 501, 4579, after Oktay et al. 2018. All statistics are of one
image alone; the published code took them over the batch, so that labels depended on the neighbours.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional

START = 10.0
"""First bias of the map of a gate (published value)."""
SOFT = 0.02
"""First scale of the weights of the map of a gate: it begins by looking everywhere alike. With the usual
scale a softmax begins by looking at one pixel, or at the empty sky alone, and learns nothing more."""


class Normalisation(StrEnum):
    """How the map of a gate becomes weights."""

    RANGE = "range"
    """From 0 to 1 between the least and the largest value of the map."""
    STANDARD = "standard"
    """With zero mean and unit variance."""
    SIGMOID = "sigmoid"
    """The logistic function of each value."""
    SOFTMAX = "softmax"
    """Positive weights whose sum over the image is one."""


class Aggregation(StrEnum):
    """How the features of the gates become one set of logits."""

    MEAN = "mean"
    """One linear head a gate; their mean."""
    CONCAT = "concat"
    """One linear head on all features."""
    DEEP = "deep"
    """The mean of both kinds (deep supervision)."""
    FINE = "fine"
    """A linear layer on top of the rectified heads of the gates (fine-tuned)."""


def normalise_map(values: Tensor, how: Normalisation) -> Tensor:
    """Turn maps of shape (n, 1, y, x) into weights, each image by itself."""
    flat = values.flatten(1)
    if how is Normalisation.SOFTMAX:
        return torch.softmax(flat, dim=1).view_as(values)
    if how is Normalisation.SIGMOID:
        return torch.sigmoid(values)
    if how is Normalisation.RANGE:
        low, high = flat.amin(dim=1), flat.amax(dim=1)
        scale = (high - low).clamp_min(1e-6)
        return (values - low[:, None, None, None]) / scale[:, None, None, None]
    mean = flat.mean(dim=1, keepdim=True)
    spread = (flat - mean).square().mean(dim=1, keepdim=True).add(1e-6).sqrt()
    return ((flat - mean) / spread).view_as(values)


class AttentionGate(nn.Module):
    """Weigh the pixels of a fine scale by what the coarsest scale says of them.

    Parameters
    ----------
    n_fine, n_coarse : int
        Channels of the two.
    how : Normalisation
        How the map becomes weights.
    """

    def __init__(self, n_fine: int, n_coarse: int, how: Normalisation) -> None:
        super().__init__()
        self.how = how
        self.theta = nn.Conv2d(n_fine, n_coarse, 1, bias=False)
        self.phi = nn.Conv2d(n_coarse, n_coarse, 1, bias=False)
        self.psi = nn.Conv2d(n_coarse, 1, 1)
        for layer in (self.theta, self.phi):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(self.psi.weight, std=SOFT)
        assert self.psi.bias is not None
        nn.init.constant_(self.psi.bias, START)

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (n, n_fine) and weights (n, 1, y, x) for ``fine`` of shape (n, n_fine, y, x).

        The features are the weighted sum over the image; for weights that do not sum to one, its
        mean, so that they do not grow with the image.
        """
        size = (fine.shape[2], fine.shape[3])
        signal = functional.interpolate(self.phi(coarse), size, mode="bilinear", align_corners=False)
        weights = normalise_map(self.psi(functional.relu(self.theta(fine) + signal)).float(), self.how)
        seen = (weights * fine).flatten(2)
        features = seen.sum(dim=2) if self.how is Normalisation.SOFTMAX else seen.mean(dim=2)
        return features, weights


class Heads(nn.Module):
    """Make logits of the features of several gates.

    Parameters
    ----------
    widths : tuple of int
        Features of each gate.
    n_classes : int
        Logits.
    how : Aggregation
        How they are put together.
    """

    def __init__(self, widths: tuple[int, ...], n_classes: int, how: Aggregation) -> None:
        super().__init__()
        self.how = how
        each = how is not Aggregation.CONCAT
        joint = how in (Aggregation.CONCAT, Aggregation.DEEP)
        self.each = nn.ModuleList(nn.Linear(width, n_classes) for width in widths if each)
        self.joint = nn.Linear(sum(widths), n_classes) if joint else None
        self.fine = nn.Linear(len(widths) * n_classes, n_classes) if how is Aggregation.FINE else None

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits (n, n_classes) of features, one (n, width) a gate."""
        logits = [head(one) for head, one in zip(self.each, features, strict=False)]
        if self.fine is not None:
            return self.fine(functional.relu(torch.cat(logits, dim=1)))
        if self.joint is not None:
            logits.append(self.joint(torch.cat(features, dim=1)))
        return torch.stack(logits).mean(dim=0)
