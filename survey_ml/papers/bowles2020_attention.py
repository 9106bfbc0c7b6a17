"""Bowles et al. 2021, MNRAS 501, 4579 (arXiv 2012.01248): attention gates on FIRST images.

What is not theirs: images are averaged over 2 x 2 pixels and cut to 202 arcsec, statistics are of one
image, the loss sees logits and not probabilities, and trainings are shorter by far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from survey_ml.data.labelled.reading import read_labelled
from survey_ml.labelled import LabelledImages
from survey_ml.learning.attention import Aggregation, Normalisation
from survey_ml.learning.networks import Architecture
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.learning.scores import measure_accuracy, measure_mean
from survey_ml.learning.splits import find_most_similar, fold_by_sky
from survey_ml.learning.training import Recipe
from survey_ml.papers.pictures import draw_combinations
from survey_ml.papers.result import Reproduction, Row, make_row
from survey_ml.papers.trials import SIDE, Trial, run_trial, thin_images

NAME = "bowles2020"
ARCHITECTURE = Architecture(2, side=112)
RECIPE = Recipe(epochs=80, learning_rate=3e-3)
QUICK = Recipe(epochs=2, learning_rate=3e-3)
THIN = 20
"""A quick run trains on every twentieth image."""
SEEDS = 3
FOLDS = 5

ALIKE = 0.9
"""Correlation of a training image with a test image of FR-DEEP, which has no positions, above which the
two may show one source; such training images are left out."""

ACCURACY = {"Confident": "0.92 to 0.95", "Confident and Uncertain": "0.84"}
"""Accuracy on the test set of that name after training on its training set: published tables and the
published weights applied again; the headline of the paper."""

PUBLISHED = {
    "softmax": "0.86",
    "sigmoid": "0.84",
    "range": "0.82",
    "standard": "0.70",
}
"""Mean accuracy of each normalisation over aggregations, Confident and Uncertain, as published."""


def reproduce(
    folder: Path, *, quick: bool = False, report: Callable[[str], None] = lambda text: None
) -> Reproduction:
    """Train what the tables of the paper need, and put our figures beside them.

    Parameters
    ----------
    folder : Path
        Trainings are kept here; the same call again goes on.
    quick : bool
        Two epochs on a twentieth of the images, one seed, two combinations: shows that it runs, and no more.
    report : callable
        Called with a line of text after every epoch.

    Returns
    -------
    Reproduction
    """
    recipe, seeds = (QUICK, 1) if quick else (RECIPE, SEEDS)
    rows: list[Row] = []
    confident, both = (read_labelled("mirabest", subset, "train") for subset in ("confident", "no-hybrid"))
    if quick:
        confident, both = thin_images(confident, THIN), thin_images(both, THIN)
    tests = {
        "Confident": read_labelled("mirabest", "confident", "test"),
        "Confident and Uncertain": read_labelled("mirabest", "no-hybrid", "test"),
    }
    other = {"FR-DEEP": read_labelled("frdeep-first", split="test")}

    def train(name: str, data: LabelledImages, sets: dict[str, LabelledImages]) -> list[Trial]:
        return [
            run_trial(
                f"{name}-{seed}", folder, ARCHITECTURE, replace(recipe, seed=seed), data, sets, report=report
            )
            for seed in range(seeds)
        ]

    for what, data in (("Confident", confident), ("Confident and Uncertain", both)):
        trials = train(what.replace(" ", "-"), data, tests)
        rows += score_tests(trials, tests, f"trained on MiraBest {what}", {what: ACCURACY[what]})
    rows += validate_folds(confident, recipe, 2 if quick else FOLDS, folder, report)
    if not quick:
        away = leave_out_alike(confident, other["FR-DEEP"])
        rows += score_tests(
            train("away", away, other), other, f"trained on MiraBest Confident ({len(away.labels)})",
            {"FR-DEEP": "0.74 to 0.79"},
        )  # fmt: skip
        own = leave_out_alike(read_labelled("frdeep-first", split="train"), other["FR-DEEP"])
        rows += score_tests(
            train("frdeep", own, other), other, f"trained on FR-DEEP ({len(own.labels)})",
            {"FR-DEEP": "0.89 to 0.90"},
        )  # fmt: skip
    table, combined = compare_combinations(both, tests, recipe, quick, folder, report)
    picture = draw_combinations(table, folder / "bowles2020.png")
    return Reproduction(NAME, (*rows, *combined), picture)


def score_tests(
    trials: list[Trial], tests: dict[str, LabelledImages], what: str, paper: dict[str, str]
) -> list[Row]:
    """Return for each test set the accuracy of the first seed, and the mean over all."""
    rows = []
    for name, data in tests.items():
        right = [trial.logits[name].argmax(axis=1) == data.labels for trial in trials]
        n = len(data.labels)
        published = paper.get(name, "")
        mean = measure_mean([one.mean() for one in right], within=(0.0, 1.0))
        rows.append(
            make_row(f"accuracy on {name}, {what}: mean", mean, n=n, seeds=len(trials), paper=published)
        )
        first = measure_accuracy(right[0], np.ones(n, bool))
        rows.append(make_row(f"accuracy on {name}, {what}: first seed", first, n=n, seeds=1, paper=published))
    return rows


def validate_folds(
    data: LabelledImages, recipe: Recipe, folds: int, folder: Path, report: Callable[[str], None]
) -> list[Row]:
    """Return the accuracy over folds of the training set, split by position on the sky."""
    number = fold_by_sky(data.ra, data.dec, FOLDS, 0, labels=data.labels)
    right = []
    for fold in range(folds):
        held = {"fold": data.take(number == fold)}
        trial = run_trial(
            f"fold-{fold}", folder, ARCHITECTURE, recipe, data.take(number != fold), held, report=report
        )
        right.append(trial.logits["fold"].argmax(axis=1) == held["fold"].labels)
    joined = np.concatenate(right)
    score = measure_accuracy(joined, np.ones(len(joined), bool))
    what = f"accuracy on MiraBest Confident train, {folds} of {FOLDS} folds"
    return [make_row(what, score, n=len(joined), seeds=folds)]


def leave_out_alike(train: LabelledImages, test: LabelledImages) -> LabelledImages:
    """Return training images without those that may show a source of the test set."""
    found, correlation = find_most_similar(prepare_images(test, SIDE), prepare_images(train, SIDE))
    keep = np.ones(len(train.labels), bool)
    keep[found[correlation > ALIKE]] = False
    return train.take(keep)


def compare_combinations(
    data: LabelledImages,
    tests: dict[str, LabelledImages],
    recipe: Recipe,
    quick: bool,
    folder: Path,
    report: Callable[[str], None],
) -> tuple[dict[tuple[str, str], float], list[Row]]:
    """Train every normalisation with every aggregation once; return accuracies, and means as rows."""
    name = "Confident and Uncertain"
    chosen = list(product(Normalisation, Aggregation))
    if quick:
        chosen = [(Normalisation.SOFTMAX, Aggregation.CONCAT), (Normalisation.RANGE, Aggregation.FINE)]
    table: dict[tuple[str, str], float] = {}
    for normalisation, aggregation in chosen:
        architecture = replace(ARCHITECTURE, normalisation=normalisation.value, aggregation=aggregation.value)
        trial = run_trial(
            f"{normalisation}-{aggregation}", folder, architecture, recipe, data, {name: tests[name]},
            report=report,
        )  # fmt: skip
        right = trial.logits[name].argmax(axis=1) == tests[name].labels
        table[normalisation.value, aggregation.value] = float(right.mean())
    rows = []
    n = len(tests[name].labels)
    for how in dict.fromkeys(key[0] for key in table):
        values = [value for key, value in table.items() if key[0] == how]
        what = f"accuracy on {name} by {how}: mean over {len(values)} aggregations"
        rows.append(
            make_row(
                what, measure_mean(values, within=(0.0, 1.0)), n=n, seeds=len(values), paper=PUBLISHED[how]
            )
        )
    return table, rows
