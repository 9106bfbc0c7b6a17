"""Priors over the weights of a network, as Mohan et al. 2022 (MNRAS 511, 3722) compare them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from survey_ml.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Shape = Literal["gaussian", "gaussian-mixture", "laplace", "laplace-mixture"]


@dataclass(frozen=True)
class Prior:
    """What weights are thought to be before there are data: independent, and symmetric about zero.

    Parameters
    ----------
    shape : str
        A mixture is of two of its kind, a wide one and a narrow one; the narrow one makes weights sparse.
    scale : float
        Standard deviation of a Gaussian, scale of a Laplace distribution; of the wide one in a mixture.
    narrow : float
        Scale of the narrow one in a mixture.
    share : float
        Of the wide one in a mixture.

    Raises
    ------
    ConfigError
        When a scale is not positive, or the share is not between 0 and 1.
    """

    shape: Shape = "gaussian"
    scale: float = 0.1
    narrow: float = 1e-3
    share: float = 0.75

    def __post_init__(self) -> None:
        if self.shape not in ("gaussian", "gaussian-mixture", "laplace", "laplace-mixture"):
            raise ConfigError(
                f"there is no prior {self.shape!r}", "gaussian, gaussian-mixture, laplace, laplace-mixture"
            )
        if not (0.0 < self.scale < math.inf and 0.0 < self.narrow < math.inf and 0.0 < self.share < 1.0):
            raise ConfigError(
                f"the prior has the scales {self.scale:g} and {self.narrow:g} and the share {self.share:g}",
                "scales are positive, the share is between 0 and 1",
            )

    @property
    def is_mixture(self) -> bool:
        """Whether it is of two scales."""
        return self.shape.endswith("mixture")

    def measure_density(self, weights: Tensor) -> Tensor:
        """Return the sum of the logarithms of the density of weights of any shape."""
        import torch

        if not self.is_mixture:
            return self._measure_logs(weights, self.scale).sum()
        wide = self._measure_logs(weights, self.scale) + math.log(self.share)
        narrow = self._measure_logs(weights, self.narrow) + math.log1p(-self.share)
        return torch.logaddexp(wide, narrow).sum()

    def measure_divergence(self, mean: Tensor, scale: Tensor, drawn: Tensor) -> Tensor:
        """Return the divergence of independent Gaussians from the prior, in nats.

        Parameters
        ----------
        mean, scale : Tensor
            Of the Gaussians.
        drawn : Tensor
            One sample of them. From a Gaussian prior the divergence is exact; from others it is estimated
            with this sample (Blundell et al. 2015, equation 2), without a bias.
        """
        import torch

        if self.shape == "gaussian":
            ratio = (scale / self.scale).square()
            return 0.5 * (ratio + (mean / self.scale).square() - 1.0 - torch.log(ratio)).sum()
        apart = (drawn - mean) / scale
        own = (-0.5 * apart.square() - torch.log(scale) - 0.5 * math.log(2.0 * math.pi)).sum()
        return own - self.measure_density(drawn)

    def _measure_logs(self, weights: Tensor, scale: float) -> Tensor:
        if self.shape.startswith("laplace"):
            return -weights.abs() / scale - math.log(2.0 * scale)
        return -0.5 * (weights / scale).square() - math.log(scale) - 0.5 * math.log(2.0 * math.pi)
