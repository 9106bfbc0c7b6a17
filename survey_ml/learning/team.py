"""Processes that train one network together: each takes its part of a batch, and all take the same step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Team:
    """One of the processes of a training.

    The step that all take is the one that a single process would have taken with the whole batch: the
    gradients are averaged, and what is measured over a batch is measured over all of it.

    Attributes
    ----------
    rank : int
        From 0.
    size : int
        Processes; 1 for a training without others.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> Team:
        """Return this process's place in the process group of torch, which has been begun."""
        return cls(distributed.get_rank(), distributed.get_world_size())

    def divide(self, batch: Tensor) -> Tensor:
        """Return this process's part of a batch (n, ...); n is a multiple of the size."""
        return batch[self.rank :: self.size]

    def average_gradients(self, network: nn.Module) -> None:
        """Replace the gradients by their mean over the team."""
        if self.size == 1:
            return
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, parts, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def average(self, value: float) -> float:
        """Return the mean of a number over the team."""
        if self.size == 1:
            return value
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        mean = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.all_reduce(mean)
        return float(mean) / self.size

    def gather(self, x: Tensor) -> Tensor:
        """Return the parts (n, ...) of all, one after the other: (n times the size, ...), with gradients."""
        if self.size == 1:
            return x
        whole: Tensor = _Gather.apply(x, self.rank, self.size)  # type: ignore[no-untyped-call]
        return whole


class _Gather(torch.autograd.Function):
    """Parts of all processes; the gradient of a part is the sum of what each process has of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.n = rank, len(x)
        parts = [torch.empty_like(x) for _ in range(size)]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient)
        return gradient[ctx.rank * ctx.n : (ctx.rank + 1) * ctx.n], None, None
