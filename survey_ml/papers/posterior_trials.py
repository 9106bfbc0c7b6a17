"""Trainings of Bayesian networks for a reproduction: each is kept, and goes on where it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from survey_ml.labelled import LabelledImages
from survey_ml.learning.networks import Architecture
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.learning.priors import Prior
from survey_ml.learning.training import Recipe
from survey_ml.models.card import Card
from survey_ml.models.sampling import open_samples
from survey_ml.papers.trials import SIDE, Report, identify, keep_arrays, keep_state

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = 100
"""Weight samples that every image is looked at with."""


@dataclass(frozen=True)
class Setting:
    """What is trained, and how.

    Parameters
    ----------
    prior : Prior
    temperature, misspecified, warm_up
        See `survey_ml.learning.variational.FreeEnergy`.
    augmented : bool
        Whether training images are turned, reflected, scaled and shifted.
    """

    prior: Prior
    temperature: float = 0.01
    misspecified: bool = False
    warm_up: float = 0.3
    augmented: bool = True


@dataclass(frozen=True)
class PosteriorTrial:
    """A finished training.

    Attributes
    ----------
    means, scales : mapping
        State of the network with means as weights, and their standard deviations.
    samples : mapping
        Name of a set of images to logits (n_samples, n, n_classes).
    """

    means: Mapping[str, NDArray[np.float32]]
    scales: Mapping[str, NDArray[np.float32]]
    samples: Mapping[str, NDArray[np.float32]]

    def find_errors(self, name: str, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the share of wrong labels over weight samples of each image of a set."""
        return np.asarray((self.samples[name].argmax(axis=2) != labels).mean(axis=0))

    def find_probabilities(self, name: str) -> NDArray[np.float64]:
        """Return probabilities (n_samples, n, n_classes) of a set."""
        return np.asarray(special.softmax(self.samples[name].astype(np.float64), axis=2))


def run_posterior(
    name: str,
    folder: Path,
    architecture: Architecture,
    recipe: Recipe,
    setting: Setting,
    train: LabelledImages,
    sets: Mapping[str, LabelledImages],
    *,
    samples: int = SAMPLES,
    report: Report = lambda text: None,
) -> PosteriorTrial:
    """Train a Bayesian LeNet and look at sets of images, or take what an earlier call kept.

    Parameters
    ----------
    name : str
        Shown, and the beginning of file names.
    folder : Path
        Where results and checkpoints lie.
    architecture, recipe, setting
        What is trained, and how.
    train : LabelledImages
    sets : mapping
        Name to images; looked at after the last epoch.
    samples : int
        Weight samples that each image is looked at with.
    report : callable
        Called with one line of text after every epoch.
    """
    import torch

    from survey_ml.learning.baselines import make_lenet
    from survey_ml.learning.training import State, train_network
    from survey_ml.learning.variational import FreeEnergy, VariationalNetwork

    settings = [asdict(architecture), asdict(recipe), asdict(setting), samples]
    key = identify(settings, {"train": train, **sets})
    done, checkpoint = folder / f"{name}-{key}.npz", folder / f"{name}-{key}.pt"
    if done.is_file():
        return _read(done)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = VariationalNetwork(make_lenet(architecture))
    state = State(**torch.load(checkpoint, weights_only=True)) if checkpoint.is_file() else None

    def keep(now: State) -> None:
        keep_state(now, checkpoint)
        report(f"{name}: epoch {now.epoch} of {recipe.epochs}, cost {now.history[-1]['loss']:.3f}")

    train_network(
        network,
        (prepare_images(train, SIDE), train.labels),
        recipe,
        objective=FreeEnergy(
            setting.prior,
            len(train.labels),
            temperature=setting.temperature,
            misspecified=setting.misspecified,
            warm_up=setting.warm_up,
        ),
        state=state,
        report=keep,
    )
    means, scales = network.split_state()
    arrays: dict[str, Any] = {
        f"samples {what}": sample_logits(architecture, means, scales, images, samples)
        for what, images in sets.items()
    }
    arrays |= {f"mean {key}": value.numpy() for key, value in means.items()}
    arrays |= {f"scale {key}": value.numpy() for key, value in scales.items()}
    keep_arrays(arrays, done, checkpoint)
    return _read(done)


def sample_logits(
    architecture: Architecture,
    means: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
    images: LabelledImages,
    samples: int = SAMPLES,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Return logits (samples, n, n_classes) of images by samples of the weights."""
    from survey_ml.learning.variational import draw_states

    card = Card(
        name="trial",
        classes=tuple(f"class_{k}" for k in range(architecture.n_classes)),
        kind="lenet",
        architecture=json.loads(json.dumps(asdict(architecture))),
    )
    drawn = [
        {name: value.numpy() for name, value in state.items()}
        for state in draw_states(means, scales, samples, seed)
    ]
    return open_samples(drawn, card, "torch").run(prepare_images(images, SIDE))


def _read(path: Path) -> PosteriorTrial:
    with np.load(path, allow_pickle=False) as kept:
        parts: dict[str, dict[str, NDArray[np.float32]]] = {"samples": {}, "mean": {}, "scale": {}}
        for key in kept.files:
            what, name = key.split(" ", 1)
            parts[what][name] = kept[key]
    return PosteriorTrial(parts["mean"], parts["scale"], parts["samples"])
