"""Whether a network that saw FIRST images smoothed to wider beams knows the classes of NVSS images.

Run: ``python -m benchmarks.shift_augmentation [--seeds 3] [--out model-seeds]``.

The same network is trained on FIRST images, those of MiraBest's Confident training sources and of the
catalogues of Gendre and Capetti in firstgalaxydata, as they are and with half of them smoothed to beams of up
to 45 arcsec with noise of that beam (``benchmarks/models/beam-d4.yaml``). No NVSS image is seen in training.
Training images that look like one of FR-DEEP's FIRST images, which are of the sources that its NVSS images
show, are left out. NVSS images are brought to FIRST's pixels: 270 arcsec are seen. What is done is kept in
the folder, and the same command goes on.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from benchmarks.model_seeds import RECIPES
from benchmarks.reporting import Report, make_parser
from benchmarks.shift_sets import smooth_to_nvss, zoom
from survey_ml.data.labelled.reading import read_labelled
from survey_ml.labelled import LabelledImages, join_images
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.learning.scores import measure_accuracy, measure_mean
from survey_ml.models.classifier import Classifier, load_classifier
from survey_ml.models.fitting import Fitting, fit_model
from survey_ml.papers.bowles2020_attention import leave_out_alike
from survey_ml.papers.pool_sets import read_sets
from survey_ml.papers.trials import SIDE, thin_images

PLAIN, BEAMS = "as they are", "half with other beams"
FIRST, SMOOTHED, NVSS = "MiraBest Confident test", "the same at 45 arcsec", "FR-DEEP NVSS"
SOURCE = "MiraBest Confident, training batches, and catalogues of firstgalaxydata (FIRST)"
LEAST, MOST_LOST = 0.65, 0.02


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="others than the recipe's, to see that it runs")
    parser.add_argument("--every", type=int, default=1, help="train on every n-th image only")
    parser.add_argument("--out", type=Path, default=Path("model-seeds"), help="folder of the trainings")
    options = parser.parse_args()
    # More threads make trainings irreproducible in the last digits, and slower where cores are busy.
    torch.set_num_threads(1)
    known, test, others = read_sets()
    nvss, shown = read_labelled("frdeep-nvss"), read_labelled("frdeep-first")
    parts = [cut_images(leave_out_alike(one, shown)) for one in (known, *others.values())]
    train = thin_images(join_images(parts), options.every)
    # Published validation images of some are training images here: nothing is chosen by them.
    train = replace(train, split=np.full(len(train), "train"))
    report = Report(
        "Training images with other beams", {"seeds": options.seeds, "training images": len(train)}
    )
    fitting = Fitting.model_validate(yaml.safe_load((RECIPES / "beam-d4.yaml").read_text(encoding="utf-8")))
    if options.epochs:
        fitting = fitting.model_copy(update={"recipe": {**fitting.recipe, "epochs": options.epochs}})
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for arm in (PLAIN, BEAMS):
            path = train_once(
                options.out / fitting.name, train, fitting.model_copy(update={"seed": seed}), arm
            )
            rows += [
                {"trained on images": arm, "seed": seed, **row}
                for row in judge(load_classifier(path), test, nvss)
            ]
            print(rows[-3:], file=sys.stderr, flush=True)
    report.add_table("Accuracy", rows)
    add_means(report, rows)
    return report.finish(options.json)


def cut_images(data: LabelledImages) -> LabelledImages:
    """Return the middle of larger images."""
    low = (data.images.shape[1] - SIDE) // 2
    return replace(data, images=data.images[:, low : low + SIDE, low : low + SIDE])


def train_once(folder: Path, train: LabelledImages, fitting: Fitting, arm: str) -> Path:
    """Return the model of a training, which is done now unless it was before."""
    if arm == PLAIN:
        recipe = {key: value for key, value in fitting.recipe.items() if key != "observation"}
        fitting = fitting.model_copy(update={"recipe": recipe})
    own = folder / f"{'plain' if arm == PLAIN else 'beams'}-{fitting.seed}"
    path = own / f"{fitting.name}.safetensors"
    if not path.is_file() or (own / "checkpoint.pt").is_file():
        fit_model(train, fitting, own, source=SOURCE)
    return path


def judge(classifier: Classifier, test: LabelledImages, nvss: LabelledImages) -> list[dict[str, Any]]:
    """Return a row of accuracy for each test."""
    own = prepare_images(test, classifier.card.preprocessing.side)
    tests: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]] = {
        FIRST: (own, test.labels),
        SMOOTHED: (smooth_to_nvss(own, classifier), test.labels),
        NVSS: (zoom(nvss, classifier), nvss.labels),
    }
    rows = []
    for name, (images, labels) in tests.items():
        predicted = classifier.predict(images).probabilities.argmax(axis=1)
        right = measure_accuracy(predicted, labels)
        rows.append(
            {"on": name, "n": right.n, "accuracy": right.value, "95 %": [right.low, right.high],
             "called FRI": float((predicted == 0).mean())}
        )  # fmt: skip
    return rows


def add_means(report: Report, rows: list[dict[str, Any]]) -> None:
    """Add means over seeds, and the bars."""
    found = {
        (arm, name): np.array(
            [row["accuracy"] for row in rows if (row["trained on images"], row["on"]) == (arm, name)]
        )
        for arm in (PLAIN, BEAMS)
        for name in (FIRST, SMOOTHED, NVSS)
    }
    means = {key: measure_mean(values) for key, values in found.items()}
    report.add_table(
        "Means over seeds",
        [
            {"trained on images": arm, "on": name, "accuracy": mean.value, "95 %": [mean.low, mean.high]}
            for (arm, name), mean in means.items()
        ],
    )
    mean, before = means[BEAMS, NVSS], means[PLAIN, NVSS].value
    report.add_bar(
        f"6. {NVSS}, from {before:.3f}", f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]", f"{LEAST}",
        mean.value >= LEAST,
    )  # fmt: skip
    lost = measure_mean(found[PLAIN, FIRST] - found[BEAMS, FIRST])
    report.add_bar(
        f"6. lost on {FIRST}", f"{lost.value:.4f} [{lost.low:.4f}, {lost.high:.4f}]", f"below {MOST_LOST}",
        lost.value < MOST_LOST,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
