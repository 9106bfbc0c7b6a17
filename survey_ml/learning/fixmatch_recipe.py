"""How FixMatch trains: as published for radio galaxies, and at a size that a CPU can bear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from survey_ml.errors import ConfigError


@dataclass(frozen=True)
class FixMatchRecipe:
    """Settings of FixMatch; the defaults are those of Slijepcevic et al. 2022.

    Parameters
    ----------
    threshold : float
        Probability from which on what the network says of an unlabelled image is taken for its label (tau).
    weight : float
        Of the loss on unlabelled images (lambda).
    ratio : int
        Unlabelled images a labelled one in a batch (mu).
    batch_size : int
        Labelled images in a batch.
    learning_rate, weight_decay : float
        Of AdamW; of Adam without decay.
    schedule : str
        ``constant``, or ``cosine`` from the full rate to none.
    epochs : int
    steps : int
        Batches an epoch; 0 for a pass over the labelled or the unlabelled images, whichever is shorter.
    operations : int
        Strong changes of each unlabelled image.
    beam : float
        Above 0 smoothing by a Gaussian of at most this standard deviation, in pixels of the images, is one
        more strong change: surveys differ by their beam first of all.
    noise : float
        Above 0 noise of at most this share of the peak, clipped again, is one more strong change.
    beam_px : float
        FWHM of the images' beam in pixels, which that noise is correlated by; 0 for white noise.
    crop : bool
        Empty what is outside of the largest circle in training images, so that no corner tells how far an
        image was turned.
    average : float
        Of the moving average of the weights that is kept, a step; that is what is validated and kept. 0 for
        the weights themselves.
    balance : bool
        Give all classes equally many places in the labelled part of a batch.
    align : bool
        Align what the network says of unlabelled images with the classes that are expected among them
        (`survey_ml.learning.fixmatch.align_probabilities`).
    target : tuple of float, optional
        Shares of the classes that are expected in the pool; those of the labelled images unless given.
    choose : str
        Which epoch is kept with validation images: that of the best ``accuracy``, of the least ``loss``, or
        the ``last``.
    patience : int
        Epochs without a better one after which training ends; 0 for never.
    seed : int
        Of the order of images and their changes.

    Raises
    ------
    ConfigError
        When a setting is out of range.
    """

    threshold: float = 0.95
    weight: float = 1.0
    ratio: int = 7
    batch_size: int = 20
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    epochs: int = 800
    steps: int = 0
    operations: int = 2
    beam: float = 0.0
    noise: float = 0.0
    beam_px: float = 3.0
    crop: bool = True
    average: float = 0.0
    balance: bool = False
    align: bool = False
    target: tuple[float, ...] | None = None
    choose: Literal["accuracy", "loss", "last"] = "accuracy"
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        inside = {
            "threshold": (self.threshold, 0.0, 1.0),
            "weight": (self.weight, 0.0, 1e6),
            "ratio": (self.ratio, 1, 1000),
            "batch_size": (self.batch_size, 1, 100_000),
            "learning_rate": (self.learning_rate, 1e-12, 10.0),
            "weight_decay": (self.weight_decay, 0.0, 10.0),
            "epochs": (self.epochs, 1, 1_000_000),
            "steps": (self.steps, 0, 1_000_000),
            "operations": (self.operations, 0, 100),
            "beam": (self.beam, 0.0, 1000.0),
            "noise": (self.noise, 0.0, 1.0),
            "beam_px": (self.beam_px, 0.0, 1000.0),
            "average": (self.average, 0.0, 0.999999),
            "patience": (self.patience, 0, 1_000_000),
        }
        for name, (value, low, high) in inside.items():
            if not low <= value <= high:  # never true for NaN
                raise ConfigError(f"{name} of fixmatch is {value}", f"give {low:g} to {high:g}")
        for name, kinds in (("schedule", ("constant", "cosine")), ("choose", ("accuracy", "loss", "last"))):
            if getattr(self, name) not in kinds:
                raise ConfigError(
                    f"{name} of fixmatch is {getattr(self, name)}", f"give {' or '.join(kinds)}"
                )
        if self.target is not None and not (min(self.target) >= 0.0 and abs(sum(self.target) - 1.0) < 1e-3):
            raise ConfigError(
                f"target of fixmatch is {self.target}", "give a share for each class, that sum to 1"
            )


PAPER = FixMatchRecipe()
"""As published, for images of 150 px and the network of Tang et al. 2019: hours on a CPU."""
SMALL = FixMatchRecipe(
    ratio=3,
    learning_rate=3e-3,
    schedule="cosine",
    epochs=16,
    steps=50,
    crop=False,
    average=0.99,
    balance=True,
    choose="loss",
)
"""For networks that see images of 32 to 50 px: half a minute on a CPU."""
PRESETS = {"paper": PAPER, "small": SMALL}
