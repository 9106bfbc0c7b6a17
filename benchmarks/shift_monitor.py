"""Whether the shift monitor sees known shifts, stays silent without one, and counts classes right.

Run: ``python -m benchmarks.shift_monitor [--model mirabest-d4] [--draws 200] [--no-cost]``.

Shifts are real catalogues and surveys, and FIRST smoothed to the beam of NVSS (``benchmarks.shift_sets``). A
draw is of 100 images a side, without repetition, unless said otherwise. The shares of classes are tried on
held-out probabilities that stand for all there is: calibration images and sources are drawn from them with
repetition, so that what is true is known; the same images are in both, as they would be with any two draws
from so small a world.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reporting import Report, make_parser
from benchmarks.shift_sets import Known, embed_sets
from survey_ml.errors import SurveyMLError
from survey_ml.learning.frechet import measure_frechet
from survey_ml.learning.label_shift import estimate_label_shift, reweight
from survey_ml.learning.permutations import deal
from survey_ml.learning.scores import measure_accuracy, measure_mean
from survey_ml.learning.shift import Shift, judge_shift
from survey_ml.learning.shift_features import fit_scale
from survey_ml.learning.shift_sources import Sources
from survey_ml.models.classifier import load_classifier
from survey_ml.models.format import read_model
from survey_ml.models.registry import find_model

N = 100
"""Images a side."""
FRACTIONS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)
"""Of FRI in a survey."""
CALIBRATION = 160
"""Images that shares are calibrated with."""
SECONDS, NUMBERS, MANY = 10.0, 256, 10_000


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--model", default="mirabest-d4", choices=["mirabest-d4", "mirabest-attention"])
    parser.add_argument("--draws", type=int, default=200, help="of each set; a quarter of it for shifts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-cost", action="store_true", help="without time and memory")
    parser.add_argument("--no-images", action="store_true", help="time and memory only")
    options = parser.parse_args()
    report = Report("Shift monitor", {"model": options.model, "draws": options.draws, "seed": options.seed})
    if not options.no_images:
        add_images(report, options.model, options.draws, options.seed)
    if not options.no_cost:
        add_cost(report, options.seed)
    return report.finish(options.json)


def add_images(report: Report, model: str, draws: int, seed: int) -> None:
    """Add all that needs images."""
    try:
        sets = embed_sets(load_classifier(model, threads=1))
    except SurveyMLError as error:
        report.notes.append(f"No images: {error}")
        return
    rng = np.random.default_rng(seed)
    add_false_alarms(report, sets, draws, rng)
    add_known(report, sets, max(10, draws // 4), rng)
    add_power(report, sets, max(20, draws // 2), rng)
    add_bias(report, sets, 3 * draws, rng)
    tensors, _, _ = read_model(find_model(f"{model}-bayes-by-backprop").path)
    folds = tensors["held_out.probabilities"].astype(np.float64), tensors["held_out.labels"].astype(np.int64)
    worlds = {"Confident, five folds": folds}
    for what, name in (("test, Confident and Uncertain", "held out"), ("all never seen", "never seen")):
        sources = sets[name].sources
        worlds[what] = np.asarray(sources.probabilities, np.float64), np.asarray(sources.labels, np.int64)
    add_shares(report, worlds, max(2, draws // 10), rng)
    add_pure_prior(report, sets["training"].sources, max(10, draws // 4), rng)


def halve(sources: Sources, rng: np.random.Generator, n: int | None = None) -> tuple[Sources, Sources]:
    """Return two random parts of a set, halves unless a size is given."""
    order = rng.permutation(len(sources))
    n = n or len(sources) // 2
    return sources.take(order[:n]), sources.take(order[n : 2 * n])


def draw(sources: Sources, n: int, rng: np.random.Generator) -> Sources:
    """Return n sources of a set, or all there are."""
    return sources.take(rng.permutation(len(sources))[:n])


def count_levels(found: list[Shift]) -> dict[str, float]:
    """Return the share of each level."""
    counts = Counter(one.level for one in found)
    return {level: counts[level] / len(found) for level in ("green", "amber", "red")}


def add_false_alarms(report: Report, sets: dict[str, Known], draws: int, rng: np.random.Generator) -> None:
    """Add how often halves of one set are called different."""
    rows = []
    for name, n in (("held out", None), ("catalogue", N), ("training", N)):
        found = [judge_shift(*halve(sets[name].sources, rng, n), seed=k) for k in range(draws)]
        green = measure_accuracy([one.level == "green" for one in found], np.ones(draws, bool))
        rows.append(
            {"set": name, "a side": n or len(sets[name].sources) // 2, **count_levels(found),
             "green 95 %": [green.low, green.high],
             "conditional p <= 0.01": float(np.mean([one.conditional.p_value <= 0.01 for one in found])),
             "causes": str(dict(Counter(one.cause for one in found if one.cause)))}
        )  # fmt: skip
        if name == "held out":
            report.add_bar(
                "1. halves of held-out MiraBest: green", f"{green.value:.3f} of {draws}", "0.95",
                green.value >= 0.95,
            )  # fmt: skip
    report.add_table("No shift", rows)


def add_known(report: Report, sets: dict[str, Known], draws: int, rng: np.random.Generator) -> None:
    """Add what is said of known shifts, against the labelled reference of each."""
    rows = []
    bars = {
        "FR-DEEP NVSS": ("red",), "FIRST at 45 arcsec": ("red",), "Gendre": ("amber", "red"),
    }  # fmt: skip
    for name in ("FR-DEEP NVSS", "FIRST at 45 arcsec", "Gendre", "Capetti", "FR-DEEP FIRST"):
        known = sets[name]
        reference = sets[known.reference].sources
        found = [
            judge_shift(draw(reference, 150, rng), draw(known.sources, N, rng), seed=k) for k in range(draws)
        ]
        refused = [bool(one.prior.refused) for one in found]
        kept = [one.prior.found.shares[0] for one in found if one.prior.found is not None]
        rows.append(
            {"set": name, "FRI": float((known.sources.labels == 0).mean()), "accuracy": known.accuracy,
             **count_levels(found), "score": float(np.mean([one.score for one in found])),
             "cause": Counter(one.cause for one in found).most_common(1)[0][0],
             "shares refused": float(np.mean(refused)),
             "FRI where not": float(np.mean(kept)) if kept else ""}
        )  # fmt: skip
        if name in bars:
            share = float(np.mean([one.level in bars[name] for one in found]))
            wanted = " or ".join(bars[name])
            report.add_bar(f"1. {name}: {wanted}", f"{share:.3f} of {draws}", "1", share == 1.0)
            report.add_bar(f"4. {name}: shares refused", float(np.mean(refused)), "1", all(refused))
    report.add_table(f"Known shifts, {N} images against 150 of the reference", rows)
    scores = {row["set"]: row["score"] for row in rows}
    report.notes.append(
        "The score orders Capetti before Gendre: " + str(scores["Capetti"] > scores["Gendre"]) + ". Accuracy "
        "is over each set's own mix of classes."
    )


def add_power(report: Report, sets: dict[str, Known], draws: int, rng: np.random.Generator) -> None:
    """Add how far statistics of a shift are from those without, in standard deviations of the latter."""

    def list_values(found: Shift) -> dict[str, float]:
        total = {name: one.value for name, one in found.statistics.items()}
        return total | {f"matched {name}": one.value for name, one in found.conditional.statistics.items()}

    catalogue = sets["catalogue"].sources
    null = [list_values(judge_shift(*halve(catalogue, rng, N), seed=k)) for k in range(draws)]
    rows = []
    for name in ("Gendre", "Capetti"):
        found = [
            list_values(judge_shift(draw(catalogue, N, rng), draw(sets[name].sources, N, rng), seed=k))
            for k in range(draws)
        ]
        for statistic in null[0]:
            chance, shifted = ([one[statistic] for one in runs] for runs in (null, found))
            power = (np.mean(shifted) - np.mean(chance)) / np.std(chance)
            rows.append(
                {"set": name, "statistic": statistic, "d'": float(power), "value": float(np.mean(shifted)),
                 "without": float(np.mean(chance)), "std": float(np.std(chance))}
            )  # fmt: skip
    report.add_table(f"Power, {N} images a side, {draws} draws", rows)
    power = {row["statistic"]: row["d'"] for row in rows if row["set"] == "Gendre"}
    for statistic in ("mmd", "separation", "frechet_debiased", "matched mmd"):
        report.add_bar(
            f"2. d' for Gendre, {statistic}", power[statistic], "at least 4", power[statistic] >= 4
        )


def add_bias(report: Report, sets: dict[str, Known], draws: int, rng: np.random.Generator) -> None:
    """Add the mean of the debiased Frechet distance without a shift."""
    values = []
    for k in range(draws):
        one, other = (half.embedding for half in halve(sets["catalogue"].sources, rng, N))
        pooled = fit_scale(one, other).apply(np.concatenate([one, other]))
        values.append(measure_frechet(pooled, deal(N, N, 40, k))["frechet_debiased"].values[0])
    bias, room = float(np.mean(values) / np.std(values)), 2.0 / np.sqrt(draws)
    report.add_bar(
        "2. debiased Frechet distance without shift, mean / std", f"{bias:.3f} +- {room:.3f}", "within 0.1",
        abs(bias) <= 0.1,
    )  # fmt: skip


def add_shares(
    report: Report,
    worlds: dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]],
    repeats: int,
    rng: np.random.Generator,
) -> None:
    """Add errors and intervals of shares under a shift of the mix alone."""
    rows = []
    for world, (values, labels) in worlds.items():
        for n, bar in ((100, 0.045), (400, 0.035)):
            runs = [
                try_shares(values, labels, share, n, number, rng)
                for number in range(repeats)
                for share in FRACTIONS
            ]
            figures = {key: np.array([run[key] for run in runs]) for key in runs[0]}
            ends = np.tile(np.isin(FRACTIONS, (0.05, 0.95)), repeats)
            error, gain = measure_mean(figures["error"]), measure_mean(figures["gain"])
            covered = measure_accuracy(figures["covered"], np.ones(len(runs), bool))
            counted = measure_accuracy(figures["counted"], np.ones(len(runs), bool))
            rows.append(
                {"probabilities": world, "n": n, "error": error.value, "error 95 %": [error.low, error.high],
                 "by labels": float(figures["plain"].mean()), "check": float(figures["check"].mean()),
                 "68 % cover": covered.value, "95 %": [covered.low, covered.high],
                 "counts": counted.value, "accuracy": float(figures["accuracy"].mean()),
                 "gain": gain.value, "of at most": float(figures["oracle"].mean()),
                 "gain at 5, 95 %": float(figures["gain"][ends].mean())}
            )  # fmt: skip
            report.add_bar(
                f"4. {world}: error of the FRI share, n {n}", error.value, f"{bar}", error.value <= bar
            )
            for what, one in (("shares", covered), ("counts", counted)):
                shown = f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"
                report.add_bar(
                    f"4. {world}: 68 % of {what} cover, n {n}",
                    shown,
                    "0.60 to 0.76",
                    0.60 <= one.value <= 0.76,
                )
            report.add_bar(f"4. {world}: accuracy regained, n {n}", gain.value, "0.06", gain.value >= 0.06)
    report.add_table(
        f"Another mix of classes, {len(FRACTIONS)} shares x {repeats}, {CALIBRATION} calibration images", rows
    )


def try_shares(
    values: NDArray[np.float64],
    labels: NDArray[np.int64],
    share: float,
    n: int,
    seed: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Draw calibration images and a survey, and return errors and whether intervals hold the truth."""
    drawn = rng.integers(len(labels), size=CALIBRATION)
    true = (rng.random(n) >= share).astype(np.int64)
    rows = np.zeros(n, np.int64)
    for k in (0, 1):
        rows[true == k] = rng.choice(np.flatnonzero(labels == k), int((true == k).sum()))
    survey = values[rows]
    found = estimate_label_shift(survey, values[drawn], labels[drawn], draws=100, level=0.68, seed=seed)
    actual, plain = float((true == 0).mean()), survey.argmax(axis=1)
    before = np.bincount(labels, minlength=2) / len(labels)
    best = reweight(survey, before, [share, 1.0 - share]).argmax(axis=1)
    right = float((plain == true).mean())
    return {
        "error": abs(float(found.shares[0]) - actual),
        "plain": abs(float((plain == 0).mean()) - actual),
        "check": abs(float(found.check[0]) - actual),
        "covered": found.low[0] <= share <= found.high[0],
        "counted": found.counts_low[0] <= (true == 0).sum() <= found.counts_high[0],
        "accuracy": right,
        "gain": float((found.reweight(survey).argmax(axis=1) == true).mean()) - right,
        "oracle": float((best == true).mean()) - right,
    }


def add_pure_prior(report: Report, sources: Sources, draws: int, rng: np.random.Generator) -> None:
    """Add what is said where only the mix of classes differs."""
    rows = []
    for share in (0.1, 0.5, 0.9):
        found = []
        for k in range(draws):
            first, second = halve(sources, rng)
            assert second.labels is not None
            kinds = [np.flatnonzero(second.labels == number) for number in (0, 1)]
            take = round(share * N), N - round(share * N)
            chosen = np.concatenate(
                [rng.choice(kind, size, replace=False) for kind, size in zip(kinds, take, strict=True)]
            )
            found.append(judge_shift(first, second.take(chosen), seed=k))
        kept = [abs(one.prior.found.shares[0] - share) for one in found if one.prior.found is not None]
        rows.append(
            {"FRI": share, **count_levels(found),
             "cause prior": float(np.mean([one.cause == "prior" for one in found])),
             "shares refused": float(np.mean([bool(one.prior.refused) for one in found])),
             "error": float(np.mean(kept)) if kept else ""}
        )  # fmt: skip
    report.add_table(f"Only the mix differs: {N} of the other half of the training images", rows)


def add_cost(report: Report, seed: int) -> None:
    """Add time and memory for many embeddings."""
    rng = np.random.default_rng(seed)

    def make(n: int) -> Sources:
        labels = rng.integers(2, size=n)
        embedding = rng.normal(size=(n, NUMBERS)).astype(np.float32)
        embedding[:, 0] += labels
        likely = 1.0 / (1.0 + np.exp(-embedding[:, :1] + 0.5))
        return Sources(embedding, np.concatenate([1.0 - likely, likely], axis=1), labels)

    rows: list[dict[str, Any]] = []
    reference = make(2000)
    for n in (MANY, 4 * MANY):
        sample = make(n)
        began = time.process_time()
        judge_shift(reference, sample)
        spent = time.process_time() - began
        tracemalloc.start()
        judge_shift(reference, sample)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        rows.append({"embeddings": n, "numbers": NUMBERS, "CPU s": spent, "MB beyond the input": peak})
    report.add_table("Cost, reference of 2,000, 200 permutations", rows)
    report.add_bar(f"8. {MANY} embeddings: CPU s", rows[0]["CPU s"], f"{SECONDS}", rows[0]["CPU s"] < SECONDS)
    more = rows[1]["MB beyond the input"] / rows[0]["MB beyond the input"]
    report.add_bar("8. memory of four times as many, over that", more, "at most 1.5", more <= 1.5)


if __name__ == "__main__":
    sys.exit(main())
