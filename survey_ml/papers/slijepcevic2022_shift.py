"""Slijepcevic et al. 2022, MNRAS 514, 2599 (arXiv 2204.08816): when unlabelled images help, and which.

FixMatch on MiraBest's Confident images beside the same network in as many steps without unlabelled images, by
number of labels and by pool: the rest of the same catalogue, other catalogues of the same survey, and the
rest with nine FRI of ten. What is not theirs: images are averaged over 4 x 4 pixels, the network is that of
Tang et al. 2019 as in `survey_ml.learning.baselines`, trainings are far shorter with a falling learning rate
and an average of the weights, as many labels are of either class, and no epoch is chosen: test images are
looked at once, after the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special

from survey_ml.labelled import LabelledImages
from survey_ml.learning.baselines import make_tang
from survey_ml.learning.fixmatch import Unlabelled, train_fixmatch
from survey_ml.learning.fixmatch_recipe import SMALL, FixMatchRecipe
from survey_ml.learning.networks import Architecture
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.learning.reliability import measure_ece, measure_nll, measure_uce
from survey_ml.learning.scores import Score, measure_accuracy, measure_mean
from survey_ml.learning.uncertainty import normalise_entropy
from survey_ml.papers.pictures import draw_volumes
from survey_ml.papers.pool_sets import GENDRE, MIRABEST, POOLS, draw_labelled, make_pools, read_sets
from survey_ml.papers.pool_verdicts import (
    SIZES,
    describe_distances,
    describe_variance,
    describe_verdicts,
    divide_in_three,
    train_judges,
)
from survey_ml.papers.result import Reproduction, Row, make_row
from survey_ml.papers.trials import SIDE, Report, Trial, identify, keep_trial, thin_images

if TYPE_CHECKING:
    from torch import nn

    from survey_ml.learning.training import State

NAME = "slijepcevic2022"
VOLUMES = (20, 40, 80, 160, 320, 580)
"""Labelled images, half of either class."""
SEEDS = 5
ARCHITECTURE = Architecture(2, side=144, reduce=4, dropout=0.0)
"""Without dropout: with 0.2 these short trainings end before they have learnt the labelled images, those with
a pool even sooner. Seen on 150 labelled images that were neither learnt from nor in a pool."""
RECIPE = replace(SMALL, epochs=12, choose="last")
JUDGES, JUDGE_EPOCHS = 3, 120
JUDGE = replace(ARCHITECTURE, dropout=0.2)
TRIES, UNLEARNT = 3, 0.95
"""A training whose loss on the labelled images stays above this share of that of a guess is done again, TRIES
times in all: this network sometimes does not begin to learn."""
SUPERVISED = "labels alone"
TEST = "Confident"

Trials = Mapping[tuple[str, int], list[Trial]]
"""Arm, which is a pool or labels alone, and number of labels, to a training a seed."""


def reproduce(folder: Path, *, quick: bool = False, report: Report = lambda text: None) -> Reproduction:
    """Compare FixMatch with and without pools, and what the check of pools and distances say of these.

    Parameters
    ----------
    folder : Path
        Trainings are kept here; the same call again goes on.
    quick : bool
        Two numbers of labels, two pools, a few steps, one seed: shows that it runs, and no more.
    report : callable
        Called with a line of text after every epoch.

    Returns
    -------
    Reproduction
    """
    train, test, others = read_sets()
    first, second, third = divide_in_three(train)
    recipe, seeds, judges = RECIPE, SEEDS, JUDGES
    volumes, pools = (VOLUMES[:2], POOLS[:2]) if quick else (VOLUMES, POOLS)
    if quick:
        recipe, seeds, judges = replace(RECIPE, epochs=2, steps=4), 1, 1
        others, first = {GENDRE: thin_images(others[GENDRE], 5)}, thin_images(first, 4)
        second, third = thin_images(second, 4), thin_images(third, 4)
    trials: dict[tuple[str, int], list[Trial]] = {}
    for seed in range(seeds):
        for volume in volumes:
            chosen = draw_labelled(train.labels, volume, seed)
            around = make_pools(train, chosen, others, seed)
            for arm in (SUPERVISED, *pools):
                own, images = replace(recipe, seed=seed), train.take(chosen)
                found = run_arm(
                    arm, folder, own, images, around.get(arm), test, report, 1 if quick else TRIES
                )
                trials.setdefault((arm, volume), []).append(found)
    networks = train_judges(first, JUDGE, folder, judges, 2 if quick else JUDGE_EPOCHS, report)
    verdicts, said = describe_verdicts(networks, second, third, others)
    rows = [*verdicts, *describe_arms(trials, test.labels, said)]
    rows += describe_distances(networks, second, others)
    rows += describe_variance(networks[0], second, others, SIZES[:1] if quick else SIZES)
    shares = {key: [_find_accuracy(one, test.labels) for one in each] for key, each in trials.items()}
    return Reproduction(NAME, tuple(rows), draw_volumes(shares, SUPERVISED, folder / f"{NAME}.png"))


def run_arm(
    arm: str,
    folder: Path,
    recipe: FixMatchRecipe,
    labelled: LabelledImages,
    pool: LabelledImages | None,
    test: LabelledImages,
    report: Report,
    tries: int = TRIES,
) -> Trial:
    """Train with a pool, or without one in as many steps and in the same order.

    A network that learnt nothing of the labelled images is trained again from other first weights.
    """
    tests, guess = {TEST: test}, float(np.log(len(labelled.classes)))
    plain = "".join(letter if letter.isalnum() else "-" for letter in arm)
    for attempt in range(tries):
        settings = [asdict(ARCHITECTURE), asdict(recipe), *([attempt] if attempt else [])]
        key = identify(settings, {"train": labelled, "pool": pool, **tests})

        def train(
            state: State | None, keep: Callable[[State], None], weights: int = recipe.seed + 1000 * attempt
        ) -> tuple[nn.Module, State]:
            torch.manual_seed(weights)
            network = make_tang(ARCHITECTURE)
            unlabelled = None if pool is None else Unlabelled(prepare_images(pool, SIDE), pool.labels)
            images = prepare_images(labelled, SIDE), labelled.labels
            return network, train_fixmatch(network, images, unlabelled, recipe, state=state, report=keep)

        name = f"{plain}-{len(labelled)}-{recipe.seed}-{key}"
        found = keep_trial(name, folder, train, tests, recipe.epochs, report)
        last = found.history[-1]
        if last.get("loss_labelled", last["loss"]) < UNLEARNT * guess:
            break
        if attempt + 1 < tries:
            report(f"{plain}-{len(labelled)}-{recipe.seed}: learnt nothing, again from other first weights")
    return found


def describe_arms(trials: Trials, labels: NDArray[np.int64], said: Mapping[str, str]) -> list[Row]:
    """Return accuracy and calibration of each arm and number of labels, and what each pool gains."""
    rows = []
    for (arm, volume), each in trials.items():
        what, n, seeds = f"{volume} labels, {_name(arm, said)}", len(labels), len(each)
        measured = [measure_trial(one, labels) for one in each]
        for quantity in measured[0]:
            mean = measure_mean([one[quantity] for one in measured])
            mean = replace(mean, low=max(mean.low, 0.0)) if mean.low == mean.low else mean
            if quantity == "accuracy" and mean.low == mean.low:
                mean = replace(mean, high=min(mean.high, 1.0))
            rows.append(make_row(f"{quantity}, {what}", mean, n=n, seeds=seeds))
        one = measure_accuracy(each[0].logits[TEST].argmax(axis=1), labels)
        rows.append(make_row(f"accuracy, {what}: first seed", one, n=n, seeds=1))
        if arm != SUPERVISED:
            for quantity in ("mask_rate", "impurity"):
                mean = measure_mean([run.history[-1][quantity] for run in each])
                plain = Score(mean.value, float("nan"), float("nan"), mean.n)
                rows.append(make_row(f"{quantity.replace('_', ' ')}, {what}", plain, n=n, seeds=seeds))
    return rows + describe_gains(trials, labels, said)


def describe_gains(trials: Trials, labels: NDArray[np.int64], said: Mapping[str, str]) -> list[Row]:
    """Return what each pool adds to accuracy, pair by pair of trainings with the same seed and labels."""
    rows, n = [], len(labels)
    volumes = list(dict.fromkeys(volume for _, volume in trials))
    for arm in dict.fromkeys(arm for arm, _ in trials if arm != SUPERVISED):
        paper = "" if arm == MIRABEST else "below labels alone"
        gains = np.array(
            [
                [
                    _find_accuracy(one, labels) - _find_accuracy(other, labels)
                    for one, other in zip(trials[arm, volume], trials[SUPERVISED, volume], strict=True)
                ]
                for volume in volumes
            ]
        )
        for volume, each in zip(volumes, gains, strict=True):
            what = f"gain in accuracy, {volume} labels, {_name(arm, said)}"
            rows.append(make_row(what, measure_mean(each), n=n, seeds=len(each), paper=paper))
        mean = measure_mean(gains.mean(axis=0))
        what = f"gain in accuracy, all numbers of labels, {_name(arm, said)}"
        rows.append(make_row(what, mean, n=n, seeds=gains.shape[1], paper=paper))
    return rows


def measure_trial(trial: Trial, labels: NDArray[np.int64]) -> dict[str, float]:
    """Return accuracy, ECE, UCE of the entropy and negative log likelihood (nats) on the test images."""
    found = special.softmax(trial.logits[TEST].astype(np.float64), axis=1)
    entropy = normalise_entropy(special.entr(found).sum(axis=1), found.shape[1])
    wrong = (found.argmax(axis=1) != labels).astype(float)
    return {
        "accuracy": float(1.0 - wrong.mean()),
        "ECE": measure_ece(found, labels, draws=2).value,
        "UCE": measure_uce(entropy, wrong, found.shape[1], draws=2).value,
        "NLL": measure_nll(found, labels, draws=2).value,
    }


def _find_accuracy(trial: Trial, labels: NDArray[np.int64]) -> float:
    return float((trial.logits[TEST].argmax(axis=1) == labels).mean())


def _name(arm: str, said: Mapping[str, str]) -> str:
    return arm if arm == SUPERVISED else f"pool {arm} ({said[arm]})"
