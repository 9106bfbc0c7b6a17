"""The network of Slijepcevic et al. 2022, after Tang, Scaife & Leahy 2019 (MNRAS 488, 3358), as published."""

from __future__ import annotations

from torch import Tensor, nn

from survey_ml.errors import ConfigError
from survey_ml.learning.convolution import FeatureStandard
from survey_ml.learning.networks import Architecture, Stem


class TangNetwork(nn.Module):
    """Five convolutions with batch normalisation of the last four, and three hidden fully connected layers.

    For two classes and images of 150 px it has 213,358 weights.

    Parameters
    ----------
    architecture : Architecture
        Of which the classes, the side, the reduction, mean, std and dropout count; published with a side of
        150, no reduction and a dropout of 0.5.

    Raises
    ------
    ConfigError
        When the side is too small for the poolings.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.stem = Stem(architecture)
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 6, 11, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5, stride=2, padding=1), FeatureStandard(16), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(16, 24, 3, padding=1), FeatureStandard(24), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1), FeatureStandard(24), nn.ReLU(),
            nn.Conv2d(24, 16, 3, padding=1), FeatureStandard(16), nn.ReLU(), nn.MaxPool2d(5, 4),
        )  # fmt: skip
        side = _find_side(architecture.side // architecture.reduce)
        if side < 1:
            raise ConfigError(
                f"images of {architecture.side} px in blocks of {architecture.reduce} are too small for the "
                "network tang", "use a larger side, such as 150, or the network cnn",
            )  # fmt: skip
        dense: list[nn.Module] = []
        width = 16 * side * side
        for _ in range(3):
            dense += [nn.Linear(width, 256), nn.ReLU(), nn.Dropout(architecture.dropout)]
            width = 256
        self.dense = nn.Sequential(*dense)
        self.head = nn.Linear(width, architecture.n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (n, n_classes), features (n, 256), and an attention of one everywhere (n, 1, 1)."""
        features = self.dense(self.convolutions(self.stem(x)).flatten(1))
        return self.head(features), features, features.new_ones((len(features), 1, 1))


def _find_side(side: int) -> int:
    """Return the side of what the last pooling gives."""
    side = (side - 8) // 2
    side = (side - 3) // 2 + 1
    side = (side - 3) // 2 + 1
    return (side - 5) // 4 + 1
