"""Trainings of a reproduction: each is kept when done, and goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.labelled import LabelledImages
from survey_ml.learning.networks import Architecture
from survey_ml.learning.preprocessing import Preprocessing, prepare_images
from survey_ml.learning.training import Recipe, State

if TYPE_CHECKING:
    from torch import nn

Report = Callable[[str], None]
SIDE = Preprocessing().side
"""Pixels a side of the images of all papers: 270 arcsec."""


@dataclass(frozen=True)
class Trial:
    """A finished training.

    Attributes
    ----------
    history : list of dict
        As `survey_ml.learning.training.State.history`.
    logits : mapping
        Name of a test set to logits (n, n_classes).
    weights : int
        Numbers that were learnt.
    """

    history: list[dict[str, float]]
    logits: Mapping[str, NDArray[np.float32]]
    weights: int


def run_trial(
    name: str,
    folder: Path,
    architecture: Architecture,
    recipe: Recipe,
    train: LabelledImages,
    tests: Mapping[str, LabelledImages],
    *,
    validation: LabelledImages | None = None,
    report: Report = lambda text: None,
) -> Trial:
    """Train a network and apply it to test sets, or take what an earlier call with the same arguments kept.

    Parameters
    ----------
    name : str
        Shown, and the beginning of file names.
    folder : Path
        Where results and checkpoints lie.
    architecture, recipe
        What is trained, and how.
    train, validation : LabelledImages
    tests : mapping
        Name to images; looked at once, after the last epoch.
    report : callable
        Called with one line of text after every epoch.
    """
    import torch

    from survey_ml.learning.networks import AttentionNetwork
    from survey_ml.learning.training import train_network

    key = identify(
        [asdict(architecture), asdict(recipe)], {"train": train, "validation": validation, **tests}
    )

    def train_it(state: State | None, keep: Callable[[State], None]) -> tuple[nn.Module, State]:
        torch.manual_seed(recipe.seed)
        network = AttentionNetwork(architecture)
        state = train_network(
            network,
            (prepare_images(train, SIDE), train.labels),
            recipe,
            validation=None if validation is None else (prepare_images(validation, SIDE), validation.labels),
            state=state,
            report=keep,
        )
        return network, state

    return keep_trial(f"{name}-{key}", folder, train_it, tests, recipe.epochs, report)


def keep_trial(
    name: str,
    folder: Path,
    train: Callable[[State | None, Callable[[State], None]], tuple[nn.Module, State]],
    tests: Mapping[str, LabelledImages],
    epochs: int,
    report: Report = lambda text: None,
) -> Trial:
    """Run a training and apply its network to test sets, or take what an earlier call kept under this name.

    Parameters
    ----------
    name : str
        Of files; ends with what `identify` gives, before which it is shown.
    folder : Path
    train : callable
        Of the state of an interrupted training, if there is one, and what is to be called after every epoch;
        returns the network and its state.
    tests : mapping
        Name to images.
    epochs : int
        Shown.
    report : callable
        Called with one line of text after every epoch.
    """
    import torch

    from survey_ml.learning.training import predict_logits

    done, checkpoint = folder / f"{name}.npz", folder / f"{name}.pt"
    if done.is_file():
        return _read(done)
    folder.mkdir(parents=True, exist_ok=True)
    shown = name.rpartition("-")[0]

    def keep(now: State) -> None:
        keep_state(now, checkpoint)
        last = now.history[-1]
        loss = last.get("val_loss", last["loss"])
        report(f"{shown}: epoch {now.epoch} of {epochs}, loss {loss:.3f}, {last['seconds']:.0f} s")

    before = State(**torch.load(checkpoint, weights_only=True)) if checkpoint.is_file() else None
    network, state = train(before, keep)
    logits = {what: predict_logits(network, prepare_images(images, SIDE)) for what, images in tests.items()}
    weights = sum(parameter.numel() for parameter in network.parameters())
    arrays: dict[str, Any] = {f"logits {what}": values for what, values in logits.items()}
    arrays |= {"history": np.array(json.dumps(state.history)), "weights": np.array(weights)}
    keep_arrays(arrays, done, checkpoint)
    return _read(done)


def keep_state(state: State, path: Path) -> None:
    """Write where a training stands, whole or not at all."""
    import torch

    aside = path.with_suffix(".tmp")
    torch.save(vars(state), aside)
    aside.replace(path)


def keep_arrays(arrays: Mapping[str, Any], path: Path, checkpoint: Path) -> None:
    """Write what a training gave, whole or not at all, and remove its checkpoint."""
    aside = path.with_suffix(".tmp")
    with aside.open("wb") as stream:
        np.savez(stream, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
    checkpoint.unlink(missing_ok=True)


def thin_images(data: LabelledImages, every: int) -> LabelledImages:
    """Return every n-th image: enough to see that something runs."""
    return data.take(np.arange(len(data.labels)) % every == 0)


def identify(settings: list[Any], images: Mapping[str, LabelledImages | None]) -> str:
    """Return twelve digits that change with anything that the result of a training depends on."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, data in sorted(images.items()):
        digest.update(name.encode())
        if data is not None:
            digest.update(np.ascontiguousarray(data.images).tobytes() + data.labels.tobytes())
    return digest.hexdigest()[:12]


def _read(path: Path) -> Trial:
    with np.load(path, allow_pickle=False) as kept:
        logits = {
            name.removeprefix("logits "): kept[name] for name in kept.files if name.startswith("logits ")
        }
        return Trial(json.loads(str(kept["history"])), logits, int(kept["weights"]))
