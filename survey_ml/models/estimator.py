"""Who says how far the classes of a model can be trusted: a posterior over its weights.

One over a last layer reads what the network made of a source; one over all weights looks at its image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from survey_ml.errors import ConfigError
from survey_ml.learning.conformal import find_limits, score_labels
from survey_ml.learning.heads import draw_gaussian, draw_masks, evaluate_heads
from survey_ml.learning.judgement import HeldOut, Judgement, Standard, judge_samples, replace_rows
from survey_ml.learning.reliability import find_reliability, measure_ece
from survey_ml.learning.scores import measure_accuracy
from survey_ml.models.calibration import read_held_out
from survey_ml.models.card import Card
from survey_ml.models.classifier import RuntimeName
from survey_ml.models.format import Tensors, read_card, read_model
from survey_ml.models.kinds import build_network
from survey_ml.models.posterior import draw_networks
from survey_ml.models.registry import find_model
from survey_ml.models.sampling import Samples, open_samples

METHOD = "bayes-by-backprop"
SAMPLES = 100
FEW = 10
"""Weight samples of a whole network that every source is looked at with."""
SURE_SPREAD = 0.03
"""Standard deviation of each probability over the few samples below which a source gets no more of them: the
mean is then known to 0.01."""

ChooseStandard = Callable[[tuple[str, ...]], Standard]


class Estimator:
    """Judges sources by a fixed set of weight samples.

    Parameters
    ----------
    card : Card
        Of the posterior.
    digest : str
        SHA-256 of its file.
    tensors : mapping
        Its arrays.
    samples, seed : int
        Weight samples, and what they are drawn from.
    standard : Standard
    runtime : str
        Of whole networks.
    threads : int, optional

    Attributes
    ----------
    name : str
    classes : tuple of str
    """

    def __init__(
        self,
        card: Card,
        digest: str,
        tensors: Tensors,
        *,
        samples: int,
        seed: int,
        standard: Standard,
        runtime: RuntimeName = "auto",
        threads: int | None = None,
    ) -> None:
        assert card.posterior is not None and card.calibration is not None
        self.card, self.hash, self.name, self.classes = card, digest, card.name, card.classes
        self._seed, self._standard = seed, standard
        self._held_out = read_held_out(card.calibration, tensors)
        self._networks: list[Samples] = []
        if card.is_bayesian:
            network = build_network(card)
            drawn = draw_networks(tensors, card.posterior, network, samples, seed)
            parts = (drawn[:FEW], drawn[FEW:])
            self._networks = [open_samples(part, card, runtime, threads) for part in parts if part]
        elif card.posterior.method == "mc-dropout":
            self._heads = draw_masks(tensors["mean"], card.posterior.rate, samples, seed)
        else:
            self._heads = draw_gaussian(tensors["mean"], tensors["factor"], samples, seed)

    @property
    def needs_images(self) -> bool:
        """Whether it looks at images, and not only at what a network made of them."""
        return bool(self._networks)

    def judge(self, embedding: ArrayLike, images: NDArray[np.float32] | None = None) -> Judgement:
        """Judge sources.

        Parameters
        ----------
        embedding : (n, d) array
            What the model that classified made of them.
        images : (n, side, side) ndarray of float32, optional
            What that model was shown, for an estimator that needs images.

        Returns
        -------
        Judgement
            Each row follows from its own source only.
        """
        if not self.needs_images:
            drawn = evaluate_heads(self._heads, embedding)
            return judge_samples(drawn, embedding, self._held_out, self._standard)
        if images is None:
            raise ValueError(f"{self.name} looks at images")
        few = self.sample(images, few=True)
        mean = few.mean(axis=0)
        top = np.sort(mean, axis=1)[:, -2:]
        doubted = (top[:, 1] - top[:, 0] < self._standard.margin) | (few.std(axis=0) > SURE_SPREAD).any(
            axis=1
        )
        found = judge_samples(few, embedding, self._held_out, self._standard)
        rows = np.flatnonzero(doubted)
        if len(self._networks) == 1 or not rows.size:
            return found
        more = np.concatenate([few[:, rows], self._run(self._networks[1], images[rows])])
        part = judge_samples(more, np.asarray(embedding)[rows], self._held_out, self._standard)
        return replace_rows(found, rows, part)

    def sample(self, images: NDArray[np.float32], *, few: bool = False) -> NDArray[np.float64]:
        """Return probabilities (n_samples, n, n_classes) by all weight samples of whole networks.

        Parameters
        ----------
        images : (n, side, side) ndarray of float32
        few : bool
            By the first `FEW` of them only.
        """
        used = self._networks[:1] if few else self._networks
        return np.concatenate([self._run(one, images) for one in used])

    def _run(self, networks: Samples, images: NDArray[np.float32]) -> NDArray[np.float64]:
        logits = networks.run(np.ascontiguousarray(images, np.float32)).astype(np.float64)
        return np.asarray(special.softmax(logits, axis=2))

    def describe(self) -> dict[str, Any]:
        """Return what is to be known of it: names, and what held-out images say."""
        assert self.card.posterior is not None
        return {
            "name": self.name,
            "version": self.card.version,
            "hash": self.hash,
            "method": self.card.posterior.method,
            "classes": list(self.classes),
            "seed": self._seed,
            "held_out": self._describe_held_out,
        }

    @cached_property
    def _describe_held_out(self) -> dict[str, Any]:
        assert self.card.calibration is not None
        held = self._held_out
        p, labels = np.asarray(held.probabilities, np.float64), np.asarray(held.labels, np.int64)
        bins = [
            {"confidence": one.confidence, "accuracy": one.accuracy.value, "low": one.accuracy.low,
             "high": one.accuracy.high, "n": one.accuracy.n}
            for one in find_reliability(p, labels) if one.accuracy.n
        ]  # fmt: skip
        inside = _check_sets(held, self._standard)
        coverage = [
            asdict(measure_accuracy(inside[labels == k], np.ones(int((labels == k).sum()), bool)))
            for k in range(len(self.classes))
        ]
        return {
            "data": self.card.calibration.data,
            "n": len(labels),
            "ece": asdict(measure_ece(p, labels)),
            "reliability": bins,
            "coverage": coverage,
        }


def find_estimator(
    name: str,
    digest: str,
    method: str = METHOD,
    *,
    given: str | Path | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    standard: ChooseStandard = lambda classes: Standard(),
    runtime: RuntimeName = "auto",
    threads: int | None = None,
) -> Estimator:
    """Return what judges the classes of a model.

    Parameters
    ----------
    name, digest : str
        Of the model that classified, and the SHA-256 of its file.
    method : str
        Of the posterior; empty for that of whatever is given.
    given : str or Path, optional
        The posterior. Otherwise the model's own, if it has one over all its weights, or what is registered
        as ``<name>-<method>``.
    samples, seed : int
    standard : callable
        Gives the standard for classes.
    runtime : str
        What runs whole networks; see `survey_ml.models.classifier.load_classifier`.
    threads : int, optional

    Raises
    ------
    ConfigError
        When there is none, it is of another method, or was made for another model.
    InputError
        When its file is damaged.
    """
    path = find_model(given).path if given is not None else _find_posterior(name, method)
    tensors, card, own = read_model(path)
    _check(card, path, method)
    judged, wanted = (card.base.name, card.base.hash) if card.base is not None else (card.name, own)
    if wanted != digest:
        raise ConfigError(
            f"{card.name} judges {judged} ({wanted[:12]}), but classes are by {name} ({digest[:12]})",
            "give both stages the same model, or fit a posterior with `survey-ml train uncertainty`",
        )
    return Estimator(
        card, own, tensors, samples=samples, seed=seed, standard=standard(card.classes), runtime=runtime,
        threads=threads,
    )  # fmt: skip


def check_posterior(name_or_path: str | Path, method: str) -> None:
    """Say at once when a model is not there, or has no posterior of this method."""
    path = find_model(name_or_path).path
    _check(read_model(path)[1], path, method)


def _check(card: Card, path: Path, method: str) -> None:
    fit = "`survey-ml train uncertainty` fits one"
    if card.posterior is None:
        raise ConfigError(f"{card.name} ({path.name}) is no posterior of a model", fit)
    if card.calibration is None:
        raise ConfigError(
            f"{card.name} ({path.name}) was never calibrated", "train it again with validation images"
        )
    if method and card.posterior.method != method:
        raise ConfigError(
            f"{card.name} is of the method {card.posterior.method}, not {method}",
            f"set method: {card.posterior.method}; or {fit}",
        )


def _find_posterior(name: str, method: str) -> Path:
    """Return the file of the posterior that comes with a registered model."""
    with contextlib.suppress(ConfigError):
        own = find_model(name).path
        if read_card(own)[0].is_bayesian:
            return own
    try:
        return find_model(f"{name}-{method}").path
    except ConfigError:
        raise ConfigError(
            f"nothing is known of the uncertainty of model {name} by {method}",
            "name the file of its posterior: that of the network itself, if it has one over all its weights; "
            "`survey-ml train uncertainty` fits one to others",
        ) from None


def _check_sets(held: HeldOut, standard: Standard) -> NDArray[np.bool_]:
    """Tell for each held-out image whether its set, made by all others, holds its class."""
    scores, labels = score_labels(held.probabilities, held.labels), np.asarray(held.labels, np.int64)
    n_classes = held.probabilities.shape[1]
    inside = np.zeros(len(labels), bool)
    for k in range(len(labels)):
        limits = find_limits(
            np.delete(scores, k),
            np.delete(labels, k),
            n_classes,
            standard.coverage,
            guarantee=standard.guarantee,
            shares=standard.shares or None,
        )
        inside[k] = scores[k] <= limits[labels[k]]
    return inside
