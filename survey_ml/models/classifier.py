"""A model that is ready to classify images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import ConfigError, InputError
from survey_ml.learning.forest import Forest
from survey_ml.models.card import PLAIN, Card
from survey_ml.models.format import SHOWN_DIGITS, read_model
from survey_ml.models.kinds import parse_forest
from survey_ml.models.posterior import find_networks
from survey_ml.models.registry import find_model
from survey_ml.models.runtime import (
    ForestRuntime,
    MixtureRuntime,
    Runtime,
    has_openvino,
    open_network,
)

RuntimeName = Literal["auto", "torch", "openvino"]


@dataclass(frozen=True)
class Predictions:
    """What a model says of n images; row k is about image k and about nothing else.

    Attributes
    ----------
    logits : (n, n_classes) ndarray of float32
        As the model gives them, before the temperature.
    probabilities : (n, n_classes) ndarray of float32
        They add up to one.
    embedding : (n, d) ndarray of float32
        What the logits are made from.
    attention : (n, y, x) ndarray of float32, or None
        Where a network looked, at its own resolution; None for a model that does not look.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    embedding: NDArray[np.float32]
    attention: NDArray[np.float32] | None


class Classifier:
    """A model with its card, ready to run.

    Parameters
    ----------
    card : Card
    digest : str
        SHA-256 of the file.
    runtime : Runtime
        What runs it.

    Attributes
    ----------
    card : Card
    hash : str
        SHA-256 of the model's file.
    """

    def __init__(self, card: Card, digest: str, runtime: Runtime) -> None:
        self.card, self.hash, self._runtime = card, digest, runtime

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes in the order of the columns of probabilities."""
        return self.card.classes

    @property
    def runtime(self) -> str:
        """What runs it: ``openvino``, ``torch`` or ``numpy``."""
        return self._runtime.name

    @property
    def label(self) -> str:
        """Name, version and first digits of the hash, as catalogues give them."""
        return f"{self.card.name} {self.card.version} {self.hash[:SHOWN_DIGITS]}"

    def predict(self, images: NDArray[np.float32], batch_size: int = 64) -> Predictions:
        """Classify images.

        Parameters
        ----------
        images : (n, side, side) ndarray of float32
            As `survey_ml.learning.preprocessing` makes them, with the side of the card.
        batch_size : int
            Images that are handed on at a time; the results do not depend on it.

        Returns
        -------
        Predictions

        Raises
        ------
        InputError
            When images have another shape, or values that are not finite.
        """
        side = self.card.preprocessing.side
        if images.ndim != 3 or images.shape[1:] != (side, side):
            raise InputError(
                f"images have the shape {images.shape}, not (n, {side}, {side})",
                "survey_ml.learning.preprocessing.fit_image cuts or pads one",
            )
        if batch_size < 1:
            raise ConfigError(f"a batch of {batch_size} images", "give one at least")
        parts = [self._run(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
        logits, embedding, attention = zip(*(parts or [self._run(images)]), strict=True)
        joined = np.concatenate(logits)
        return Predictions(
            logits=joined,
            probabilities=_apply_softmax(joined, self.card.temperature),
            embedding=np.concatenate(embedding),
            attention=None if self.card.kind in PLAIN else _join(attention),
        )

    def _run(
        self, images: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:
        images = np.ascontiguousarray(images, np.float32)
        if not np.isfinite(images).all():
            raise InputError(
                "images have values that are not finite",
                "survey_ml.learning.preprocessing.clip_image empties them",
            )
        return self._runtime.run(images)


def load_classifier(
    name_or_path: str | Path,
    runtime: RuntimeName = "auto",
    threads: int | None = None,
    *,
    expected_hash: str = "",
) -> Classifier:
    """Find a model, check its file and make it ready.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a registered model, or a file or folder.
    runtime : str
        What runs a network: ``openvino`` is several times faster, ``torch`` gives the same to 1e-4, and
        ``auto`` takes the first that is installed. A forest needs neither.
    threads : int, optional
        CPU threads; all cores when not given.
    expected_hash : str
        SHA-256 that the file must have, or its first digits; empty for any.

    Raises
    ------
    ConfigError
        When there is no such model, or the runtime is not installed.
    InputError
        When the file is damaged, or has another hash.
    """
    tensors, card, digest = read_model(find_model(name_or_path).path, expected_hash=expected_hash)
    if card.base is not None:
        raise ConfigError(
            f"{card.name} is a posterior over the last layer of {card.base.name}, and classifies nothing",
            f"classify by {card.base.name}; the stage uncertainty and `classify --uncertainty` use it",
        )
    if card.kind == "forest":
        architecture = parse_forest(card)
        forest = Forest.from_arrays(tensors, len(architecture.measurements))
        return Classifier(card, digest, ForestRuntime(forest, architecture.measurements))
    if runtime == "auto":
        runtime = "openvino" if has_openvino() else "torch"
    members = [open_network(one, card, runtime, threads) for one in find_networks(tensors, card.posterior)]
    return Classifier(card, digest, members[0] if len(members) == 1 else MixtureRuntime(members))


def list_runtimes(card: Card) -> list[RuntimeName]:
    """Return what could run a network here, the fastest first; nothing for a forest, which needs none."""
    if card.kind in ("forest", "head"):
        return []
    return ["openvino", "torch"] if has_openvino() else ["torch"]


def _join(parts: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    found = [part for part in parts if part is not None]
    return np.concatenate(found) if found else None


def _apply_softmax(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
