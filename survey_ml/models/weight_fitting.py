"""Posteriors over all weights of a network: how one is asked for, fitted, and calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from survey_ml.errors import ConfigError, InputError
from survey_ml.labelled import LabelledImages
from survey_ml.learning.judgement import HeldOut
from survey_ml.learning.outliers import fit_gaussians, measure_distances
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.learning.priors import Prior, Shape
from survey_ml.learning.reliability import bootstrap_mean, measure_ece, measure_uce
from survey_ml.learning.scores import Score
from survey_ml.learning.uncertainty import measure_uncertainty, normalise_entropy
from survey_ml.models.calibration import read_held_out, write_held_out
from survey_ml.models.card import Calibration, Card, Metric, Posterior
from survey_ml.models.classifier import load_classifier
from survey_ml.models.estimator import SAMPLES
from survey_ml.models.format import read_model
from survey_ml.models.kinds import build_network
from survey_ml.models.posterior import MEAN, SCALE, draw_networks, list_dropped
from survey_ml.models.posterior_fitting import Trained, choose_calibrator, require_enough
from survey_ml.models.sampling import open_samples

MONTE_CARLO_ERROR = "Monte Carlo error"

if TYPE_CHECKING:
    from torch import nn

    from survey_ml.learning.variational import FreeEnergy


class PosteriorFitting(BaseModel):
    """A posterior over all weights of a network: part of the file that ``train morphology`` reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    method: Literal["bayes-by-backprop", "mc-dropout", "deep-ensemble"] = "bayes-by-backprop"
    """Variational inference, dropout kept on, or several trainings with other first weights."""
    prior: Shape = "gaussian"
    """Of the weights: gaussian, gaussian-mixture, laplace or laplace-mixture."""
    scale: float = Field(0.1, ge=1e-6, le=1e6)
    """Of the prior; of its wide part in a mixture."""
    narrow: float = Field(1e-3, ge=1e-6, le=1e6)
    """Scale of the narrow part of a mixture."""
    share: float = Field(0.75, gt=0.0, lt=1.0)
    """Of the wide part of a mixture."""
    temperature: float = Field(0.01, ge=0.0, allow_inf_nan=False)
    """Factor of the divergence from the prior; 1 is Bayes' rule."""
    misspecified: bool = False
    """Take off the variance of the likelihood over the posterior (Masegosa 2020)."""
    warm_up: float = Field(0.3, ge=0.0, le=1.0)
    """Share of the training over which the divergence comes to count in full."""
    members: int = Field(5, ge=2, le=100)
    """Networks of an ensemble."""

    def check(self, card: Card, labels: NDArray[np.int64]) -> None:
        """Say before a training what would come to light after it.

        Parameters
        ----------
        card : Card
            Of the network, with its posterior.
        labels : (n,) array of int
            Of the validation images; none leaves the posterior without calibration.

        Raises
        ------
        ConfigError
            When dropout is asked of a network that drops nothing.
        InputError
            When there are too few validation images.
        """
        if len(labels):
            require_enough(labels, len(card.classes))
        if self.method == "mc-dropout":
            list_dropped(build_network(card))
            if not card.architecture["dropout"]:
                raise ConfigError(
                    "a network that drops nothing has no posterior of the method mc-dropout",
                    "set dropout of the architecture to a share above 0, such as 0.2",
                )

    def make_objective(self, n: int) -> FreeEnergy:
        """Return what training makes small, for n images."""
        from survey_ml.learning.variational import FreeEnergy

        prior = Prior(self.prior, self.scale, self.narrow, self.share)
        return FreeEnergy(
            prior, n, temperature=self.temperature, misspecified=self.misspecified, warm_up=self.warm_up
        )

    def describe(self, rate: float) -> Posterior:
        """Return what the card says; ``rate`` is that of dropout."""
        if self.method == "deep-ensemble":
            return Posterior(method=self.method, members=self.members)
        if self.method == "mc-dropout":
            return Posterior(method=self.method, rate=rate)
        mixture = self.prior.endswith("mixture")
        return Posterior(
            method=self.method,
            prior=self.prior,
            prior_scale=self.scale,
            prior_narrow=self.narrow if mixture else 0.0,
            prior_share=self.share if mixture else 1.0,
            temperature=self.temperature,
            misspecified=self.misspecified,
        )


def collect_arrays(networks: list[nn.Module]) -> dict[str, NDArray[Any]]:
    """Return what a file holds of trained networks: one, a variational one, or members of an ensemble."""
    from survey_ml.learning.variational import VariationalNetwork

    first = networks[0]
    if isinstance(first, VariationalNetwork):
        means, scales = first.split_state()
        parts = [(MEAN, means), (SCALE, scales)]
    elif len(networks) == 1:
        parts = [("", first.state_dict())]
    else:
        parts = [(f"{k}.", one.state_dict()) for k, one in enumerate(networks)]
    return {
        f"{begin}{name}": value.detach().cpu().numpy()
        for begin, state in parts
        for name, value in state.items()
    }


def calibrate_posterior(
    path: Path, train: LabelledImages, folds: Sequence[Trained], said: str, seed: int = 0
) -> tuple[Calibration, dict[str, NDArray[Any]]]:
    """Calibrate a posterior on images that its network was not trained on.

    Parameters
    ----------
    path : Path
        Of the model's file.
    train : LabelledImages
        What it was trained on.
    folds : sequence of Trained
        The model itself with images that were held out of its training; or models that were trained alike on
        parts of the images, each with the rest.
    said : str
        What the held-out images are, for the card.
    seed : int
        Of the parts that calibrate each other.

    Returns
    -------
    calibration : Calibration
    arrays : dict
        What the file holds beside the weights.

    Raises
    ------
    InputError
        When there are too few held-out images.
    """
    n_classes = len(train.classes)
    labels = np.concatenate([one.held.labels for one in folds])
    require_enough(labels, n_classes)
    probabilities, distances = [], []
    for one in folds:
        probabilities.append(sample_model(one.path, one.held).mean(axis=0))
        gaussians = fit_gaussians(_embed(one.path, one.train), one.train.labels, n_classes)
        distances.append(measure_distances(gaussians, _embed(one.path, one.held)))
    calibrator, calibrated = choose_calibrator(np.concatenate(probabilities), labels, seed)
    embedding = _embed(path, train)
    gaussians = fit_gaussians(embedding, train.labels, n_classes)
    known = HeldOut(calibrator, calibrated, labels, gaussians, np.concatenate(distances))
    about = Calibration(data=said, n=len(labels), width=embedding.shape[1], **asdict(calibrator))
    return about, write_held_out(known)


def _embed(path: Path, images: LabelledImages) -> NDArray[np.float32]:
    classifier = load_classifier(path, "torch")
    return classifier.predict(prepare_images(images, classifier.card.preprocessing.side)).embedding


def sample_model(
    path: Path, images: LabelledImages, samples: int = SAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Return probabilities (n_samples, n, n_classes) of labelled images by weight samples of a model.

    Of a few hundred images torch has made them before OpenVINO is ready.
    """
    from scipy import special

    tensors, card, _ = read_model(path)
    assert card.posterior is not None
    drawn = draw_networks(tensors, card.posterior, build_network(card), samples, seed)
    logits = open_samples(drawn, card, "torch").run(prepare_images(images, card.preprocessing.side))
    return np.asarray(special.softmax(logits.astype(np.float64), axis=2))


def judge_posterior(path: Path, data: LabelledImages, what: str) -> list[Metric]:
    """Return the error of weight samples on labelled images, and how well they are calibrated.

    The Monte Carlo error is the share of wrong labels over all weight samples (Mohan et al. 2022); intervals
    are bootstrapped over images.
    """
    tensors, card, _ = read_model(path)
    require_network(card)
    samples, labels = sample_model(path, data), np.asarray(data.labels, np.int64)
    errors = (samples.argmax(axis=2) != labels).mean(axis=0)
    found = measure_uncertainty(samples)
    n_classes = len(card.classes)
    figures: list[tuple[str, Score]] = [
        (MONTE_CARLO_ERROR, bootstrap_mean(errors)),
        (
            "uncertainty calibration error of the entropy",
            measure_uce(normalise_entropy(found.entropy, n_classes), errors, n_classes),
        ),
    ]
    if card.calibration is not None:
        calibrated = read_held_out(card.calibration, tensors).calibrator.apply(found.probabilities)
        figures.append(("expected calibration error, calibrated", measure_ece(calibrated, labels)))
    return [
        Metric(quantity=name, value=one.value, low=one.low, high=one.high, n=one.n, data=what)
        for name, one in figures
    ]


def require_network(card: Card) -> None:
    """Say that a card is of no network with a posterior over its weights."""
    if not card.is_bayesian:
        raise InputError(
            f"{card.name} has no posterior over the weights of its network",
            "`survey-ml train morphology` fits one when its configuration has a posterior",
        )
