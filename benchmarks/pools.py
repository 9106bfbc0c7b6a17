"""Whether pools that are called unsafe cost accuracy, and those that are called safe do not.

Run: ``python -m benchmarks.pools [--seeds 5] [--first 5] [--out pools]``.

The rules of `survey_ml.learning.pools`, one of which was taken from the table of ``survey-ml reproduce
slijepcevic2022``, on other images: every seed divides MiraBest's Confident images, training and test batches
together, anew into 150 that are tested on and the rest, from which labelled images and pools are drawn. The
trainings are those of the reproduction with other first weights. The judge of a seed is a network that learnt
a third of the rest; another third is its reference, and the last the pool of the same catalogue. What is done
is kept in the folder, and the same command goes on; seeds may be run by several processes at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.reporting import Report, make_parser
from survey_ml.labelled import LabelledImages, join_images
from survey_ml.learning.pools import FEW_LABELS
from survey_ml.learning.scores import Score, measure_mean
from survey_ml.papers.pool_sets import MIRABEST, POOLS, draw_labelled, make_pools, read_sets
from survey_ml.papers.pool_verdicts import describe_verdicts, divide_in_three, train_judges
from survey_ml.papers.slijepcevic2022_shift import (
    JUDGE,
    JUDGE_EPOCHS,
    RECIPE,
    SUPERVISED,
    TEST,
    TRIES,
    VOLUMES,
    run_arm,
)
from survey_ml.papers.trials import Trial, thin_images

N_TEST = 150


@dataclass(frozen=True)
class Gain:
    """What a pool adds to the accuracy of one training, and whether it was called safe beside its labels."""

    pool: str
    volume: int
    seed: int
    gain: float
    safe: bool


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=5, help="first seed; 0 to 4 are the reproduction's")
    parser.add_argument("--quick", action="store_true", help="a few steps on few images, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("pools"), help="folder of the trainings")
    options = parser.parse_args()
    # More threads make trainings irreproducible in the last digits, and slower where cores are busy.
    torch.set_num_threads(1)
    seeds = range(options.first, options.first + options.seeds)
    gains = [gain for seed in seeds for gain in try_pools(seed, options.out, quick=options.quick)]
    report = Report(
        "Pools that are called safe, and what they cost",
        {"seeds": list(seeds), "test images": N_TEST, "few labels": FEW_LABELS},
    )
    report.add_table("Gain in accuracy over labels alone", list(make_rows(gains)))
    safe = [gain for gain in gains if gain.safe]
    unsafe = [gain for gain in gains if not gain.safe]
    few = [gain for gain in unsafe if gain.volume < FEW_LABELS]
    unlike = [gain for gain in unsafe if gain.volume >= FEW_LABELS]
    said = {"few labels": few, "looks or mix": unlike, "not safe, either way": unsafe, "safe": safe}
    report.add_table("What was said of a pool", [make_row(what, some) for what, some in said.items()])
    cost, kept = average(unsafe), average(safe)
    report.add_bar("pools called unsafe cost accuracy", show(cost), "below 0", cost.high < 0.0)
    report.add_bar("pools called safe do not", show(kept), "not below 0", not kept.high < 0.0)
    return report.finish(options.json)


def try_pools(seed: int, folder: Path, *, quick: bool = False) -> list[Gain]:
    """Train with every pool and without, beside every number of labels, and ask what is said of the pools."""
    train, test, others = divide(seed)
    recipe, volumes, pools, epochs, thirds = RECIPE, VOLUMES, POOLS, JUDGE_EPOCHS, divide_in_three(train)
    if quick:
        recipe, epochs = replace(RECIPE, epochs=2, steps=4), 2
        volumes, pools, thirds = (40, 80), POOLS[:2], [thin_images(one, 2) for one in thirds]
        others = {name: thin_images(data, 5) for name, data in others.items()}
    recipe = replace(recipe, seed=seed)
    judge = train_judges(thirds[0], JUDGE, folder, 1, epochs, say)
    _, said = describe_verdicts(judge, thirds[1], thirds[2], others)
    gains = []
    for volume in volumes:
        chosen = draw_labelled(train.labels, volume, seed)
        around = make_pools(train, chosen, others, seed)
        found = {
            arm: find_accuracy(
                run_arm(
                    arm, folder, recipe, train.take(chosen), around.get(arm), test, say,
                    1 if quick else TRIES,
                ),
                test,
            )
            for arm in (SUPERVISED, *pools)
        }  # fmt: skip
        say(f"seed {seed}, {volume} labels: {found}")
        gains += [
            Gain(
                pool, volume, seed, found[pool] - found[SUPERVISED],
                said[pool] == "safe" and volume >= FEW_LABELS,
            )
            for pool in pools
        ]  # fmt: skip
    return gains


def divide(seed: int) -> tuple[LabelledImages, LabelledImages, dict[str, LabelledImages]]:
    """Return labelled images, test images with classes in the same shares, and other catalogues."""
    first, second, others = read_sets()
    data = join_images([first, second])
    data = replace(data, split=np.full(len(data), ""))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data))
    order = order[np.argsort(data.labels[order], kind="stable")]
    kept = np.linspace(0, len(order), N_TEST, endpoint=False).astype(int)
    return data.take(np.sort(np.delete(order, kept))), data.take(np.sort(order[kept])), others


def average(gains: list[Gain]) -> Score:
    """Return the mean over seeds of their mean gain."""
    by_seed: dict[int, list[float]] = {}
    for one in gains:
        by_seed.setdefault(one.seed, []).append(one.gain)
    return measure_mean([np.mean(each) for each in by_seed.values()])


def make_row(what: str, gains: list[Gain]) -> dict[str, object]:
    """Return how many gains there are, and their mean."""
    mean = average(gains)
    return {"said": what, "n": len(gains), "gain": mean.value, "95 %": [mean.low, mean.high]}


def make_rows(gains: list[Gain]) -> Iterator[dict[str, object]]:
    """Return a row for each pool and number of labels, for all numbers, and for those that are enough."""
    pools, volumes = dict.fromkeys(gain.pool for gain in gains), dict.fromkeys(gain.volume for gain in gains)
    enough = [volume for volume in volumes if volume >= FEW_LABELS]
    for what, some in (*((str(v), [v]) for v in volumes), ("all", list(volumes)), ("enough", enough)):
        for pool in pools:
            chosen = [gain for gain in gains if gain.pool == pool and gain.volume in some]
            mean = average(chosen)
            yield {
                "labels": what, "pool": "rest of MiraBest" if pool == MIRABEST else pool, "n": len(chosen),
                "gain": mean.value, "95 %": [mean.low, mean.high],
                "called safe": float(np.mean([gain.safe for gain in chosen])),
            }  # fmt: skip


def find_accuracy(trial: Trial, test: LabelledImages) -> float:
    """Return the share of test images that a training classes right."""
    return float((trial.logits[TEST].argmax(axis=1) == test.labels).mean())


def show(mean: Score) -> str:
    """Return a mean with its interval."""
    return f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]"


def say(text: str) -> None:
    """Tell how far trainings are."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
