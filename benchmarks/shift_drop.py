"""Whether the alarm score of the shift monitor goes with what a shift costs in accuracy.

Run: ``python -m benchmarks.shift_drop [mirabest-d4 model-seeds/mirabest-d4/seed-1 ...] [--seed 0]``.

Shifts are made of MiraBest's held-out test images (blur, noise, zoom, gamma, clip, translation, other mixes
of classes), the very images that they are held against; real ones are those of ``benchmarks.shift_sets``. A
drop is what the accuracy is below that of the reference, plain, and with the reference in the sample's mix of
classes: a sample of the easier class is not a lesser shift. The score has nothing of the labels of a sample.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from benchmarks.reporting import Report, make_parser
from benchmarks.shift_sets import Known, embed_sets, smooth
from survey_ml.data.labelled.reading import read_labelled
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.learning.shift import judge_shift
from survey_ml.learning.shift_sources import Sources
from survey_ml.models.classifier import Classifier, load_classifier
from survey_ml.models.shift import describe_images

NAMES = ("mirabest-d4", "mirabest-attention", "mirabest-bayes")
BAR, LEAST_SETS, TRAININGS = 0.80, 23, 3
CATALOGUES = ("Gendre", "Capetti")
REAL = ("FR-DEEP FIRST", "FR-DEEP NVSS", "FIRST at 45 arcsec", *CATALOGUES)

Images = NDArray[np.float32]


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME|PATH", help="networks of FRI and FRII")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = Report("Score of the shift monitor against the accuracy drop", {"seed": options.seed})
    drops: list[float] = []
    mixed: list[float] = []
    scores: list[float] = []
    pairs: list[NDArray[np.float64]] = []
    for name in options.names or NAMES:
        rows = measure_drops(load_classifier(name, threads=1), options.seed)
        report.add_table(name, rows)
        for what, column in (("drop", "drop"), ("drop in its mix", "drop in its mix")):
            report.notes.append(
                f"{name}: Spearman of score and {what}, {len(rows)} sets: "
                + ", ".join(
                    f"{key} {correlate(rows, key, column):.2f}"
                    for key in ("score", "total mmd", "separation")
                )
            )
        scores += [row["score"] for row in rows]
        pairs.append(np.array([[row["score"], row["drop"]] for row in rows if row["set"] in CATALOGUES]))
        drops += [row["drop"] for row in rows]
        mixed += [row["drop in its mix"] for row in rows]
    sets, trainings = len(scores), len(options.names or NAMES)
    for what, values in (("accuracy drop", drops), ("drop in the sample's mix", mixed)):
        found = float(stats.spearmanr(scores, values).statistic)
        report.add_bar(
            f"3. Spearman of score and {what}, {sets} sets of {trainings} trainings", found,
            f"{BAR} over {LEAST_SETS} shifts x {TRAININGS} trainings",
            found >= BAR and trainings >= TRAININGS,
        )  # fmt: skip
    add_order(report, np.array(pairs))
    return report.finish(options.json)


def add_order(report: Report, pairs: NDArray[np.float64]) -> None:
    """Add whether scores of the two catalogues (trainings, 2, score and drop) have the order of the drops."""
    further = np.sign(pairs[:, 0] - pairs[:, 1])
    mean = np.sign(pairs.mean(axis=0)[0] - pairs.mean(axis=0)[1])
    right = int((further[:, 0] == further[:, 1]).sum())
    shown = ", ".join(
        f"{name} {score:.3f} and {drop:.3f}"
        for name, (score, drop) in zip(CATALOGUES, pairs.mean(axis=0), strict=True)
    )
    report.add_bar(
        f"3. order of {' and '.join(CATALOGUES)}",
        f"{shown} (mean score and drop); right for {right} of {len(pairs)} trainings",
        "that of the drops in the mean", mean[0] == mean[1],
    )  # fmt: skip


def correlate(rows: list[dict[str, float]], one: str, other: str) -> float:
    """Return Spearman's correlation of two columns."""
    return float(stats.spearmanr([row[one] for row in rows], [row[other] for row in rows]).statistic)


def list_shifts(rng: np.random.Generator) -> dict[str, Callable[[Images], Images]]:
    """Return made shifts of images (n, y, x) from 0 to 1."""

    def scale(images: Images) -> Images:
        top = np.maximum(images.max(axis=(1, 2), keepdims=True), 1e-9)
        return np.clip(images / top, 0.0, 1.0).astype(np.float32)

    def add_noise(width: float) -> Callable[[Images], Images]:
        def make(images: Images) -> Images:
            noise = ndimage.gaussian_filter(rng.normal(size=images.shape), (0.0, 1.3, 1.3))
            noisy = images + width * noise / noise.std()
            return scale(np.where(noisy > 3.0 * width, noisy, 0.0))

        return make

    def zoom(factor: float) -> Callable[[Images], Images]:
        def make(images: Images) -> Images:
            middle = 0.5 * (images.shape[1] - 1)
            offset = middle * (1.0 - 1.0 / factor)
            zoomed = [ndimage.affine_transform(one, np.eye(2) / factor, offset, order=1) for one in images]
            return scale(np.stack(zoomed))

        return make

    return {
        **{f"blur {w} px": (lambda images, w=w: smooth(images, w)) for w in (1.0, 2.0, 4.0, 7.0)},
        **{f"noise {w}": add_noise(w) for w in (0.02, 0.05, 0.1)},
        **{f"zoom {f}": zoom(f) for f in (0.5, 0.7, 1.4, 2.0)},
        **{f"gamma {g}": (lambda images, g=g: scale(images**g)) for g in (0.5, 0.7, 1.5, 2.0)},
        **{f"clip {c}": (lambda images, c=c: np.where(images > c, images, 0.0)) for c in (0.05, 0.15)},
        **{f"shift {s} px": (lambda images, s=s: np.roll(images, (s, s), (1, 2))) for s in (10, 30)},
    }


def measure_drops(classifier: Classifier, seed: int) -> list[dict[str, float]]:
    """Return a row for each shift of one model."""
    rng = np.random.default_rng(seed)
    held = read_labelled("mirabest", "no-hybrid", "test")
    images = prepare_images(held, classifier.card.preprocessing.side)
    sets = embed_sets(classifier)
    made: dict[str, Known] = {}
    for name, change in list_shifts(rng).items():
        sources = describe_images(classifier, change(images).astype(np.float32), labels=held.labels)
        made[name] = Known(sources, "held out")
    for share in (0.1, 0.9):
        own = sets["held out"].sources
        counts = round(66 * share), round(66 * (1.0 - share))
        rows = [rng.choice(np.flatnonzero(held.labels == k), n, replace=False) for k, n in enumerate(counts)]
        made[f"FRI {share}"] = Known(own.take(np.concatenate(rows)), "held out")
    found = []
    for name, known in (made | {name: sets[name] for name in REAL}).items():
        reference = sets[known.reference].sources
        verdict = judge_shift(reference, known.sources, seed=seed)
        plain, mixed = find_drops(reference, known.sources)
        found.append(
            {"set": name, "n": len(known.sources), "drop": plain, "drop in its mix": mixed,
             "score": verdict.score, "total mmd": verdict.statistics["mmd"].value,
             "separation": verdict.statistics["separation"].value, "level": verdict.level,
             "cause": verdict.cause}
        )  # fmt: skip
    return found


def find_drops(reference: Sources, sample: Sources) -> tuple[float, float]:
    """Return what the accuracy is below the reference's, as it is and in the sample's mix."""
    right = [side.probabilities.argmax(axis=1) == side.labels for side in (reference, sample)]
    assert reference.labels is not None and sample.labels is not None
    by_class = np.array([right[0][reference.labels == k].mean() for k in (0, 1)])
    mix = np.bincount(sample.labels, minlength=2) / len(sample)
    own = float(right[1].mean())
    return float(right[0].mean()) - own, float(by_class @ mix) - own


if __name__ == "__main__":
    sys.exit(main())
