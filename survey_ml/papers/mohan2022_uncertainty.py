"""Mohan et al. 2022, MNRAS 511, 3722 (arXiv 2201.01203): variational inference for FRI and FRII.

What is not theirs: images are averaged over 2 x 2 pixels, first weights are those of torch, the learning rate
follows one cycle over far fewer epochs, test images are never changed, and the term of misspecification has
gradients. A fifth of the training sources, by position on the sky, is held back: temperature, prior and what
can be pruned are chosen there, and test images only say how that does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.data.labelled.reading import read_labelled
from survey_ml.labelled import LabelledImages
from survey_ml.learning.networks import Architecture
from survey_ml.learning.priors import Prior
from survey_ml.learning.reliability import bootstrap_mean, measure_auroc, measure_ece, measure_uce
from survey_ml.learning.scores import Score, measure_mean
from survey_ml.learning.splits import split_by_sky
from survey_ml.learning.training import Recipe
from survey_ml.learning.uncertainty import measure_uncertainty, normalise_entropy
from survey_ml.papers.pictures import draw_posteriors
from survey_ml.papers.posterior_pruning import SHARES, Curves, find_most, prune_trials
from survey_ml.papers.posterior_trials import SAMPLES, PosteriorTrial, Setting, run_posterior
from survey_ml.papers.result import Reproduction, Row, make_row
from survey_ml.papers.trials import thin_images

NAME = "mohan2022"
ARCHITECTURE = Architecture(2, side=144, dropout=0.0)
RECIPE = Recipe(epochs=60, batch_size=50, learning_rate=5e-3, weight_decay=0.0)
PRIORS = {
    "gaussian": Prior("gaussian", 0.1),
    "gaussian-mixture": Prior("gaussian-mixture", 1.0, 9e-4, 0.75),
    "laplace": Prior("laplace", 1.0),
    "laplace-mixture": Prior("laplace-mixture", 1.0, 1e-3, 0.75),
}
"""With the published scales."""
SEEDS = 5
TEMPERATURES = tuple(float(f"{value:.2g}") for value in np.logspace(0, -5, 16))
COLD_SEEDS = 2
"""Of each temperature."""
SIDE_SEEDS = 3
"""Of trainings without changed images, and with the term of misspecification."""
COLD = 0.01
PAPER_ERROR = "0.128 +- 0.026"
"""Monte Carlo error of the network that the paper prunes."""

Say = Callable[[str], None]


def reproduce(folder: Path, *, quick: bool = False, report: Say = lambda text: None) -> Reproduction:
    """Compare priors, temperatures and prunings, and hold uncertainties against those of people.

    Parameters
    ----------
    folder : Path
        Trainings are kept here; the same call again goes on.
    quick : bool
        Two epochs on a tenth of the images, one seed, two priors, two temperatures: shows that it runs, and
        no more.
    report : callable
        Called with a line of text after every epoch.

    Returns
    -------
    Reproduction
    """
    images = read_labelled("mirabest", "confident", "train")
    part = split_by_sky(images.ra, images.dec, {"train": 0.8, "valid": 0.2}, 0, labels=images.labels)
    train, valid = images.take(part == "train"), images.take(part == "valid")
    if quick:
        train, valid = thin_images(train, 10), thin_images(valid, 3)
    sets = {
        "valid": valid,
        "Confident": read_labelled("mirabest", "confident", "test"),
        "Uncertain": read_labelled("mirabest", "uncertain"),
        "Hybrid": read_labelled("mirabest", "hybrid"),
    }
    recipe = replace(RECIPE, epochs=2) if quick else RECIPE

    def run(name: str, setting: Setting, seeds: int) -> list[PosteriorTrial]:
        own = recipe if setting.augmented else replace(recipe, scales=(1.0, 1.0), shift=0.0)
        return [
            run_posterior(
                f"{name}-{seed}",
                folder,
                ARCHITECTURE,
                replace(own, seed=seed),
                setting,
                train,
                sets,
                samples=10 if quick else SAMPLES,
                report=report,
            )
            for seed in range(1 if quick else seeds)
        ]

    names = list(PRIORS)[:2] if quick else list(PRIORS)
    by_prior = {name: run(name, Setting(PRIORS[name], COLD), SEEDS) for name in names}
    best = min(names, key=lambda name: _mean_error(by_prior[name], "valid", valid))
    rows = describe_priors(by_prior, sets)
    prior = PRIORS[best]
    temperatures = TEMPERATURES[::9] if quick else TEMPERATURES
    curve = {
        value: by_prior[best][:COLD_SEEDS]
        if value == COLD
        else run(f"{best}-T{value:g}", Setting(prior, value), COLD_SEEDS)
        for value in temperatures
    }
    rows += describe_temperatures(curve, best, sets)
    for value in (1.0, COLD):
        if quick and value == COLD:
            continue
        others = {
            "training images not changed": Setting(prior, value, augmented=False),
            "term of misspecification": Setting(prior, value, misspecified=True),
        }
        for what, setting in others.items():
            trials = run(f"{best}-{what.replace(' ', '-')}-T{value:g}", setting, SIDE_SEEDS)
            rows.append(_row_of_seeds(f"Monte Carlo error, {best} prior, T {value:g}, {what}", trials, sets))
    shares = SHARES[:2] if quick else SHARES
    pruned = prune_trials(ARCHITECTURE, by_prior[best], train, sets, shares)
    rows += describe_pruning(pruned, sets)
    rows += describe_people(by_prior[best], sets)
    picture = draw_posteriors(
        {value: [_mean_error([one], "valid", valid) for one in trials] for value, trials in curve.items()},
        {name: [_mean_error([one], "valid", valid) for one in trials] for name, trials in by_prior.items()},
        {name: curves.valid for name, curves in pruned.items()},
        {name: _find_entropy(by_prior[best][0], name) for name in ("Confident", "Uncertain", "Hybrid")},
        folder / "mohan2022.png",
    )
    return Reproduction(NAME, tuple(rows), picture)


def describe_priors(
    by_prior: Mapping[str, list[PosteriorTrial]], sets: Mapping[str, LabelledImages]
) -> list[Row]:
    """Return error and calibration of the entropy for each prior."""
    rows = []
    for name, trials in by_prior.items():
        held = [_mean_error([one], "valid", sets["valid"]) for one in trials]
        rows.append(
            make_row(
                f"Monte Carlo error on validation, {name} prior", _mean(held), n=len(sets["valid"]),
                seeds=len(trials),
            )
        )  # fmt: skip
        rows.append(_row_of_seeds(f"Monte Carlo error, {name} prior", trials, sets, PAPER_ERROR))
        errors = [_find_uce(one, sets["Confident"]).value for one in trials]
        n = len(sets["Confident"])
        rows.append(
            make_row(f"UCE of the entropy, {name} prior: mean", _mean(errors), n=n, seeds=len(trials))
        )
        one = _find_uce(trials[0], sets["Confident"])
        rows.append(make_row(f"UCE of the entropy, {name} prior: first seed", one, n=n, seeds=1))
    return rows


def describe_temperatures(
    curve: Mapping[float, list[PosteriorTrial]], prior: str, sets: Mapping[str, LabelledImages]
) -> list[Row]:
    """Return the validation error at each temperature, and what the one chosen there does on the test."""
    rows, held = [], {}
    for value, trials in curve.items():
        each = [_mean_error([one], "valid", sets["valid"]) for one in trials]
        held[value] = float(np.mean(each))
        n = len(sets["valid"])
        what = f"Monte Carlo error on validation, T {value:g}"
        rows.append(make_row(what, _mean(each), n=n, seeds=len(each)))
    chosen = min(held, key=lambda value: held[value])
    rows.append(make_row("temperature chosen on validation", Score(chosen, nan, nan, 1), n=1, seeds=1))
    for value in dict.fromkeys((1.0, chosen)):
        what = f"Monte Carlo error, {prior} prior, T {value:g}"
        rows.append(_row_of_seeds(what, curve[value], sets, "cold posterior effect" if value == 1.0 else ""))
    return rows


def describe_pruning(curves: Mapping[str, Curves], sets: Mapping[str, LabelledImages]) -> list[Row]:
    """Return the error after pruning, how much can go, and calibration by class before and after."""
    rows = []
    test, held = sets["Confident"], len(sets["valid"])
    for by, found in curves.items():
        seeds, share = len(found.trials), find_most(found)
        what = f"share of dense weights that can go by {by}, chosen on validation"
        paper = "0.3" if by == "snr" else "more than by SNR"
        rows.append(make_row(what, Score(share, nan, nan, 1), n=held, seeds=seeds, paper=paper))
        for taken in dict.fromkeys((0.0, 0.3, share)):
            after, trials = f"{taken:.0%} pruned by {by}", found.pruned[taken]
            rows.append(_row_of_seeds(f"Monte Carlo error, {after}", trials, sets))
            first = bootstrap_mean(trials[0].find_errors("Confident", test.labels))
            rows.append(make_row(f"Monte Carlo error, {after}: first seed", first, n=first.n, seeds=1))
            for label, name in enumerate(test.classes):
                own = test.labels == label
                mean = trials[0].find_probabilities("Confident").mean(axis=0)[own]
                ece = measure_ece(mean, test.labels[own])
                rows.append(make_row(f"ECE of {name}, {after}: first seed", ece, n=ece.n, seeds=1))
    return rows


def describe_people(trials: list[PosteriorTrial], sets: Mapping[str, LabelledImages]) -> list[Row]:
    """Return how unsure the posterior is of sources that people were sure of, and of those they were not."""
    rows = []
    names = ("Confident", "Uncertain", "Hybrid")
    measures: dict[str, Callable[[PosteriorTrial, str], NDArray[np.float64]]] = {
        "entropy": _find_entropy,
        "variance": _find_variance,
    }
    for what, measure in measures.items():
        values = [{name: measure(one, name) for name in names} for one in trials]
        for name in names:
            first = bootstrap_mean(values[0][name])
            rows.append(make_row(f"mean {what}, {name}: first seed", first, n=first.n, seeds=1))
        for name in names[1:]:
            area = measure_auroc(values[0]["Confident"], values[0][name])
            each = [measure_auroc(one["Confident"], one[name], draws=2).value for one in values]
            said = f"AUROC of the {what}, {name} above Confident"
            rows.append(make_row(f"{said}: first seed", area, n=area.n, seeds=1))
            rows.append(make_row(f"{said}: mean", _mean(each), n=area.n, seeds=len(each)))
    for name in names[:2]:
        first = bootstrap_mean(trials[0].find_errors(name, sets[name].labels))
        rows.append(make_row(f"Monte Carlo error on {name}: first seed", first, n=first.n, seeds=1))
        uce = _find_uce(trials[0], sets[name], name)
        rows.append(make_row(f"UCE of the entropy on {name}: first seed", uce, n=first.n, seeds=1))
    return rows


def _row_of_seeds(
    what: str, trials: list[PosteriorTrial], sets: Mapping[str, LabelledImages], paper: str = ""
) -> Row:
    each = [_mean_error([one], "Confident", sets["Confident"]) for one in trials]
    return make_row(f"{what}: mean", _mean(each), n=len(sets["Confident"]), seeds=len(each), paper=paper)


def _mean(values: list[float]) -> Score:
    """Return the mean over trainings; its interval ends where shares do."""
    return measure_mean(values, within=(0.0, 1.0))


def _mean_error(trials: list[PosteriorTrial], name: str, data: LabelledImages) -> float:
    return float(np.mean([one.find_errors(name, data.labels).mean() for one in trials]))


def _find_entropy(trial: PosteriorTrial, name: str) -> NDArray[np.float64]:
    return measure_uncertainty(trial.find_probabilities(name)).entropy


def _find_variance(trial: PosteriorTrial, name: str) -> NDArray[np.float64]:
    return np.asarray(trial.find_probabilities(name)[:, :, 0].var(axis=0))


def _find_uce(trial: PosteriorTrial, data: LabelledImages, name: str = "Confident") -> Score:
    n_classes: Any = len(data.classes)
    entropy = normalise_entropy(_find_entropy(trial, name), n_classes)
    return measure_uce(entropy, trial.find_errors(name, data.labels), n_classes)
