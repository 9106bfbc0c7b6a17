"""Fit a posterior over the last layer of a trained model, and calibrate it on held-out images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import ConfigError, InputError
from survey_ml.labelled import LabelledImages
from survey_ml.learning.calibration import Calibrator, Method, fit_calibrator
from survey_ml.learning.heads import (
    Embedded,
    draw_gaussian,
    draw_masks,
    evaluate_heads,
    fit_by_backprop,
    fit_by_laplace,
)
from survey_ml.learning.judgement import HeldOut
from survey_ml.learning.laplace import HeadPosterior
from survey_ml.learning.outliers import fit_gaussians, measure_distances
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.learning.reliability import measure_nll
from survey_ml.models.calibration import write_held_out
from survey_ml.models.card import Base, Calibration, Card, Posterior, Training
from survey_ml.models.classifier import Classifier, load_classifier
from survey_ml.models.estimator import SAMPLES
from survey_ml.models.format import read_model, save_model

HeadMethod = Literal["bayes-by-backprop", "mc-dropout", "laplace"]
PRIOR_SCALES = (0.1, 0.3, 1.0, 3.0)
"""Widths of the prior of which the bound on the evidence chooses one."""
COPIES = 2
"""Changed copies of each training image beside the image itself."""
PARTS = 5
"""Of the held-out images: each part is calibrated by what the others say."""
LastLayer = tuple[NDArray[np.floating], NDArray[np.floating]]
_LAST = ("heads.joint", "head")
CALIBRATORS: tuple[Method, ...] = ("temperature", "vector")
"""Of which one is chosen. Isotonic maps have steps: with some hundred images, sources that hardly differ
would get probabilities that do."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A network, images that it was trained on, and images that it was not.

    Attributes
    ----------
    path : Path
        Of its file.
    train, held : LabelledImages
    """

    path: Path
    train: LabelledImages
    held: LabelledImages


def fit_posterior(
    base: Path,
    train: LabelledImages,
    folds: Sequence[Trained],
    out: Path,
    *,
    method: HeadMethod = "bayes-by-backprop",
    seed: int = 0,
    held: str = "",
    source: str = "",
) -> Path:
    """Fit a posterior over the last layer of a model, and write it.

    Parameters
    ----------
    base : Path
        The model's file: a network whose last layer is linear.
    train : LabelledImages
        What it was trained on.
    folds : sequence of Trained
        The model itself with images that were held out of its training; or networks that were trained
        alike on parts of the images, each with the rest.
    out : Path
        Folder; gets ``<model>-<method>.safetensors``.
    method : str
    seed : int
    held, source : str
        What held-out and training images are, for the card.

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        When the model has no linear last layer, or drops nothing for ``mc-dropout``.
    InputError
        When classes differ, or there are too few held-out images.
    """
    probabilities, distances = [], []
    labels = np.concatenate([one.held.labels for one in folds])
    require_enough(labels, len(train.classes))
    for one in folds:
        network = _Network(one.path, train.classes)
        posterior = network.fit(one.train, method, seed)
        embedding = network.embed(one.held)
        drawn = evaluate_heads(network.draw(posterior, method, SAMPLES, seed), embedding)
        probabilities.append(drawn.mean(axis=0))
        gaussians = fit_gaussians(network.embed(one.train), one.train.labels, len(train.classes))
        distances.append(measure_distances(gaussians, embedding))
    calibrator, calibrated = choose_calibrator(np.concatenate(probabilities), labels, seed)
    network = _Network(base, train.classes)
    posterior = network.fit(train, method, seed)
    gaussians = fit_gaussians(network.embed(train), train.labels, len(train.classes))
    card = Card(
        name=f"{network.card.name}-{method}",
        classes=tuple(train.classes),
        kind="head",
        architecture={"n_classes": len(train.classes), "width": posterior.mean.shape[1] - 1},
        preprocessing=network.card.preprocessing,
        base=Base(name=network.card.name, hash=network.classifier.hash),
        posterior=Posterior(
            method=method,
            prior_scale=posterior.prior_scale,
            rate=network.rate if method == "mc-dropout" else 0.0,
        ),
        calibration=Calibration(
            data=held, n=len(labels), width=posterior.mean.shape[1] - 1, **asdict(calibrator)
        ),
        training=Training(
            data=source, n=len(train.labels), seeds=(seed,), date=time.strftime("%Y-%m-%d", time.gmtime())
        ),
        licence=network.card.licence,
        intended_use=f"How far the classes by {network.card.name} can be trusted.",
        limits=network.card.limits,
        invariant_under=network.card.invariant_under,
    )
    arrays: dict[str, NDArray[Any]] = {"mean": posterior.mean.astype(np.float32)}
    if method != "mc-dropout":
        arrays["factor"] = posterior.factor.astype(np.float32)
    known = HeldOut(calibrator, calibrated, labels, gaussians, np.concatenate(distances))
    path = out / f"{card.name}.safetensors"
    save_model(path, arrays | write_held_out(known), card)
    return path


def require_enough(labels: NDArray[np.int64], n_classes: int) -> None:
    """Say that there are too few held-out images to calibrate with."""
    if len(labels) < 10 * PARTS or (np.bincount(labels, minlength=n_classes) < PARTS).any():
        raise InputError(
            f"{len(labels)} held-out images are too few to calibrate with",
            f"give {10 * PARTS} at least, and {PARTS} of each class",
        )


def choose_calibrator(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], seed: int = 0
) -> tuple[Calibrator, NDArray[np.float64]]:
    """Choose how to calibrate, and calibrate each part of the images by what the others say.

    Parameters
    ----------
    probabilities : (n, n_classes) array
        Of held-out images.
    labels : (n,) array of int
    seed : int
        Of the parts.

    Returns
    -------
    calibrator : Calibrator
        Fitted to all images; of the method with the least negative log likelihood across parts.
    calibrated : (n, n_classes) ndarray of float64
        Of the same images, none by a calibrator that it was fitted with.
    """
    # By class, so that every part has all of them.
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    part = np.empty(len(labels), np.int64)
    part[order] = np.arange(len(labels)) % PARTS
    tried: dict[Method, NDArray[np.float64]] = {}
    for method in CALIBRATORS:
        found = np.empty_like(probabilities)
        for number in range(PARTS):
            own = part == number
            found[own] = fit_calibrator(probabilities[~own], labels[~own], method).apply(probabilities[own])
        tried[method] = found
    best = min(tried, key=lambda name: measure_nll(tried[name], labels, draws=1).value)
    return fit_calibrator(probabilities, labels, best), tried[best]


def find_last_layer(tensors: Mapping[str, NDArray[Any]], members: int) -> LastLayer | None:
    """Return weights (n_classes, d) and bias (n_classes,) of the linear layer on the embedding of a model.

    Parameters
    ----------
    tensors : mapping
        Of the model's file.
    members : int
        Networks whose logits are averaged; 0 where there is but one.

    Returns
    -------
    tuple or None
        None where logits are made of the embedding in another way.
    """
    begins = [f"members.{k}." for k in range(members)] or [""]
    layers = []
    for begin in begins:
        name = next((f"{begin}{one}" for one in _LAST if f"{begin}{one}.weight" in tensors), None)
        if name is None or any(one.startswith(f"{begin}heads.each") for one in tensors):
            return None
        layers.append((tensors[f"{name}.weight"], tensors[f"{name}.bias"]))
    weights, biases = zip(*layers, strict=True)
    return np.concatenate(weights, axis=1) / len(layers), np.mean(biases, axis=0)


class _Network:
    """A trained network, of which only the last layer is looked at."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        tensors, self.card, _ = read_model(path)
        if tuple(self.card.classes) != tuple(classes):
            raise InputError(
                f"{path.name} has the classes {', '.join(self.card.classes)}, images {', '.join(classes)}",
                "give the images that it was trained on",
            )
        if self.card.is_bayesian:
            raise ConfigError(
                f"{self.card.name} has a posterior over all its weights already",
                "it needs none over the last",
            )
        layer = find_last_layer(tensors, len(self.card.architecture.get("members", ())))
        if layer is None:
            raise ConfigError(
                f"the last layer of {self.card.name} is not one linear layer",
                "models with aggregation concat have one, and plain networks",
            )
        self.weight, self.bias = layer
        self.rate = float(self.card.architecture.get("dropout", 0.0))
        self.classifier: Classifier = load_classifier(path)

    def embed(self, images: LabelledImages) -> NDArray[np.float32]:
        """Return the embedding (n, d) of images."""
        return self.classifier.predict(prepare_images(images, self.card.preprocessing.side)).embedding

    def fit(self, images: LabelledImages, method: HeadMethod, seed: int) -> HeadPosterior:
        """Return the posterior given images."""
        trained = np.column_stack([self.weight, self.bias]).astype(np.float64)
        if method == "mc-dropout":
            if not self.rate:
                raise ConfigError(f"{self.card.name} drops nothing", "take bayes-by-backprop or laplace")
            return HeadPosterior(trained, np.zeros((0, 0)), 0.0, float("nan"))
        if method == "laplace":
            data = Embedded(self.embed(images)[None], images.labels)
            return fit_by_laplace(data, self.weight, self.bias)
        data = Embedded(self._embed_copies(images, seed), images.labels)
        tried = [
            fit_by_backprop(data, len(self.bias), prior_scale=scale, seed=seed) for scale in PRIOR_SCALES
        ]
        return max(tried, key=lambda one: one.log_evidence)

    def draw(self, posterior: HeadPosterior, method: HeadMethod, samples: int, seed: int) -> Any:
        """Return last layers (samples, n_classes, d + 1)."""
        if method == "mc-dropout":
            return draw_masks(posterior.mean, self.rate, samples, seed)
        return draw_gaussian(posterior.mean, posterior.factor, samples, seed)

    def _embed_copies(self, images: LabelledImages, seed: int) -> NDArray[np.float32]:
        import torch

        from survey_ml.learning.augmentation import augment_images

        plain = prepare_images(images, self.card.preprocessing.side)
        generator = torch.Generator().manual_seed(seed)
        copies = [plain]
        for _ in range(COPIES):
            changed = augment_images(
                torch.from_numpy(plain)[:, None], generator, scales=(0.9, 1.1), shift=2.0
            )
            copies.append(np.ascontiguousarray(changed[:, 0].numpy()))
        return np.stack([self.classifier.predict(one).embedding for one in copies])
