"""Train a model on labelled images, and write it with its card, its curves and its figures."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from survey_ml.errors import ConfigError, InputError
from survey_ml.labelled import LabelledImages
from survey_ml.learning.preprocessing import Preprocessing, prepare_images
from survey_ml.learning.scores import (
    Score,
    count_confusion,
    fit_temperature,
    measure_accuracy,
    measure_calibration,
    measure_loss,
    measure_macro_f1,
)
from survey_ml.learning.splits import split_by_sky
from survey_ml.models.card import Card, Metric, Training
from survey_ml.models.classifier import Classifier, load_classifier
from survey_ml.models.format import save_model
from survey_ml.models.kinds import ForestArchitecture, make_network
from survey_ml.models.posterior_fitting import Trained
from survey_ml.models.semi_supervised import Pool, parse_fixmatch
from survey_ml.models.settings import check_fixmatch, make_card, parse_recipe, refuse_idle
from survey_ml.models.weight_fitting import (
    PosteriorFitting,
    calibrate_posterior,
    collect_arrays,
    judge_posterior,
)

if TYPE_CHECKING:
    from torch import nn

    from survey_ml.learning.forest import Forest
    from survey_ml.learning.networks import Architecture
    from survey_ml.learning.training import Recipe, State

Trainer = Callable[..., "State"]
"""Called as ``train_network`` is."""
Kind = Literal["attention-gate", "equivariant", "cnn", "tang", "lenet", "forest"]
CHECKPOINT = "checkpoint.pt"
CURVES = "curves.csv"
METRICS = "metrics.json"


class Fitting(BaseModel):
    """How a model is made from labelled images: the file that ``--config`` names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = "my-model"
    """Of the model: lower-case letters, digits and hyphens."""
    model: Kind = "equivariant"
    """attention-gate, equivariant, cnn (after Tang et al. 2019), tang (the same as published), lenet (of
    Mohan et al. 2022) or forest (on image measurements)."""
    group: str = "D4"
    """Turns (C), or turns and reflections (D), that the equivariant network commutes with, and how many
    turns: D4, C8 and so on. Those of C4 and D4 are exact."""
    architecture: dict[str, Any] = {}
    """Further settings of survey_ml.learning.networks.Architecture, such as fields, side, normalisation."""
    recipe: dict[str, Any] = {}
    """Settings of survey_ml.learning.training.Recipe, such as epochs, learning_rate, patience."""
    fixmatch: dict[str, Any] | None = None
    """With ``--semi-supervised``: ``preset``, small or paper, and settings of
    survey_ml.learning.fixmatch_recipe.FixMatchRecipe instead of those of the recipe."""
    posterior: PosteriorFitting | None = None
    """A posterior over all weights of a network, calibrated on the validation images."""
    validation: float = Field(0.15, ge=0.0, lt=0.9)
    """Share of the training sources, by position on the sky, that are held back to choose the epoch and the
    temperature; 0 trains on all for the full number of epochs."""
    seed: int = Field(0, ge=0)
    """Of everything random."""
    version: str = Field("1", min_length=1, max_length=32)
    """Of the model: another one wherever its weights are others, so that catalogues can be told apart."""
    licence: str = ""
    """Terms of the weights and of the images."""
    intended_use: str = ""
    """What the model is for."""
    limits: str = ""
    """Where it fails, or was never tried."""


def fit_model(
    data: LabelledImages,
    fitting: Fitting,
    folder: Path,
    *,
    test: LabelledImages | None = None,
    pool: Pool | None = None,
    source: str = "",
    device: str = "cpu",
    progress: Callable[[dict[str, float], int], None] | None = None,
    trainer: Trainer | None = None,
) -> Path:
    """Train a model, or go on with an interrupted training in the same folder.

    Parameters
    ----------
    data : LabelledImages
        To train on. Those whose split is ``valid`` are validation images; without any, a share of the
        sources is held back by position.
    fitting : Fitting
    folder : Path
        Gets ``<name>.safetensors``, ``curves.csv``, ``metrics.json`` and, while it goes on, a checkpoint.
    test : LabelledImages
        Looked at once, when all is chosen.
    pool : Pool
        Images without labels to learn from as well, by FixMatch; without what is near to validation and test
        images, see `survey_ml.models.semi_supervised`.
    source : str
        What the images are, for the card.
    device : str
        ``cpu`` or ``cuda``.
    progress : callable
        Called with the last line of the curves, with ``network`` and ``networks`` where there are several,
        and the number of epochs.
    trainer : callable
        Trains a network as ``survey_ml.learning.training.train_network`` does, which it is unless given.

    Returns
    -------
    Path
        Of the model.

    Raises
    ------
    ConfigError
        When the folder holds the training of something else, or a setting is wrong.
    InputError
        When a class has no images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train, valid = divide_images(data, fitting)
    for part, what in ((train, "training"), (valid, "validation")):
        counts = np.bincount(part.labels, minlength=len(data.classes))
        if part is train or len(part.labels):
            empty = [name for name, count in zip(data.classes, counts, strict=True) if not count]
            if empty:
                raise InputError(
                    f"no {what} images of {', '.join(empty)}", "add some, or leave the class out"
                )
    path = folder / f"{fitting.name}.safetensors"
    card, content, curves = _fit(train, valid, pool, fitting, folder, device, progress, trainer)
    held = Training(
        data=source,
        split=describe_split(data, fitting),
        n=len(train.labels),
        unlabelled="" if pool is None else pool.describe(),
        n_unlabelled=0 if pool is None else len(pool),
        seeds=(fitting.seed,),
        recipe=fitting.model_dump(
            mode="json",
            include={
                "model",
                "group",
                "architecture",
                "recipe",
                "fixmatch",
                "posterior",
                "validation",
                "seed",
            },
            exclude_none=True,
        ),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
    )
    card = card.model_copy(update={"training": held})
    with tempfile.TemporaryDirectory() as aside:
        # What is not finished has no place where a model is looked for.
        unfinished = Path(aside) / path.name
        card, content, metrics = _finish(unfinished, content, card, train, valid, source)
        if test is not None and len(test.labels):
            metrics += judge_model(load_classifier(unfinished, "torch"), test, "test")
            metrics += judge_posterior(unfinished, test, "test") if card.is_bayesian else []
    save_model(path, content, card.model_copy(update={"metrics": tuple(metrics)}))
    _write(folder / CURVES, _format_curves(curves))
    _write(folder / METRICS, json.dumps([m.model_dump() for m in metrics], indent=1) + "\n")
    for kept in folder.glob(f"{CHECKPOINT}*"):
        kept.unlink()
    return path


def _finish(
    part: Path, content: Any, card: Card, train: LabelledImages, valid: LabelledImages, source: str
) -> tuple[Card, Any, list[Metric]]:
    """Find the temperature, and calibrate a posterior, on validation images; the file is left complete."""
    metrics: list[Metric] = []
    save_model(part, content, card)
    if len(valid.labels):
        logits = load_classifier(part, "torch").predict(prepare_images(valid, card.preprocessing.side)).logits
        card = card.model_copy(update={"temperature": round(fit_temperature(logits, valid.labels), 4)})
        save_model(part, content, card)
        metrics += judge_model(load_classifier(part, "torch"), valid, "validation")
    if card.is_bayesian and len(valid.labels):
        said = ", ".join(one for one in (source, "validation images") if one)
        calibration, known = calibrate_posterior(part, train, [Trained(part, train, valid)], said)
        card, content = card.model_copy(update={"calibration": calibration}), content | known
        save_model(part, content, card)
        metrics += judge_posterior(part, valid, "validation")
    return card, content, metrics


def divide_images(data: LabelledImages, fitting: Fitting) -> tuple[LabelledImages, LabelledImages]:
    """Return training and validation images; the second may be empty."""
    published = data.split == "valid"
    if published.any():
        return data.take(~published), data.take(published)
    if fitting.validation == 0.0:
        return data, data.take(np.zeros(len(data.labels), bool))
    names = split_by_sky(
        data.ra,
        data.dec,
        {"train": 1.0 - fitting.validation, "valid": fitting.validation},
        seed=fitting.seed,
        labels=data.labels,
        names=data.names,
    )
    return data.take(names == "train"), data.take(names == "valid")


def describe_split(data: LabelledImages, fitting: Fitting) -> str:
    """Say how training and validation images were told apart."""
    posterior = fitting.posterior
    by_last = posterior is not None and posterior.method == "bayes-by-backprop"
    what = "calibrate it, after the last epoch" if by_last else "choose the epoch and the temperature"
    if (data.split == "valid").any():
        return f"the published validation images {what}"
    if fitting.validation == 0.0:
        return "trained on all training images for a number of epochs that was chosen beforehand"
    return f"{fitting.validation:.0%} of the training sources, by groups on the sky within 30 arcsec, {what}"


def judge_model(classifier: Classifier, data: LabelledImages, what: str) -> list[Metric]:
    """Return accuracy, macro F1, loss and calibration error of a model on labelled images."""
    found = classifier.predict(prepare_images(data, classifier.card.preprocessing.side))
    predicted, n_classes = found.probabilities.argmax(axis=1), len(classifier.classes)
    n = len(data.labels)
    figures: list[tuple[str, Score | float]] = [
        ("accuracy", measure_accuracy(predicted, data.labels)),
        ("macro F1", measure_macro_f1(predicted, data.labels, n_classes)),
        ("negative log likelihood", measure_loss(found.logits / classifier.card.temperature, data.labels)),
        ("expected calibration error, 8 bins", measure_calibration(found.probabilities, data.labels)),
    ]
    confusion = count_confusion(predicted, data.labels, n_classes)
    for row, name in enumerate(classifier.classes):
        figures.append((f"recall of {name}", measure_accuracy(predicted[data.labels == row], row)))
    metrics = [
        Metric(quantity=quantity, value=value.value, low=value.low, high=value.high, n=value.n, data=what)
        if isinstance(value, Score)
        else Metric(quantity=quantity, value=value, n=n, data=what)
        for quantity, value in figures
        if not isinstance(value, Score) or value.n
    ]
    wrong = int(confusion.sum() - np.trace(confusion))
    return [*metrics, Metric(quantity="wrong", value=wrong, n=n, data=what)]


def _fit(
    train: LabelledImages,
    valid: LabelledImages,
    pool: Pool | None,
    fitting: Fitting,
    folder: Path,
    device: str,
    progress: Callable[[dict[str, float], int], None] | None,
    trainer: Trainer | None,
) -> tuple[Card, Any, list[dict[str, float]]]:
    about = {
        "name": fitting.name,
        "version": fitting.version,
        "classes": tuple(train.classes),
        "preprocessing": Preprocessing(subtract_clip=train.subtracted),
        "licence": fitting.licence,
        "intended_use": fitting.intended_use,
        "limits": fitting.limits,
    }
    check_fixmatch(fitting, pool is not None)
    if fitting.model == "forest" and fitting.posterior is not None:
        raise ConfigError("a forest has no posterior over weights", "leave posterior out")
    refuse_idle(fitting)
    if fitting.model == "forest":
        return *_fit_forest(train, fitting, about), []
    return _fit_network(train, valid, pool, fitting, folder, device, progress, trainer, about)


def _fit_forest(train: LabelledImages, fitting: Fitting, about: dict[str, Any]) -> tuple[Card, Forest]:
    from survey_ml.learning.forest import grow_forest
    from survey_ml.learning.measurements import NAMES, measure_images

    measured = measure_images(prepare_images(train, Preprocessing().side))
    try:
        forest = grow_forest(measured, train.labels, seed=fitting.seed, **fitting.recipe)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a setting of the forest is wrong: {error}", "see docs/models.md") from None
    architecture = ForestArchitecture(len(train.classes), NAMES, len(forest.start), len(forest.feature))
    described = json.loads(json.dumps(asdict(architecture)))
    return Card(**about, kind="forest", architecture=described), forest


def _fit_network(
    train: LabelledImages,
    valid: LabelledImages,
    pool: Pool | None,
    fitting: Fitting,
    folder: Path,
    device: str,
    progress: Callable[[dict[str, float], int], None] | None,
    trainer: Trainer | None,
    about: dict[str, Any],
) -> tuple[Card, Any, list[dict[str, float]]]:
    from survey_ml.learning.committee import Committee, list_members

    recipe = parse_recipe(fitting)
    card, architecture = make_card(fitting, about)
    posterior = fitting.posterior
    if posterior is not None:
        posterior.check(card, valid.labels)
    members = list_members(architecture)
    if posterior is not None and posterior.method == "deep-ensemble":
        members *= posterior.members
    identity = _identify(fitting, train, valid, pool)
    networks, curves = [], []
    places = [folder / (f"{CHECKPOINT}.{k}" if k else CHECKPOINT) for k in range(len(members))]
    for place in places:  # what is of another training is said before anything is trained
        _read_checkpoint(place, identity)
    for member, alone in enumerate(members):
        checkpoint = places[member]
        own = replace(recipe, seed=recipe.seed + 1000 * member)
        told = {"network": member + 1.0, "networks": float(len(members))} if members[1:] else {}
        network, done = _train(
            card,
            alone,
            own,
            (train, valid),
            pool,
            fitting,
            checkpoint,
            identity,
            device,
            None if progress is None else partial(_tell, progress, told),
            trainer,
        )
        networks.append(network)
        curves += done.history
    if architecture.members:
        networks = [Committee(architecture, networks)]
    return card, collect_arrays(networks), curves


def _train(
    card: Card,
    architecture: Architecture,
    recipe: Recipe,
    images: tuple[LabelledImages, LabelledImages],
    pool: Pool | None,
    fitting: Fitting,
    checkpoint: Path,
    identity: str,
    device: str,
    progress: Callable[[dict[str, float], int], None] | None,
    trainer: Trainer | None,
) -> tuple[nn.Module, State]:
    """Train one network, or go on with it."""
    import torch

    from survey_ml.learning.fixmatch import Unlabelled, train_fixmatch
    from survey_ml.learning.training import looking_once, train_network
    from survey_ml.learning.variational import VariationalNetwork

    train, valid = images
    posterior, epochs = fitting.posterior, recipe.epochs
    torch.manual_seed(recipe.seed)
    network: nn.Module = make_network(card.kind, architecture)
    objective = None
    if posterior is not None and posterior.method == "bayes-by-backprop":
        network, objective = VariationalNetwork(network), posterior.make_objective(len(train.labels))

    def keep(now: State) -> None:
        _write_checkpoint(checkpoint, identity, now)
        _write(checkpoint.parent / CURVES, _format_curves(now.history))
        if progress is not None:
            progress(now.history[-1], epochs)

    side = card.preprocessing.side
    known = prepare_images(train, side), train.labels
    held = (prepare_images(valid, side), valid.labels) if len(valid.labels) else None
    state = _read_checkpoint(checkpoint, identity)
    with looking_once(network, known[0]):
        if pool is not None:
            own, unlabelled = parse_fixmatch(fitting.fixmatch or {}, recipe.seed), Unlabelled(pool.images)
            epochs = own.epochs
            done = train_fixmatch(
                network, known, unlabelled, own, validation=held, device=device, state=state, report=keep
            )
        else:
            done = (trainer or train_network)(
                network,
                known,
                recipe,
                validation=held,
                objective=objective,
                device=device,
                state=state,
                report=keep,
            )
    return network.cpu(), done


def _identify(fitting: Fitting, train: LabelledImages, valid: LabelledImages, pool: Pool | None) -> str:
    """Return digits that change with anything that a training goes on from."""
    said = fitting.model_dump_json(exclude={"version", "licence", "intended_use", "limits"})
    digest = hashlib.sha256(said.encode())
    for data in (train, valid):
        digest.update(np.ascontiguousarray(data.images).tobytes() + data.labels.tobytes())
    if pool is not None:
        digest.update(np.ascontiguousarray(pool.images).tobytes())
    return digest.hexdigest()


def _read_checkpoint(path: Path, identity: str) -> State | None:
    """Return where an interrupted training of the same thing stood."""
    import torch

    from survey_ml.learning.training import State

    if not path.is_file():
        return None
    try:
        kept = torch.load(path, weights_only=True)
        if kept.pop("identity") == identity:
            return State(**kept)
    except Exception as error:  # a damaged archive raises anything
        raise ConfigError(
            f"{path} cannot be read: {type(error).__name__}", "remove it to train from the beginning"
        ) from None
    raise ConfigError(
        f"{path} is of a training with other images or settings",
        f"remove {CHECKPOINT}* there, or train in another folder",
    )


def _tell(
    progress: Callable[[dict[str, float], int], None],
    place: dict[str, float],
    entry: dict[str, float],
    n: int,
) -> None:
    progress({**entry, **place}, n)


def _write_checkpoint(path: Path, identity: str, state: State) -> None:
    import torch

    aside = path.with_name(f".{path.name}")
    torch.save({"identity": identity, **vars(state)}, aside)
    aside.replace(path)


def _format_curves(history: list[dict[str, float]]) -> str:
    text = io.StringIO()
    if history:
        writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
