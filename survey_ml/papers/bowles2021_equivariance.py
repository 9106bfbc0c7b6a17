"""Bowles et al. 2021 (arXiv 2111.04742): attention gates on group-equivariant convolutions.

One topology over groups of growing order, trained alike. The fields are as many for every group, as
published, so that larger groups have more weights; the table says how many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from survey_ml.data.labelled.reading import read_labelled
from survey_ml.learning.networks import Architecture
from survey_ml.learning.scores import measure_accuracy, measure_mean
from survey_ml.learning.splits import split_by_sky
from survey_ml.learning.training import Recipe
from survey_ml.papers.pictures import draw_groups
from survey_ml.papers.result import Reproduction, Row, make_row
from survey_ml.papers.trials import Trial, run_trial, thin_images

NAME = "bowles2021"
GROUPS = ("C1", "C4", "C8", "D4", "D8")
ARCHITECTURE = Architecture(2, fields=(4, 8, 16, 16), size=5, side=112)
RECIPE = Recipe(epochs=30)
SEEDS = 3
FITTED = 0.25
"""Validation loss that counts as fitted."""


def reproduce(
    folder: Path, *, quick: bool = False, report: Callable[[str], None] = lambda text: None
) -> Reproduction:
    """Train one network over each group, and count epochs to a validation loss and accuracy.

    Parameters
    ----------
    folder : Path
        Trainings are kept here; the same call again goes on.
    quick : bool
        Two groups, narrow fields, two epochs on a tenth of the images, one seed: shows that it runs, and
        no more.
    report : callable
        Called with a line of text after every epoch.

    Returns
    -------
    Reproduction
    """
    train = read_labelled("mirabest", "confident", "train")
    test = {"Confident": read_labelled("mirabest", "confident", "test")}
    part = split_by_sky(train.ra, train.dec, {"train": 0.8, "valid": 0.2}, 0, labels=train.labels)
    data, held = train.take(part == "train"), train.take(part == "valid")
    if quick:
        data, held = thin_images(data, 10), thin_images(held, 10)
    groups, seeds = (("C1", "D4"), 1) if quick else (GROUPS, SEEDS)
    recipe = Recipe(epochs=2) if quick else RECIPE
    base = replace(ARCHITECTURE, fields=(2, 2, 4, 4), size=3) if quick else ARCHITECTURE
    rows: list[Row] = []
    shown: dict[str, list[Trial]] = {}
    for group in groups:
        architecture = replace(base, group=group)
        trials = [
            run_trial(
                f"{group}-{seed}",
                folder,
                architecture,
                replace(recipe, seed=seed),
                data,
                test,
                validation=held,
                report=report,
            )
            for seed in range(seeds)
        ]
        shown[group] = trials
        rows += describe_group(group, trials, test["Confident"].labels)
    picture = draw_groups(shown, FITTED, test["Confident"].labels, folder / "bowles2021.png")
    return Reproduction(NAME, tuple(rows), picture)


def count_epochs(trial: Trial, loss: float = FITTED) -> float:
    """Return the first epoch whose validation loss is at most ``loss``; NaN if none is."""
    return next((entry["epoch"] for entry in trial.history if entry["val_loss"] <= loss), float("nan"))


def describe_group(group: str, trials: list[Trial], labels: np.ndarray) -> list[Row]:
    """Return accuracy, epochs to fit and number of weights of one group."""
    n = len(labels)
    right = [trial.logits["Confident"].argmax(axis=1) == labels for trial in trials]
    epochs = np.array([count_epochs(trial) for trial in trials])
    reached = epochs[np.isfinite(epochs)]
    what = f"{group}, {trials[0].weights} weights"
    seeds = len(trials)
    mean = measure_mean([one.mean() for one in right], within=(0.0, 1.0))
    first = measure_accuracy(right[0], np.ones(n, bool))
    return [
        make_row(f"accuracy on Confident, {what}: mean", mean, n=n, seeds=seeds),
        make_row(f"accuracy on Confident, {what}: first seed", first, n=n, seeds=1),
        make_row(
            f"epochs to a validation loss of {FITTED:g}, {group}, in {len(reached)} of {seeds}",
            measure_mean(reached, within=(1.0, np.inf)), n=len(reached), seeds=seeds,
        ),
    ]  # fmt: skip
