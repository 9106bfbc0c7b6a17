"""Several networks as one: what they say on average, each trained from other first weights.

A few hundred sources a class leave much to chance: networks that were trained alike are wrong about different
sources, the more so where they look at other scales of the image, and their mean is right more often than any
of them (Hansen & Salamon 1990; Lakshminarayanan, Pritzel & Blundell 2017). Logits are averaged, not
probabilities, so that one linear layer on what all see gives them, as it does for one network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from survey_ml.errors import ConfigError
from survey_ml.learning.networks import Architecture


def list_members(architecture: Architecture) -> list[Architecture]:
    """Return the architecture of each member, or the architecture itself where there are none."""
    return [
        replace(architecture, side=view.side, reduce=view.reduce, members=()) for view in architecture.members
    ] or [architecture]


class Committee(nn.Module):
    """The mean of the logits of networks that look at the same image.

    Parameters
    ----------
    architecture : Architecture
        With its members. Its ``side`` and ``reduce`` are those of the maps of attention.
    members : sequence of nn.Module
        Each returns logits (n, n_classes), features (n, d) and attention (n, y, x).

    Raises
    ------
    ConfigError
        When a map of attention would miss what a member looks at, or its pixels do not fit.
    """

    def __init__(self, architecture: Architecture, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.architecture = architecture
        self.members = nn.ModuleList(members)
        for view in architecture.members:
            beyond = architecture.side - view.side
            if beyond < 0 or beyond % (2 * architecture.reduce) or view.side % architecture.reduce:
                raise ConfigError(
                    f"a member looks at {view.side} px, all of them at {architecture.side} px by "
                    f"{architecture.reduce}",
                    f"raise side, or give members at most {architecture.side} px, less by multiples of "
                    f"{2 * architecture.reduce}, in whole blocks of {architecture.reduce} px",
                )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classify images as each member does.

        Logits and attention are means, of attention over the members that look there; features follow
        one member after the other.
        """
        logits, features, attention = zip(*(member(x) for member in self.members), strict=True)
        sides = [view.side for view in self.architecture.members]
        maps = [self._lay_map(one, side) for one, side in zip(attention, sides, strict=True)]
        # How many members look at a pixel: elsewhere a member says nothing, not that it looks away.
        seen = [self._lay_map(torch.ones_like(one), side) for one, side in zip(attention, sides, strict=True)]
        mean = torch.stack(maps).sum(dim=0) / torch.stack(seen).sum(dim=0).clamp_min(1.0)
        return torch.stack(logits).mean(dim=0), torch.cat(features, dim=1), mean

    def _lay_map(self, attention: Tensor, side: int) -> Tensor:
        """Bring the map (n, y, x) of a member that looks at so many pixels to the pixels of all."""
        reduce = self.architecture.reduce
        size, edge = side // reduce, (self.architecture.side - side) // (2 * reduce)
        laid = attention[:, None]
        if laid.shape[2] != size:
            laid = functional.interpolate(laid, (size, size), mode="bilinear", align_corners=False)
        return functional.pad(laid, (edge, edge, edge, edge))[:, 0] if edge else laid[:, 0]
