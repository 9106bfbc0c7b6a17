"""Convolutions over a group of turns and reflections; plain ones are those over ``C1``.

Channels hold fields: channel ``field * order + element`` is what a field looks like to one element
of the group. Turning the input by an element turns every channel and permutes those of a field.
Source: Cohen & Welling 2016; Weiler & Cesa 2019 (regular fields).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from survey_ml.learning.groups import Group, make_basis
from survey_ml.learning.team import Team

NORM_FLOOR = 1e-5
"""Added to a variance before it is divided by."""


class GroupConvolution(nn.Module):
    """A convolution from fields to fields that commutes with a group.

    Parameters
    ----------
    n_in, n_out : int
        Fields read and made.
    size : int
        Odd side of a filter in pixels.
    group : Group
        What it commutes with.
    lifts : bool
        It reads plain images, which have one channel a field.

    Notes
    -----
    The filter to element g of an output field from element h of an input field is
    ``sum_b w[out, in, g^-1 h, b] f_b(g^-1 x)``.
    """

    basis: Tensor
    index: Tensor

    def __init__(self, n_in: int, n_out: int, size: int, group: Group, *, lifts: bool = False) -> None:
        super().__init__()
        self.n_in, self.n_out, self.order, self.size = n_in, n_out, group.order, size
        self.sources = 1 if lifts else group.order
        basis = torch.from_numpy(make_basis(group, size)).float()
        quotients = torch.from_numpy(group.quotients)
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("index", quotients[:, :1] * 0 if lifts else quotients, persistent=False)
        # The sum over inputs keeps the variance, as He et al. 2015 ask of layers before a ReLU.
        gain = (2.0 / (n_in * self.sources * float((basis[0] ** 2).sum()))) ** 0.5
        self.weight = nn.Parameter(torch.randn(n_out, n_in, self.sources, basis.shape[1]) * gain)
        self.bias = nn.Parameter(torch.zeros(n_out))

    def filters(self) -> tuple[Tensor, Tensor]:
        """Return the filters (n_out * order, n_in * sources, size, size) and the bias of each channel."""
        moved = self.weight[:, :, self.index]
        filters = torch.einsum("oighb,gbyx->ogihyx", moved, self.basis)
        shape = self.n_out * self.order, self.n_in * self.sources, self.size, self.size
        return filters.reshape(shape), self.bias.repeat_interleave(self.order)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (n, n_in * sources, y, x); the size stays, zeros are taken beyond the edge."""
        filters, bias = self.filters()
        return functional.conv2d(x, filters, bias, padding=self.size // 2)

    def freeze(self) -> nn.Conv2d:
        """Return the plain convolution that does the same."""
        with torch.no_grad():
            filters, bias = self.filters()
            plain = nn.Conv2d(filters.shape[1], filters.shape[0], self.size, padding=self.size // 2)
            plain.weight.copy_(filters)
            cast(Tensor, plain.bias).copy_(bias)
        return plain


class FieldNorm(nn.Module):
    """Normalise each image over groups of whole fields: what one image gets never depends on others.

    Parameters
    ----------
    n_fields : int
        Fields of the input.
    order : int
        Channels of a field; they share scale and offset.
    n_groups : int
        Parts that are normalised together; a divisor of ``n_fields``.

    Notes
    -----
    Group normalisation (Wu & He 2018), with all channels of a field in one group so that it commutes
    with the group of the fields.
    """

    def __init__(self, n_fields: int, order: int, n_groups: int) -> None:
        super().__init__()
        self.order, self.n_groups = order, n_groups
        self.scale = nn.Parameter(torch.ones(n_fields))
        self.offset = nn.Parameter(torch.zeros(n_fields))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, n_fields * order, y, x)."""
        scale = self.scale.repeat_interleave(self.order)
        offset = self.offset.repeat_interleave(self.order)
        return functional.group_norm(x, self.n_groups, scale, offset, NORM_FLOOR)

    def freeze(self) -> PooledNorm:
        """Return what does the same with smaller rounding errors, for inference."""
        with torch.no_grad():
            scale = self.scale.repeat_interleave(self.order)
            offset = self.offset.repeat_interleave(self.order)
        return PooledNorm(scale, offset, self.n_groups)


class PooledNorm(nn.Module):
    """Group normalisation whose means are means of means of small blocks.

    Parameters
    ----------
    scale, offset : Tensor
        One number a channel, shape (channels,).
    n_groups : int
        Parts that are normalised together.

    Notes
    -----
    A sum of all pixels one after another in single precision depends on their order: compiled, turning
    1,000 images changed a probability by up to 1.3e-5, because the gates see differences of a
    thousandth of a feature. In means of blocks the error grows with the logarithm of their number
    (Higham 1993, SIAM J. Sci. Comput. 14, 783).
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, scale: Tensor, offset: Tensor, n_groups: int) -> None:
        super().__init__()
        self.n_groups = n_groups
        self.register_buffer("scale", scale[None, :, None, None])
        self.register_buffer("offset", offset[None, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, channels, y, x)."""
        centred = x - self._measure_mean(x)
        variance = self._measure_mean(centred * centred)
        return centred * (torch.rsqrt(variance + NORM_FLOOR) * self.scale) + self.offset

    def _measure_mean(self, x: Tensor) -> Tensor:
        """Return the mean of the group of each channel, (n, channels, 1, 1)."""
        n, channels = x.shape[:2]
        for rows, columns in plan_blocks(x.shape[2], x.shape[3]):
            x = functional.avg_pool2d(x, (rows, columns))
        means = x.reshape(n, self.n_groups, -1).mean(dim=2)
        return means.repeat_interleave(channels // self.n_groups, dim=1)[:, :, None, None]


def plan_blocks(rows: int, columns: int) -> list[tuple[int, int]]:
    """Return the sides of blocks whose means, one after another, lead from an image to one number.

    No block is cut: sides are divisors, at most eight, or a prime that is left.
    """
    plan = []
    while rows > 1 or columns > 1:
        sides = tuple(
            next((side for side in range(min(8, size), 1, -1) if size % side == 0), size)
            for size in (rows, columns)
        )
        plan.append((sides[0], sides[1]))
        rows, columns = rows // sides[0], columns // sides[1]
    return plan


class FeatureStandard(nn.Module):
    """Standardise features, or channels: over the batch in training, by fixed numbers afterwards.

    Parameters
    ----------
    width : int
        Features of an image.

    Notes
    -----
    Batch normalisation (Ioffe & Szegedy 2015) of features alone: what one image gets afterwards does
    not depend on others.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.offset = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.share = 0.1
        """What one batch counts for in the fixed numbers."""
        self.team = Team()
        """Whose parts make up the batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Standardise (n, width), or (n, width, y, x) over all pixels of a channel."""
        shared = self.training and self.team.size > 1
        done = functional.batch_norm(
            self.team.gather(x) if shared else x,
            self.mean, self.variance, self.scale, self.offset, self.training, self.share,
        )  # fmt: skip
        return done[self.team.rank * len(x) : (self.team.rank + 1) * len(x)] if shared else done


class GroupMaximum(nn.Module):
    """Keep the largest of a field's channels: what is left commutes with the group as an image does."""

    def __init__(self, order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        """Reduce (n, n_fields * order, y, x) to (n, n_fields, y, x)."""
        if self.order == 1:
            return x
        n, channels, height, width = x.shape
        return x.reshape(n, channels // self.order, self.order, height, width).amax(dim=2)


def freeze_network(network: nn.Module, *, pooled: bool = False) -> nn.Module:
    """Replace group convolutions inside a network by plain ones that do the same.

    Parameters
    ----------
    network : nn.Module
        Changed in place.
    pooled : bool
        Replace the normalisations by `PooledNorm` too: slower in torch, faster where it is compiled.

    Returns
    -------
    nn.Module
        The same object.
    """
    for name, child in network.named_children():
        if isinstance(child, GroupConvolution) or (pooled and isinstance(child, FieldNorm)):
            setattr(network, name, child.freeze())
        else:
            freeze_network(child, pooled=pooled)
    return network
