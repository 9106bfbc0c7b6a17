"""The built-in networks, trained again with several seeds, and over folds of their training images.

Run: ``python -m benchmarks.model_seeds [mirabest-d4 ...] [--seeds 5] [--folds 5] [--out model-seeds]``.

One training is that of ``survey-ml train morphology --config benchmarks/models/NAME.yaml --seed N``. What
is done is kept in the folder, and the same command goes on. Test images are the published ones,
unchanged, looked at once by each training. Folds are of the training images, by position on the sky: no
two within 30 arcsec are on both sides. ``--pack`` puts the figures of all seeds into the card of the
first, which makes the file that is shipped; where the recipe holds no validation images back, the
temperature is that of all five folds' held-out images.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.realdata import find_data
from benchmarks.reporting import Report, make_parser
from survey_ml.data.labelled.reading import read_labelled
from survey_ml.labelled import LabelledImages
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.learning.reliability import bootstrap_mean
from survey_ml.learning.scores import fit_temperature, measure_accuracy, measure_macro_f1, measure_mean
from survey_ml.learning.splits import fold_by_sky
from survey_ml.models.card import Metric
from survey_ml.models.classifier import load_classifier
from survey_ml.models.fitting import Fitting, fit_model, judge_model
from survey_ml.models.format import read_model, save_model
from survey_ml.models.posterior_fitting import Trained
from survey_ml.models.weight_fitting import (
    MONTE_CARLO_ERROR,
    calibrate_posterior,
    judge_posterior,
    sample_model,
)
from survey_ml.papers.trials import thin_images

RECIPES = Path(__file__).parent / "models"
FOLDS = 5


@dataclass(frozen=True)
class Subject:
    """A built-in model: what it is trained on, what it is tried on, and its bars."""

    data: str
    subset: str | None
    tests: dict[str, str | None]
    """What a test is called, and the subset whose test images it has."""
    figure: str
    bars: dict[str, float]
    """Bar of the mean over seeds on a test."""
    source: str
    at_most: bool = False
    """Whether the figure is an error."""


MIRABEST = "MiraBest Confident, training batches (Porter & Scaife 2023; Miraghaei & Best 2017; FIRST)"
FIRSTGALAXY = "firstgalaxydata (Griese et al. 2023; FIRST), training images"
SUBJECTS = {
    "mirabest-d4": Subject(
        "mirabest", "confident",
        {"MiraBest Confident test": "confident", "MiraBest Confident and Uncertain test": "no-hybrid"},
        "accuracy",
        {"MiraBest Confident test": 0.95, "MiraBest Confident and Uncertain test": 0.87}, MIRABEST,
    ),
    "mirabest-attention": Subject(
        "mirabest", "confident",
        {"MiraBest Confident test": "confident", "MiraBest Confident and Uncertain test": "no-hybrid"},
        "accuracy",
        {"MiraBest Confident test": 0.93, "MiraBest Confident and Uncertain test": 0.87}, MIRABEST,
    ),
    "mirabest-bayes": Subject(
        "mirabest", "confident", {"MiraBest Confident test": "confident"}, MONTE_CARLO_ERROR,
        {"MiraBest Confident test": 0.08}, MIRABEST, at_most=True,
    ),
    "firstgalaxy-d4": Subject(
        "firstgalaxy", None, {"firstgalaxydata test": None}, "macro F1", {"firstgalaxydata test": 0.86},
        FIRSTGALAXY,
    ),
    "firstgalaxy-attention": Subject(
        "firstgalaxy", None, {"firstgalaxydata test": None}, "macro F1", {"firstgalaxydata test": 0.86},
        FIRSTGALAXY,
    ),
}  # fmt: skip


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="built-in models; all unless given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=0, help="of five, that are trained")
    parser.add_argument("--epochs", type=int, help="others than the recipe's, to see that it runs")
    parser.add_argument("--every", type=int, default=1, help="train on every n-th image only")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; all cores unless given")
    parser.add_argument("--out", type=Path, default=Path("model-seeds"), help="folder of the trainings")
    parser.add_argument("--pack", action="store_true", help="put the figures into the card of the first seed")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(SUBJECTS)):
        sys.exit(f"no recipe of {', '.join(unknown)}; there are {', '.join(SUBJECTS)}")
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    settings = {"seeds": options.seeds, "folds": options.folds, "every": options.every}
    report = Report("Seeds and folds of the built-in networks", settings)
    for name in options.names or SUBJECTS:
        add_model(report, name, options)
    return report.finish(options.json)


def add_model(report: Report, name: str, options: Any) -> None:
    """Train all seeds and folds of one model, and add its table and bars."""
    subject = SUBJECTS[name]
    if subject.data == "mirabest":
        find_data()
    fitting = Fitting.model_validate(yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8")))
    if options.epochs:
        fitting = fitting.model_copy(update={"recipe": {**fitting.recipe, "epochs": options.epochs}})
    images = read_labelled(subject.data, subject.subset)
    train = thin_images(images.take(images.split != "test"), options.every)
    tests = {what: read_labelled(subject.data, part, "test") for what, part in subject.tests.items()}
    folder = options.out / name
    rows, found = [], []
    for seed in range(options.seeds):
        path = train_once(folder / f"seed-{seed}", train, fitting.model_copy(update={"seed": seed}), subject)
        for what, data in tests.items():
            row = {"training": f"seed {seed}", "on": what, **judge(path, data)}
            rows.append(row)
            print(f"{name} {row}", file=sys.stderr, flush=True)
    for what in tests:
        mean = measure_mean([row[subject.figure] for row in rows if row["on"] == what])
        found.append(
            Metric(
                quantity=f"{subject.figure}, mean over seeds", value=mean.value, n=mean.n, data=what,
                low=mean.low if mean.n > 1 else None, high=mean.high if mean.n > 1 else None,
            )
        )  # fmt: skip
        shown = f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}] of {mean.n} seeds"
        bar = subject.bars[what]
        passed = mean.value <= bar if subject.at_most else mean.value >= bar
        limit = f"at {'most' if subject.at_most else 'least'} {bar}"
        report.add_bar(f"{name}: mean {subject.figure}, {what}", shown, limit, passed)
    temperature, folds = 0.0, list[Trained]()
    if options.folds:
        row, metric, temperature, folds = validate_folds(folder, train, fitting, subject, options.folds)
        rows.append({key: row.get(key, "") for key in rows[0]})
        found.append(metric)
    report.add_table(name, rows)
    if options.pack:
        if len(folds) < FOLDS or fitting.validation:
            temperature, folds = 0.0, []
        pack(folder, fitting, found, options.seeds, tests, train, folds, temperature)


def train_once(folder: Path, train: LabelledImages, fitting: Fitting, subject: Subject) -> Path:
    """Return the model of a training, which is done now unless it was before."""
    path = folder / f"{fitting.name}.safetensors"
    if not path.is_file() or (folder / "checkpoint.pt").is_file():
        fit_model(train, fitting, folder, source=subject.source)
    return path


def judge(path: Path, data: LabelledImages) -> dict[str, Any]:
    """Return accuracy and macro F1 of a model, with intervals over the images."""
    classifier = load_classifier(path, "torch")
    prepared = prepare_images(data, classifier.card.preprocessing.side)
    found = describe(classifier.predict(prepared).probabilities.argmax(axis=1), data.labels, data.classes)
    if classifier.card.is_bayesian:
        for metric in judge_posterior(path, data, ""):
            found |= {metric.quantity: metric.value, f"{metric.quantity} 95 %": [metric.low, metric.high]}
    return found


def describe(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: Sequence[str]
) -> dict[str, Any]:
    """Return accuracy and macro F1 of labels, with intervals, for a row of the table."""
    accuracy, macro = measure_accuracy(predicted, labels), measure_macro_f1(predicted, labels, len(classes))
    return {
        "n": accuracy.n,
        "wrong": int((predicted != labels).sum()),
        "accuracy": accuracy.value,
        "accuracy 95 %": [accuracy.low, accuracy.high],
        "macro F1": macro.value,
        "macro F1 95 %": [macro.low, macro.high],
    }


def validate_folds(
    folder: Path, train: LabelledImages, fitting: Fitting, subject: Subject, folds: int
) -> tuple[dict[str, Any], Metric, float, list[Trained]]:
    """Train on four fifths of the training images and try on the rest, for each of the folds.

    What is returned last is the temperature of all held-out images, and the networks with what each has seen.
    """
    number = fold_by_sky(train.ra, train.dec, FOLDS, 0, labels=train.labels)
    logits = np.zeros((len(train.labels), len(train.classes)), np.float32)
    errors = np.full(len(train.labels), np.nan)
    trained = []
    for fold in range(folds):
        held = number == fold
        path = train_once(folder / f"fold-{fold}", train.take(~held), fitting, subject)
        trained.append(Trained(path, train.take(~held), train.take(held)))
        classifier = load_classifier(path, "torch")
        prepared = prepare_images(train.take(held), classifier.card.preprocessing.side)
        logits[held] = classifier.predict(prepared).logits
        if classifier.card.is_bayesian:
            samples = sample_model(path, train.take(held))
            errors[held] = (samples.argmax(axis=2) != train.labels[held]).mean(axis=0)
    seen, predicted = number < folds, logits.argmax(axis=1)
    what = f"training images, {folds} of {FOLDS} folds by sky position"
    row = {
        "training": f"{folds} folds",
        "on": what,
        **describe(predicted[seen], train.labels[seen], train.classes),
    }
    if np.isfinite(errors).any():
        score = bootstrap_mean(errors[seen])
        row |= {MONTE_CARLO_ERROR: score.value, f"{MONTE_CARLO_ERROR} 95 %": [score.low, score.high]}
    low, high = row[f"{subject.figure} 95 %"]
    metric = Metric(
        quantity=subject.figure, value=row[subject.figure], low=low, high=high, n=row["n"], data=what
    )
    return row, metric, fit_temperature(logits[seen], train.labels[seen]), trained


def pack(
    folder: Path,
    fitting: Fitting,
    found: list[Metric],
    seeds: int,
    tests: dict[str, LabelledImages],
    train: LabelledImages,
    folds: list[Trained],
    temperature: float,
) -> None:
    """Write the model of the first seed with the figures of all seeds in its card.

    A temperature of 0 leaves that of the card as it is. A posterior is calibrated by the folds, if there are.
    """
    path = folder / "seed-0" / f"{fitting.name}.safetensors"
    arrays, card, _ = read_model(path)
    path = folder / path.name
    if temperature:
        card = card.model_copy(update={"temperature": round(temperature, 4)})
    save_model(path, arrays, card)
    if card.is_bayesian and folds:
        said = f"{card.training.data}, {FOLDS} folds by sky position"
        calibration, known = calibrate_posterior(path, train, folds, said)
        arrays, card = arrays | known, card.model_copy(update={"calibration": calibration})
        save_model(path, arrays, card)
    classifier = load_classifier(path, "torch")
    own = [metric for what, data in tests.items() for metric in judge_model(classifier, data, what)]
    if card.is_bayesian:
        own += [metric for what, data in tests.items() for metric in judge_posterior(path, data, what)]
    training = card.training.model_copy(update={"seeds": tuple(range(seeds))})
    # What is said of a model may be said anew without another training.
    words = {"version", "licence", "intended_use", "limits"} & fitting.model_fields_set
    said = {key: getattr(fitting, key) for key in words}
    kept = tuple(metric for metric in card.metrics if metric.data == "validation")
    save_model(
        path, arrays,
        card.model_copy(update={"training": training, "metrics": (*kept, *own, *found), **said}),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
