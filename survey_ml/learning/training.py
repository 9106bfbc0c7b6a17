"""Train a network: seeded, resumable after every epoch, with early stopping on validation data."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from survey_ml.errors import ConfigError, SurveyMLError
from survey_ml.learning.augmentation import augment_images
from survey_ml.learning.convolution import FeatureStandard
from survey_ml.learning.networks import AttentionNetwork
from survey_ml.learning.observation import Observation, observe_images
from survey_ml.learning.team import Team

SETTLING = 256
"""Images that the standardisation of features is measured on after each epoch."""
UNCHANGED = Observation()
ALONE = Team()


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    epochs : int
        Passes over the training images; the learning rate follows one cycle over them.
    batch_size : int
    learning_rate : float
        Largest value of the cycle.
    weight_decay : float
        Of AdamW.
    smoothing : float
        Share of the label that is spread over all classes.
    balance : bool
        Weigh classes by the inverse of their number.
    average : float
        Of the moving average of the weights that is kept, a step.
    patience : int
        Epochs without a lower validation loss after which training ends; 0 for never.
    scales : tuple of float
        Range of the magnification of training images.
    shift : float
        Largest shift of training images in pixels.
    seed : int
        Of the first weights, the order of images and their changes.
    mixed : bool
        Compute in bfloat16 on a GPU. Most CPUs can only imitate that, ten times slower.
    observation : Observation
        Other surveys that a share of the training images are made to look like.

    Raises
    ------
    ConfigError
        When a number makes no sense.
    """

    epochs: int = 60
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    smoothing: float = 0.0
    balance: bool = False
    average: float = 0.99
    patience: int = 0
    scales: tuple[float, float] = (0.9, 1.1)
    shift: float = 2.0
    seed: int = 0
    mixed: bool = True
    observation: Observation = UNCHANGED

    def __post_init__(self) -> None:
        low, high = self.scales
        ranges = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2"),
            "learning_rate": (0.0 < self.learning_rate < math.inf, "above 0"),
            "weight_decay": (0.0 <= self.weight_decay < math.inf, "0 or more"),
            "smoothing": (0.0 <= self.smoothing < 1.0, "from 0 up to 1, without 1"),
            "average": (0.0 <= self.average < 1.0, "from 0 up to 1, without 1"),
            "patience": (self.patience >= 0, "0 or more"),
            "scales": (0.0 < low <= high < math.inf, "two numbers above 0, the smaller first"),
            "shift": (0.0 <= self.shift < math.inf, "0 or more pixels"),
        }
        for key, (possible, wanted) in ranges.items():
            if not possible:
                raise ConfigError(f"{key} of a training is {getattr(self, key)}", f"give {wanted}")


@dataclass
class State:
    """All that training goes on from after an interruption.

    Attributes
    ----------
    epoch : int
        Epochs done.
    history : list of dict
        One an epoch: ``epoch``, ``loss``, ``seconds`` and, with validation, ``val_loss``, ``val_accuracy``.
    best : dict
        Weights of the epoch with the least validation loss, or the last ones.
    best_epoch : int
    tensors : dict
        Weights, their average, the state of optimizer and random numbers.
    """

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    tensors: dict[str, Any] = field(default_factory=dict)


Images = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Images (n, y, x) from 0 to 1, and the number of the class of each."""
Objective = Callable[[Any, Tensor, Tensor, float], Tensor]


def train_network(
    network: nn.Module,
    train: Images,
    recipe: Recipe,
    *,
    validation: Images | None = None,
    objective: Objective | None = None,
    device: str = "cpu",
    state: State | None = None,
    report: Callable[[State], None] | None = None,
    team: Team = ALONE,
) -> State:
    """Train a network in place and load the best weights into it.

    Parameters
    ----------
    network : nn.Module
        Returns logits first.
    train, validation : Images
        Validation images are never changed. Without them the last weights are taken.
    recipe : Recipe
    objective : callable
        Gives what is made small, for the network, a batch of images, its labels, and the share of the
        training that is done: the cross entropy with the recipe's weights and smoothing when not given.
        What it is at the end is what counts: with one the last weights are taken, whatever the loss on
        validation images was before.
    device : str
        ``cpu``, ``cuda`` or one of them with a number.
    state : State
        Of an interrupted training with the same arguments.
    report : callable
        Called after every epoch, to show or keep the state.
    team : Team
        Of the processes that train together, each called with the same arguments. They share every batch
        out among them; an incomplete last one loses the few images that do not divide.

    Returns
    -------
    State
        After the last epoch; the network holds ``state.best``.

    Raises
    ------
    SurveyMLError
        When the loss is no longer a number, there is nothing to train on, or batches cannot be shared out.
    """
    images, labels = to_tensors(train)
    if recipe.batch_size % team.size:
        raise ConfigError(
            f"batches of {recipe.batch_size} images cannot be shared out among {team.size} workers",
            "give a batch_size that they divide",
        )
    if len(labels) < 2:
        raise SurveyMLError(f"{len(labels)} images are too few to train on", "give at least two")
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, FeatureStandard):
            module.team = team
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    mixed = recipe.mixed and torch.device(device).type == "cuda"
    n_batches = math.ceil(len(labels) / recipe.batch_size)
    n_steps = recipe.epochs * n_batches
    generator = torch.Generator().manual_seed(recipe.seed)
    settling = torch.randperm(len(labels), generator=torch.Generator().manual_seed(recipe.seed))[:SETTLING]
    shown = images[settling]
    if recipe.observation.share:
        # Standardised by what the weights were fitted to.
        shown = observe_images(shown, torch.Generator().manual_seed(recipe.seed), recipe.observation)
    chooses = validation is not None and objective is None
    if objective is None:
        objective = _CrossEntropy(_weigh_classes(labels, network, recipe).to(device), recipe.smoothing)
    state = state or State()
    if state.tensors:
        network.load_state_dict(state.tensors["network"])
        averaged.load_state_dict(state.tensors["averaged"])
        optimizer.load_state_dict(state.tensors["optimizer"])
        generator.set_state(state.tensors["generator"])
    patience = recipe.patience if chooses and recipe.patience else recipe.epochs
    # Also asked before the first epoch: what is gone on from may have ended.
    while state.epoch < recipe.epochs and state.epoch - state.best_epoch < patience:
        began, total = time.perf_counter(), 0.0
        network.train()
        order = torch.randperm(len(labels), generator=generator)
        # Of dropout, which each process has its own of.
        torch.manual_seed(recipe.seed * 1_000_003 + state.epoch + 1009 * team.rank)
        for number, batch in enumerate(torch.split(order, recipe.batch_size)):
            batch = batch[: len(batch) // team.size * team.size]
            if len(batch) < 2:  # one image alone has no spread
                continue
            step = state.epoch * n_batches + number
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _follow_cycle(step / n_steps)
            x = augment_images(images[batch], generator, scales=recipe.scales, shift=recipe.shift)
            if recipe.observation.share:
                x = observe_images(x, generator, recipe.observation)
            x, y = team.divide(x).to(device), team.divide(labels[batch]).to(device)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=mixed):
                loss = objective(network, x, y, step / n_steps)
            if not torch.isfinite(loss):
                raise SurveyMLError(
                    f"the loss of step {step} is {float(loss.detach())}",
                    "try a lower learning_rate, or mixed: false",
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            team.average_gradients(network)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            follow_weights(averaged, network, recipe.average, step)
            total += float(loss.detach()) * len(batch)
        settle_standards(averaged, shown, device)
        entry = {"epoch": float(state.epoch + 1), "loss": team.average(total) / len(labels)}
        if validation is not None:
            judged = judge_logits(predict_logits(averaged, validation[0], device=device), validation[1])
            # Averaged, so that all find the same epoch the best, to the last bit.
            entry |= {name: team.average(value) for name, value in judged.items()}
        entry["seconds"] = time.perf_counter() - began
        close_epoch(state, entry, averaged, lowest="val_loss" if chooses else "")
        state.tensors = {
            "network": network.state_dict(),
            "averaged": averaged.state_dict(),
            "optimizer": optimizer.state_dict(),
            "generator": generator.get_state(),
        }
        if report is not None:
            report(state)
    if not state.best:
        raise SurveyMLError(
            "the loss on validation images was never a number", "look for pixels in them that are none"
        )
    network.load_state_dict(state.best)
    network.eval()
    return state


@dataclass(frozen=True, eq=False)
class _CrossEntropy:
    """Mean cross entropy in nats."""

    weights: Tensor
    smoothing: float

    def __call__(self, network: nn.Module, x: Tensor, labels: Tensor, done: float) -> Tensor:
        logits = network(x)[0].float()
        return functional.cross_entropy(logits, labels, weight=self.weights, label_smoothing=self.smoothing)


def predict_logits(
    network: nn.Module, images: NDArray[np.float32], *, batch_size: int = 64, device: str = "cpu"
) -> NDArray[np.float32]:
    """Return logits (n, n_classes) of images (n, y, x) in float32."""
    network.eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size], np.float32))
            found.append(network(batch[:, None].to(device))[0].float().cpu())
    return np.asarray(torch.cat(found).numpy())


def to_tensors(data: Images) -> tuple[Tensor, Tensor]:
    """Return images (n, 1, y, x) in float32, and labels (n,)."""
    images, labels = data
    return torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None], torch.from_numpy(labels)


def _follow_cycle(done: float) -> float:
    """Return the learning rate over its largest value: up for three tenths, then down (Smith 2018)."""
    if done < 0.3:
        return 0.04 + 0.96 * 0.5 * (1.0 - math.cos(math.pi * done / 0.3))
    return 1e-4 + (1.0 - 1e-4) * 0.5 * (1.0 + math.cos(math.pi * (done - 0.3) / 0.7))


def follow_weights(averaged: nn.Module, network: nn.Module, average: float, step: int) -> None:
    """Move averaged weights towards those of the network; ``average`` is kept, less in the first steps."""
    keep = min(average, (1.0 + step) / (10.0 + step))
    with torch.no_grad():
        for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, 1.0 - keep)


def close_epoch(state: State, entry: dict[str, float], averaged: nn.Module, *, lowest: str = "") -> None:
    """Count an epoch, and keep its weights when it is the best so far.

    Parameters
    ----------
    state : State
        Changed in place.
    entry : dict
        Of the history.
    averaged : nn.Module
        Whose weights are kept.
    lowest : str
        What is least in the best epoch; without it that is the last one.
    """
    state.epoch += 1
    state.history.append(entry)
    if not lowest or entry[lowest] <= min(one[lowest] for one in state.history):
        state.best = {name: value.cpu().clone() for name, value in averaged.state_dict().items()}
        state.best_epoch = state.epoch


@contextlib.contextmanager
def looking_once(network: nn.Module, images: NDArray[np.float32]) -> Iterator[None]:
    """Let a network that looks at turned images as well do so only afterwards.

    Training turns images by any angle, and validation after each epoch would take twice the work. What
    features are standardised by is measured anew on the training images (n, y, x) in the end.
    """
    looking = [one for one in network.modules() if isinstance(one, AttentionNetwork)]
    for one in looking:
        one.turning = False
    yield
    for one in looking:
        one.turning = one.turned
    if any(one.turned for one in looking):
        settle_standards(network.cpu(), torch.from_numpy(images)[:, None], "cpu")


def settle_standards(network: nn.Module, images: Tensor, device: str) -> None:
    """Measure what features are standardised by anew, on unchanged images (Wu & Johnson 2021).

    Running means of the training lag behind weights that change, and are not those of their average.
    """
    standards = [module for module in network.modules() if isinstance(module, FeatureStandard)]
    if not standards:
        return
    for standard in standards:
        standard.train()
    with torch.no_grad():
        for number, batch in enumerate(torch.split(images, 64)):
            for standard in standards:
                standard.share = 1.0 / (number + 1)  # so that in the end all count alike
            if len(batch) > 1:
                network(batch.to(device))
    network.eval()


def _weigh_classes(labels: Tensor, network: nn.Module, recipe: Recipe) -> Tensor:
    architecture: Any = getattr(network, "architecture")  # noqa: B009 (the checker knows no such attribute)
    counts = torch.bincount(labels, minlength=int(architecture.n_classes)).float()
    if not recipe.balance:
        return torch.ones_like(counts)
    return torch.where(counts > 0, counts.sum() / (counts.clamp_min(1) * (counts > 0).sum()), 0.0)


def judge_logits(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Return ``val_loss`` and ``val_accuracy`` of logits (n, n_classes)."""
    loss = functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    return {"val_loss": float(loss), "val_accuracy": float((logits.argmax(axis=1) == labels).mean())}
