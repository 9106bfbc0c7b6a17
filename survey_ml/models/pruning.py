"""Take weights out of a model with a posterior over them, and say what that does to its classes."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import ConfigError, InputError
from survey_ml.labelled import LabelledImages
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.learning.reliability import bootstrap_mean, measure_ece, measure_uce
from survey_ml.learning.scores import Score
from survey_ml.learning.uncertainty import measure_uncertainty, normalise_entropy
from survey_ml.models.calibration import PREFIX, read_held_out
from survey_ml.models.card import Card
from survey_ml.models.format import Tensors, read_model, save_model
from survey_ml.models.kinds import build_network
from survey_ml.models.posterior import MEAN, SCALE, find_networks
from survey_ml.models.posterior_fitting import Trained
from survey_ml.models.runtime import load_network
from survey_ml.models.weight_fitting import calibrate_posterior, require_network, sample_model

if TYPE_CHECKING:
    from torch import Tensor

Ranking = Literal["snr", "fisher"]


@dataclass(frozen=True)
class Effect:
    """How well a model does on images of one class, or of all.

    Attributes
    ----------
    label : str
        Class, or ``all``.
    error : Score
        Monte Carlo error.
    ece, uce : Score
        Calibration errors: of the calibrated probability of the label given, and of the entropy.
    """

    label: str
    error: Score
    ece: Score
    uce: Score


def prune_model(
    path: Path,
    out: Path,
    *,
    by: Ranking,
    share: float,
    train: LabelledImages,
    held: LabelledImages,
    said: str = "",
) -> int:
    """Write a model without some weights of its fully connected layers.

    Parameters
    ----------
    path, out : Path
        Of the model, and of what is written.
    by : str
        ``snr``: weights whose mean is least in units of its standard deviation go first (Graves 2011);
        ``fisher``: those without which the loss rises least by the Fisher information.
    share : float
        Of those weights.
    train : LabelledImages
        What the model was trained on.
    held : LabelledImages
        What it was not, to calibrate it on anew. Without any, as for a model that was calibrated by folds,
        what was learnt before pruning is kept, and the card says so.
    said : str
        What these are, for the card.

    Returns
    -------
    int
        Weights that were taken out.

    Raises
    ------
    ConfigError
        When the model has no Gaussians over its weights, or the share is out of range.
    InputError
        When there are too few held-out images.
    """
    import torch

    from survey_ml.learning.pruning import list_dense, prune_weights
    from survey_ml.learning.variational import measure_signal

    tensors, card, _ = read_model(path)
    require_network(card)
    assert card.posterior is not None
    if card.posterior.method != "bayes-by-backprop":
        raise ConfigError(
            f"{card.name} is of the method {card.posterior.method}", "weights of bayes-by-backprop are pruned"
        )
    if tuple(train.classes) != card.classes:
        raise InputError(
            f"the images are of {', '.join(train.classes)}, the model of {', '.join(card.classes)}",
            "give the images that it was trained on",
        )
    if card.training.n and len(train.labels) != card.training.n:
        raise InputError(
            f"{card.name} was trained on {card.training.n} images, these are {len(train.labels)}",
            "give the images that it was trained on: others would be held out that were not",
        )
    if out.exists() and out.samefile(path):
        raise ConfigError(f"{out} is the model itself", "name another file: the effect is that on both")
    means, scales = (
        {
            name.removeprefix(begin): torch.from_numpy(np.array(array))
            for name, array in tensors.items()
            if name.startswith(begin)
        }
        for begin in (MEAN, SCALE)
    )
    dense = list_dense(build_network(card))
    if by == "snr":
        ranks = measure_signal(means, {name: scales[name] for name in dense})
    else:
        ranks = _rank_by_information(tensors, card, train, dense)
    means, scales, n = prune_weights(means, scales, ranks, share)
    arrays: dict[str, NDArray[Any]] = {f"{MEAN}{name}": value.numpy() for name, value in means.items()}
    arrays |= {f"{SCALE}{name}": value.numpy() for name, value in scales.items()}
    posterior = card.posterior.model_copy(update={"pruned": share, "pruned_by": by})
    changes = {"name": out.stem, "posterior": posterior, "calibration": None, "metrics": ()}
    before, card = card.calibration, card.model_copy(update=changes)
    if len(held.labels):
        with tempfile.TemporaryDirectory() as folder:
            aside = Path(folder) / out.name
            save_model(aside, arrays, card)
            calibration, known = calibrate_posterior(aside, train, [Trained(aside, train, held)], said)
    elif before is not None:
        calibration = before.model_copy(update={"data": f"{before.data}; before pruning"})
        known = {name: array for name, array in tensors.items() if name.startswith(PREFIX)}
    else:
        save_model(out, arrays, card)
        return n
    save_model(out, arrays | known, card.model_copy(update={"calibration": calibration}))
    return n


def compare_models(before: Path, after: Path, test: LabelledImages) -> list[tuple[Effect, Effect]]:
    """Return how well two models do on labelled images: of all classes together, then of each."""
    one, two = (_measure_effects(path, test) for path in (before, after))
    return list(zip(one, two, strict=True))


def describe_effects(pairs: list[tuple[Effect, Effect]]) -> list[dict[str, Any]]:
    """Return a row for each class, as commands print it in JSON."""
    return [
        {
            "class": before.label,
            "n": before.error.n,
            "before": {name: asdict(getattr(before, name)) for name in ("error", "ece", "uce")},
            "after": {name: asdict(getattr(after, name)) for name in ("error", "ece", "uce")},
        }
        for before, after in pairs
    ]


def _measure_effects(path: Path, test: LabelledImages) -> list[Effect]:
    tensors, card, _ = read_model(path)
    samples, labels = sample_model(path, test), np.asarray(test.labels, np.int64)
    errors = (samples.argmax(axis=2) != labels).mean(axis=0)
    found = measure_uncertainty(samples)
    n_classes = len(card.classes)
    entropy = normalise_entropy(found.entropy, n_classes)
    calibrated = found.probabilities
    if card.calibration is not None:
        calibrated = read_held_out(card.calibration, tensors).calibrator.apply(calibrated)
    parts = [("all", np.ones(len(labels), bool))]
    parts += [(name, labels == k) for k, name in enumerate(card.classes) if (labels == k).any()]
    return [
        Effect(
            name,
            bootstrap_mean(errors[own]),
            measure_ece(calibrated[own], labels[own]),
            measure_uce(entropy[own], errors[own], n_classes),
        )
        for name, own in parts
    ]


def _rank_by_information(
    tensors: Tensors, card: Card, train: LabelledImages, dense: list[str]
) -> dict[str, Tensor]:
    from survey_ml.learning.pruning import measure_information, rank_by_information

    network = load_network(find_networks(tensors, card.posterior)[0], card)
    images = prepare_images(train, card.preprocessing.side)
    state = network.state_dict()
    return rank_by_information(measure_information(network, images, train.labels, dense), state)
