"""What the check of pools says of each, and what distances say of sets on which a network is worse.

Networks are trained on a third of the labelled images, and look at another third that they never saw: images
that a network was trained on look different to it from any others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from survey_ml.labelled import LabelledImages
from survey_ml.learning.frechet import measure_frechet
from survey_ml.learning.networks import Architecture
from survey_ml.learning.permutations import deal
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.learning.scores import Score, measure_mean
from survey_ml.learning.shift import judge_shift
from survey_ml.learning.shift_distances import measure_mmd
from survey_ml.learning.shift_features import fit_scale
from survey_ml.learning.shift_sources import Sources
from survey_ml.learning.strong_augmentation import add_noise, widen_beam
from survey_ml.models.classifier import Classifier, load_classifier
from survey_ml.models.fitting import Fitting, fit_model
from survey_ml.models.pools import judge_images
from survey_ml.models.settings import GATED
from survey_ml.models.shift import describe_images
from survey_ml.papers.pool_sets import GENDRE, IMBALANCED, MIRABEST, unbalance
from survey_ml.papers.result import Row, make_row
from survey_ml.papers.trials import SIDE, identify

Say = Callable[[str], None]
STATISTICS = ("frechet", "frechet_debiased", "mmd", "separation")
SIZES = (25, 50, 100, 200)
"""Images a side that distances are measured on."""
DRAWS = 20


def divide_in_three(data: LabelledImages, seed: int = 0) -> list[LabelledImages]:
    """Return three random thirds of labelled images, each with the classes as in all."""
    rng, third = np.random.default_rng(seed), np.zeros(len(data), np.int64)
    for k in range(len(data.classes)):
        rows = rng.permutation(np.flatnonzero(data.labels == k))
        third[rows] = np.arange(len(rows)) % 3
    return [data.take(third == part) for part in range(3)]


def train_judges(
    data: LabelledImages, architecture: Architecture, folder: Path, n: int, epochs: int, report: Say
) -> list[Classifier]:
    """Return networks that were trained on labelled images alone, or take them where they are kept."""
    judges = []
    for seed in range(n):
        settings = {
            key: value for key, value in asdict(architecture).items() if key not in ("n_classes", *GATED)
        }
        fitting = Fitting(
            name="judge",
            model="cnn",
            architecture=settings,
            recipe={"epochs": epochs},
            validation=0.0,
            seed=seed,
        )
        place = folder / f"judge-{seed}-{identify([fitting.model_dump(mode='json')], {'train': data})}"
        path = place / "judge.safetensors"
        if not path.is_file():
            path = fit_model(
                data, fitting, place,
                progress=lambda entry, of, seed=seed: report(  # type: ignore[misc]
                    f"judge-{seed}: epoch {entry['epoch']:.0f} of {of}, loss {entry['loss']:.3f}"
                ),
            )  # fmt: skip
        judges.append(load_classifier(path, "torch"))
    return judges


def describe_verdicts(
    judges: list[Classifier],
    reference: LabelledImages,
    rest: LabelledImages,
    others: Mapping[str, LabelledImages],
) -> tuple[list[Row], dict[str, str]]:
    """Return how many judges call each pool safe, and in a word what most of them say."""
    held = LabelledImages(
        reference.images, reference.labels, reference.classes, reference.names, reference.ra, reference.dec,
        np.full(len(reference), "valid"), reference.subtracted,
    )  # fmt: skip
    rows, said = [], {}
    for name, pool in {MIRABEST: rest, **others, IMBALANCED: unbalance(rest, 0)}.items():
        places = list(zip(pool.names.tolist(), pool.ra.tolist(), pool.dec.tolist(), strict=True))
        safe = []
        for judge in judges:
            sources = describe_images(judge, prepare_images(pool, SIDE))
            safe.append(not judge_images(judge, held, sources, places).reasons)
        share = float(np.mean(safe))
        said[name] = "safe" if share > 0.5 else "not safe"
        score = Score(share, float("nan"), float("nan"), len(safe))
        rows.append(make_row(f"networks that call the pool {name} safe", score, n=len(pool), seeds=len(safe)))
    return rows, said


def describe_distances(
    judges: list[Classifier], reference: LabelledImages, others: Mapping[str, LabelledImages]
) -> list[Row]:
    """Return how distances go with what is lost in accuracy, over shifted sets and networks."""
    drops: list[float] = []
    found: dict[str, list[float]] = {name: [] for name in (*STATISTICS, "score")}
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for number, judge in enumerate(judges):
        known = _describe(judge, prepare_images(reference, SIDE), reference)
        for name, (images, data) in _make_sets(reference, others).items():
            sample = _describe(judge, images, data)
            verdict = judge_shift(known, sample, permutations=100, alpha=0.01, seed=number)
            drops.append(_find_accuracy(known) - _find_accuracy(sample))
            for key in STATISTICS:
                found[key].append(verdict.statistics[key].value)
            found["score"].append(verdict.score)
            rows.setdefault(name, []).append((drops[-1], found["frechet"][-1], found["mmd"][-1]))
    n, seeds = len(drops), len(judges)
    made = []
    for key, values in found.items():
        rank = _plain(float(stats.spearmanr(values, drops)[0]), n)
        made.append(make_row(f"Spearman correlation of {key} and accuracy drop", rank, n=n, seeds=seeds))
    for name, each in rows.items():
        for k, what in enumerate(("accuracy drop", "Frechet distance", "squared discrepancy")):
            mean = measure_mean([one[k] for one in each])
            made.append(
                make_row(f"{what}, {name}", _plain(mean.value, mean.n), n=len(reference), seeds=seeds)
            )
    return made


def describe_variance(
    judge: Classifier, reference: LabelledImages, others: Mapping[str, LabelledImages], sizes: tuple[int, ...]
) -> list[Row]:
    """Return means and standard deviations of distances over random draws of few images."""
    sides = [judge.predict(prepare_images(data, SIDE)).embedding for data in (reference, others[GENDRE])]
    scale, rng, rows = fit_scale(*sides), np.random.default_rng(0), []
    for size in sizes:
        if size > min(map(len, sides)):
            continue
        values: dict[str, list[float]] = {}
        for draw in range(DRAWS):
            chosen = [scale.apply(side[rng.permutation(len(side))[:size]]) for side in sides]
            pooled, inside = np.concatenate(chosen), deal(size, size, 20, draw)
            parts = {**measure_frechet(pooled, inside), "mmd": measure_mmd(pooled, inside)}
            for name in ("frechet", "frechet_debiased", "mmd"):
                values.setdefault(name, []).append(float(parts[name].values[0]))
        for name, each in values.items():
            mean, spread = float(np.mean(each)), float(np.std(each, ddof=1))
            what = f"{name} of {GENDRE}, {size} images a side"
            rows.append(make_row(f"{what}: mean of {DRAWS} draws", _plain(mean, DRAWS), n=size, seeds=1))
            rows.append(make_row(f"{what}: scatter over draws", _plain(spread, DRAWS), n=size, seeds=1))
    return rows


def _make_sets(
    reference: LabelledImages, others: Mapping[str, LabelledImages]
) -> dict[str, tuple[np.ndarray, LabelledImages]]:
    """Return shifted sets: images (n, side, side), and what they are of."""
    own = torch.from_numpy(prepare_images(reference, SIDE))[:, None]
    n = len(reference)
    made = {}
    for width in (1.0, 2.0, 4.0, 8.0):
        made[f"beam wider by {width:g} px"] = widen_beam(own, torch.full((n,), width))
    for width in (0.02, 0.05, 0.1):
        generator = torch.Generator().manual_seed(0)
        made[f"noise {width}"] = add_noise(own, torch.full((n,), width), generator)
    few = unbalance(reference, 0)
    return (
        {name: (np.asarray(images[:, 0].numpy()), reference) for name, images in made.items()}
        | {name: (prepare_images(data, SIDE), data) for name, data in others.items()}
        | {IMBALANCED: (prepare_images(few, SIDE), few)}
    )


def _describe(judge: Classifier, images: np.ndarray, data: LabelledImages) -> Sources:
    return describe_images(judge, images, labels=data.labels)


def _find_accuracy(sources: Sources) -> float:
    return float((sources.probabilities.argmax(axis=1) == sources.labels).mean())


def _plain(value: float, n: int) -> Score:
    return Score(value, float("nan"), float("nan"), n)
