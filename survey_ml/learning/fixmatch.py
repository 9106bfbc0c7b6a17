"""FixMatch (Sohn et al. 2020, arXiv 2001.07685): learn from images without labels beside those with.

What the network is sure of in a weakly changed unlabelled image (turned, reflected) is taken for its label,
and the same image, changed strongly, is to get that label. As Slijepcevic et al. 2022 (MNRAS 514, 2599) do
it for radio galaxies, but for this: pseudo-labels are made by the network as it is used, without dropout and
without statistics of the batch, so that what is said of an image does not depend on its neighbours.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from survey_ml.errors import ConfigError, SurveyMLError
from survey_ml.learning.augmentation import augment_images
from survey_ml.learning.fixmatch_recipe import FixMatchRecipe
from survey_ml.learning.strong_augmentation import augment_strongly, crop_circle
from survey_ml.learning.training import (
    SETTLING,
    Images,
    State,
    close_epoch,
    follow_weights,
    judge_logits,
    predict_logits,
    settle_standards,
    to_tensors,
)

MEMORY = 0.99
"""Of the mean of what the network says of unlabelled images that is kept, a step."""
LEAST_SHARE = 1e-6


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """A pool of images without labels.

    Attributes
    ----------
    images : (n, y, x) ndarray of float32
        From 0 to 1, of the side of the labelled ones.
    truth : (n,) ndarray of int64, or None
        Classes that are nevertheless known: nothing is learnt from them, they only tell the impurity.
    """

    images: NDArray[np.float32]
    truth: NDArray[np.int64] | None = None


def choose_sure(probabilities: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return the likeliest class (n,) of images, and whether (n,) its probability reaches the threshold."""
    most, label = probabilities.max(dim=1)
    return label, most >= threshold


def measure_consistency(logits: Tensor, label: Tensor, sure: Tensor) -> Tensor:
    """Return the cross entropy of pseudo-labels: zero where they are not sure, mean over all images.

    Parameters
    ----------
    logits : Tensor
        Of the strongly changed images (n, n_classes).
    label, sure : Tensor
        As `choose_sure` gives them, (n,) each.
    """
    each = functional.cross_entropy(logits, label, reduction="none")
    return (each * sure.to(each.dtype)).mean()


def align_probabilities(probabilities: Tensor, mean: Tensor, target: Tensor) -> Tensor:
    """Align what a network says with the classes that are expected (Berthelot et al. 2020, ReMixMatch).

    Probabilities are multiplied by the expected share of their class over the share that the network gave it
    lately, and brought to a sum of one. A network that calls all images of a pool by one class is so held
    back; where the pool really has other shares than is expected, it is misled. Give the target where the
    shares of the pool are known, such as by ``survey-ml shift compare``.

    Parameters
    ----------
    probabilities : Tensor
        Shape (n, n_classes).
    mean : Tensor
        Moving mean of the probabilities (n_classes,).
    target : Tensor
        Expected shares (n_classes,).
    """
    aligned = probabilities * (target / mean.clamp_min(LEAST_SHARE))
    return aligned / aligned.sum(dim=1, keepdim=True).clamp_min(1e-12)


def train_fixmatch(
    network: nn.Module,
    train: Images,
    pool: Unlabelled | None,
    recipe: FixMatchRecipe,
    *,
    validation: Images | None = None,
    device: str = "cpu",
    state: State | None = None,
    report: Callable[[State], None] | None = None,
) -> State:
    """Train a network in place on labelled and unlabelled images, and load the best weights into it.

    Parameters
    ----------
    network : nn.Module
        One of `survey_ml.learning.networks` or `baselines`: it returns logits first, and has a ``stem``.
    train, validation : Images
        Validation images are never changed. Without them the last weights are taken.
    pool : Unlabelled or None
        Without a pool the same is done with the labelled images alone, in as many steps and in the same
        order: what FixMatch is to be held against.
    recipe : FixMatchRecipe
    device : str
        ``cpu``, ``cuda`` or one of them with a number.
    state : State
        Of an interrupted training with the same arguments.
    report : callable
        Called after every epoch, to show or keep the state.

    Returns
    -------
    State
        After the last epoch. The history has, an epoch, ``loss`` and its parts ``loss_labelled`` and
        ``loss_unlabelled``; ``mask_rate``, the share of unlabelled images that were sure; ``impurity``, the
        share of these that were wrong, where the truth is known (NaN for none); ``val_loss``,
        ``val_accuracy`` and ``val_error`` with validation images; and ``seconds``.

    Raises
    ------
    SurveyMLError
        When the loss is no longer a number, or there is nothing to train on.
    ConfigError
        When the target has another number of classes than the network.
    """
    if len(train[1]) < 2 or (pool is not None and not len(pool.images)):
        raise SurveyMLError(
            f"{len(train[1])} labelled and {0 if pool is None else len(pool.images)} unlabelled images are "
            "too few to train on", "give at least two labelled images, and one without label",
        )  # fmt: skip
    network.to(device)
    with _seeing_blocks(network) as blocks:
        return _Course(network, train, pool, recipe, device, blocks).run(state, validation, report)


class _Course:
    """One training, and all that it needs at every step."""

    def __init__(
        self,
        network: nn.Module,
        train: Images,
        pool: Unlabelled | None,
        recipe: FixMatchRecipe,
        device: str,
        blocks: _Blocks,
    ) -> None:
        self.network, self.recipe, self.device, self.blocks = network, recipe, device, blocks
        images, self.labels = to_tensors(train)
        self.images = blocks.prepare(images)
        self.pool = None if pool is None else blocks.prepare(torch.from_numpy(pool.images)[:, None].float())
        self.truth = None if pool is None or pool.truth is None else torch.from_numpy(pool.truth)
        architecture: Any = getattr(network, "architecture")  # noqa: B009 (the checker knows no such attribute)
        self.averaged = copy.deepcopy(network).eval()
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        # The labelled images come in the same order and with the same changes whatever the pool is.
        seeds = recipe.seed, recipe.seed + 500_009
        self.labelled, self.unlabelled = (torch.Generator().manual_seed(seed) for seed in seeds)
        self.n_classes = int(architecture.n_classes)
        shares = torch.bincount(self.labels, minlength=self.n_classes) / len(self.labels)
        self.target = shares if recipe.target is None else torch.tensor(recipe.target)
        if len(self.target) != self.n_classes:
            raise ConfigError(
                f"target of fixmatch has {len(self.target)} shares, for {self.n_classes} classes",
                "give one for each class, in the order of the classes",
            )
        self.mean = torch.full((self.n_classes,), 1.0 / self.n_classes)
        self.n_steps = recipe.steps or math.ceil(len(self.labels) / recipe.batch_size)
        if not recipe.steps and self.pool is not None:
            self.n_steps = min(self.n_steps, math.ceil(len(self.pool) / (recipe.batch_size * recipe.ratio)))

    def run(
        self, state: State | None, validation: Images | None, report: Callable[[State], None] | None
    ) -> State:
        recipe, state = self.recipe, state or State()
        if state.tensors:
            self._load(state.tensors)
        lowest = ""
        if validation is not None and recipe.choose != "last":
            lowest = "val_loss" if recipe.choose == "loss" else "val_error"
        if validation is not None:
            seen = self.blocks.finish(self.blocks.prepare(to_tensors(validation)[0]))
            validation = np.asarray(seen[:, 0].numpy()), validation[1]
        settling = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(recipe.seed))
        patience = recipe.patience if lowest and recipe.patience else recipe.epochs
        # Also asked before the first epoch: what is gone on from may have ended.
        while state.epoch < recipe.epochs and state.epoch - state.best_epoch < patience:
            began = time.perf_counter()
            entry = {"epoch": float(state.epoch + 1), **self._run_epoch(state.epoch)}
            settled = self.blocks.finish(self.images[settling[:SETTLING]])
            settle_standards(self.averaged, settled, self.device)
            if validation is not None:
                entry |= judge_logits(
                    predict_logits(self.averaged, validation[0], device=self.device), validation[1]
                )
                entry["val_error"] = 1.0 - entry["val_accuracy"]
            entry["seconds"] = time.perf_counter() - began
            close_epoch(state, entry, self.averaged, lowest=lowest)
            state.tensors = self._keep()
            if report is not None:
                report(state)
        self.network.load_state_dict(state.best)
        self.network.eval()
        return state

    def _run_epoch(self, epoch: int) -> dict[str, float]:
        recipe, size = self.recipe, self.recipe.batch_size
        torch.manual_seed(recipe.seed * 1_000_003 + epoch)  # of dropout
        places = _order_labelled(self.labels, self.n_steps * size, recipe.balance, self.labelled)
        others = None
        if self.pool is not None:
            others = _order(len(self.pool), self.n_steps * size * recipe.ratio, self.unlabelled)
        total = torch.zeros(5)
        for number in range(self.n_steps):
            step = epoch * self.n_steps + number
            done = step / (recipe.epochs * self.n_steps)
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.learning_rate * (
                    0.5 * (1.0 + math.cos(math.pi * done)) if recipe.schedule == "cosine" else 1.0
                )
            rows = places[number * size : (number + 1) * size]
            many = size * recipe.ratio
            chosen = None if others is None else others[number * many : (number + 1) * many]
            parts = self._step(rows, chosen, step)
            total += torch.tensor(parts)
        sums, n = total.tolist(), self.n_steps
        entry = {"loss": sums[0] / n}
        if self.pool is not None:
            entry |= {"loss_labelled": sums[1] / n, "loss_unlabelled": sums[2] / n}
            entry["mask_rate"] = sums[3] / (n * size * recipe.ratio)
            if self.truth is not None:
                entry["impurity"] = sums[4] / sums[3] if sums[3] else math.nan
        return entry

    def _step(self, rows: Tensor, chosen: Tensor | None, step: int) -> tuple[float, ...]:
        """Return the loss, its parts, and how many pseudo-labels were sure, and wrong among these."""
        recipe = self.recipe
        x, y = self._change(self.images[rows], self.labelled), self.labels[rows].to(self.device)
        inputs, label, sure, wrong = x.to(self.device), None, None, 0
        if chosen is not None:
            assert self.pool is not None
            weak = self._change(self.pool[chosen], self.unlabelled)
            strong = augment_strongly(
                weak,
                self.unlabelled,
                operations=recipe.operations,
                beam=recipe.beam / self.blocks.block,
                noise=recipe.noise,
                beam_px=recipe.beam_px / self.blocks.block,
            )
            strong = crop_circle(strong) if recipe.crop else strong
            label, sure = choose_sure(self._predict(weak.to(self.device)), recipe.threshold)
            if self.truth is not None:
                wrong = int((sure.cpu() & (label.cpu() != self.truth[chosen])).sum())
            inputs = torch.cat([inputs, strong.to(self.device)])
        self.network.train()
        logits = self.network(inputs)[0].float()
        first = functional.cross_entropy(logits[: len(y)], y)
        second = torch.zeros_like(first)
        if label is not None and sure is not None:
            second = measure_consistency(logits[len(y) :], label, sure)
        loss = first + recipe.weight * second
        if not torch.isfinite(loss):
            raise SurveyMLError(
                f"the loss of step {step} is {float(loss.detach())}", "try a lower learning_rate of fixmatch"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        follow_weights(self.averaged, self.network, recipe.average, step)
        count = 0 if sure is None else int(sure.sum())
        return float(loss.detach()), float(first.detach()), float(second.detach()), count, wrong

    def _change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Turn and reflect images at random: what is called a weak change."""
        changed = augment_images(images, generator, scales=(1.0, 1.0), shift=0.0)
        return self.blocks.finish(crop_circle(changed) if self.recipe.crop else changed)

    @torch.no_grad()
    def _predict(self, weak: Tensor) -> Tensor:
        """Return probabilities (n, n_classes) of weakly changed images, aligned if that is asked for."""
        self.network.eval()
        found = self.network(weak)[0].float().softmax(dim=1).cpu()
        if not self.recipe.align:
            return found.to(weak.device)
        self.mean = MEMORY * self.mean + (1.0 - MEMORY) * found.mean(dim=0)
        return align_probabilities(found, self.mean, self.target).to(weak.device)

    def _keep(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "labelled": self.labelled.get_state(),
            "unlabelled": self.unlabelled.get_state(),
            "mean": self.mean,
        }

    def _load(self, tensors: dict[str, Any]) -> None:
        self.network.load_state_dict(tensors["network"])
        self.averaged.load_state_dict(tensors["averaged"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        self.labelled.set_state(tensors["labelled"])
        self.unlabelled.set_state(tensors["unlabelled"])
        self.mean = tensors["mean"]


@dataclass(frozen=True)
class _Blocks:
    """How images get to the pixels that a network looks at, whose blocks it need not average any more.

    Every step is then over so many fewer pixels. Some of the averaging is left for after images are turned:
    turning smooths by about a pixel, and what is only ever seen smoothed is not known as it is.
    """

    side: int
    block: int

    @property
    def last(self) -> int:
        """Blocks that are averaged after images are turned: the least number that divides all."""
        return next((k for k in range(2, self.block + 1) if self.block % k == 0), 1)

    def prepare(self, images: Tensor) -> Tensor:
        """Cut or pad images (n, 1, y, x) about the network's middle, and average the first blocks."""
        if self.block == 1:
            return images
        places = []
        for length in images.shape[2:]:
            # As the stem cuts and pads, and whole blocks beyond that as far as there are any.
            more = max(0, (length - self.side) // (2 * self.block)) * self.block
            low = (self.side - length) // 2 + more
            places += [low, self.side + 2 * more - length - low]
        cut = functional.pad(images, (*places[2:], *places[:2]))
        return functional.avg_pool2d(cut, self.block // self.last) if self.block > self.last else cut

    def finish(self, images: Tensor) -> Tensor:
        """Average the last blocks."""
        return functional.avg_pool2d(images, self.last) if self.last > 1 else images


@contextmanager
def _seeing_blocks(network: nn.Module) -> Iterator[_Blocks]:
    """Let a network that averages blocks of pixels look at images whose blocks were averaged beforehand."""
    stem: Any = getattr(network, "stem")  # noqa: B009 (the checker knows no such attribute)
    side, block = stem.side, stem.reduce
    stem.side, stem.reduce = side // block, 1
    try:
        yield _Blocks(side, block)
    finally:
        stem.side, stem.reduce = side, block


def _order(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Return numbers below n in random order, all of them once before any comes again."""
    passes = math.ceil(size / n)
    return torch.cat([torch.randperm(n, generator=generator) for _ in range(passes)])[:size]


def _order_labelled(labels: Tensor, size: int, balance: bool, generator: torch.Generator) -> Tensor:
    """Return places of labelled images, of all classes in turn when balanced."""
    if not balance:
        return _order(len(labels), size, generator)
    classes = [torch.nonzero(labels == k)[:, 0] for k in torch.unique(labels).tolist()]
    each = math.ceil(size / len(classes))
    chosen = [one[_order(len(one), each, generator)] for one in classes]
    return torch.stack(chosen, dim=1).flatten()[:size]
