"""Posteriors over weights of the built-in networks: how far their classes can be trusted.

Run: ``python -m benchmarks.posteriors [mirabest-d4 ...] [--method laplace] [--shipped] [--out model-seeds]
[--pack]``.

Calibrated on images that no network saw: for MiraBest those of five folds by position on the sky, each by
the network that was trained on the other four (``benchmarks.model_seeds --folds 5`` trains them), for
firstgalaxydata the published validation images. Then the published test images are looked at, population by
population: a model that is right about Confident sources is not about Uncertain ones. ``--pack`` puts the
files where the built-in models lie. ``mirabest-bayes`` has its posterior in itself, and is only tried.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.model_seeds import FOLDS, SUBJECTS
from benchmarks.realdata import find_data
from benchmarks.reporting import Report, make_parser
from survey_ml.data.labelled.reading import read_labelled
from survey_ml.labelled import LabelledImages
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.learning.reliability import measure_auroc, measure_ece
from survey_ml.learning.scores import Score
from survey_ml.learning.splits import fold_by_sky
from survey_ml.models.classifier import load_classifier
from survey_ml.models.estimator import find_estimator
from survey_ml.models.format import read_card
from survey_ml.models.posterior_fitting import Trained, fit_posterior
from survey_ml.models.registry import find_model
from survey_ml.papers.trials import thin_images

NAMES = ("mirabest-bayes", "mirabest-d4", "mirabest-attention", "firstgalaxy-attention", "firstgalaxy-d4")
HYBRID = "MiraBest Hybrid"
"""Neither FRI nor FRII: there is no right class."""
BAR = 0.05
"""Calibration error on held-out Confident images."""


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="built-in networks; all unless given")
    parser.add_argument(
        "--method", default="bayes-by-backprop", choices=["bayes-by-backprop", "mc-dropout", "laplace"]
    )
    parser.add_argument("--shipped", action="store_true", help="fit none: try those that come with networks")
    parser.add_argument("--every", type=int, default=1, help="fit to every n-th image only")
    parser.add_argument("--out", type=Path, default=Path("model-seeds"), help="folder of the trainings")
    parser.add_argument("--pack", action="store_true", help="put the files beside the built-in models")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(NAMES)):
        sys.exit(f"no posterior for {', '.join(unknown)}; there are {', '.join(NAMES)}")
    report = Report("Posteriors over weights", {"method": options.method, "every": options.every})
    for name in options.names or NAMES:
        add_posterior(report, name, options)
    return report.finish(options.json)


def add_posterior(report: Report, name: str, options: Any) -> None:
    """Fit, calibrate and try the posterior of one network."""
    subject = SUBJECTS[name]
    if subject.data == "mirabest":
        find_data()
    base = find_model(name).path
    own = read_card(base)[0].is_bayesian
    if own:
        path = base
    elif options.shipped:
        path = find_model(f"{name}-{options.method}").path
    else:
        path = fit(name, base, options)
    classifier = load_classifier(base)
    estimator = find_estimator(name, classifier.hash, "" if own else options.method, given=path)
    rows, entropies = [], {}
    for what, data in list_populations(subject.data).items():
        images = prepare_images(data, classifier.card.preprocessing.side)
        found = classifier.predict(images)
        began = time.process_time()
        judged = estimator.judge(found.embedding, images if estimator.needs_images else None)
        spent = time.process_time() - began
        entropies[what] = judged.uncertainty.entropy
        row: dict[str, Any] = {"on": what, "n": len(data.labels)}
        row |= dict.fromkeys(("accuracy", "calibrated ECE", "ECE 95 %", "in 90 % set"), "")
        if what != HYBRID:
            ece = measure_ece(judged.calibrated, data.labels)
            right = judged.calibrated.argmax(axis=1) == data.labels
            row |= {"accuracy": float(right.mean()), "calibrated ECE": ece.value}
            row["ECE 95 %"] = [ece.low, ece.high]
            row["in 90 % set"] = float(judged.sets[np.arange(len(right)), data.labels].mean())
        rows.append(
            row
            | {
                "entropy": float(judged.uncertainty.entropy.mean()),
                "mutual information": float(judged.uncertainty.mutual_information.mean()),
                "set of one": float((judged.sets.sum(axis=1) == 1).mean()),
                "CPU s": spent,
            }
        )
        if what == "MiraBest Confident test":
            report.add_bar(f"{name}: calibrated ECE, {what}", _say(ece), f"{BAR}", ece.value <= BAR)
    report.add_table(f"{name}, {estimator.card.name}", rows)
    for what, least in (("MiraBest Uncertain", 0.65), (HYBRID, 0.72)):
        if what in entropies:
            area = measure_auroc(entropies["MiraBest Confident test"], entropies[what])
            report.add_bar(
                f"{name}: AUROC of the entropy, {what}", _say(area), f"{least}", area.value >= least
            )


def fit(name: str, base: Path, options: Any) -> Path:
    """Fit and calibrate the posterior over the last layer of a network."""
    subject = SUBJECTS[name]
    images = read_labelled(subject.data, subject.subset)
    train = images.take(images.split != "test")
    if subject.data == "mirabest":
        number = fold_by_sky(train.ra, train.dec, FOLDS, 0, labels=train.labels)
        folds = [
            Trained(
                options.out / name / f"fold-{fold}" / f"{name}.safetensors",
                thin_images(train.take(number != fold), options.every),
                thin_images(train.take(number == fold), options.every),
            )
            for fold in range(FOLDS)
        ]
        if missing := [str(one.path) for one in folds if not one.path.is_file()]:
            sys.exit(f"{missing[0]} is not there: python -m benchmarks.model_seeds {name} --folds {FOLDS}")
        held = f"MiraBest Confident training images, {FOLDS} folds by sky position"
    else:
        held_out = train.take(train.split == "valid")
        train = train.take(train.split == "train")
        folds = [Trained(base, thin_images(train, options.every), held_out)]
        held = "firstgalaxydata validation images, which also chose the epoch"
    out = base.parent if options.pack else options.out / "posteriors"
    train = thin_images(train, options.every)
    return fit_posterior(base, train, folds, out, method=options.method, held=held, source=subject.source)


def list_populations(data: str) -> dict[str, LabelledImages]:
    """Return test images by population; of MiraBest all that no network was trained on."""
    if data != "mirabest":
        return {"firstgalaxydata test": read_labelled(data, None, "test")}
    return {
        "MiraBest Confident test": read_labelled(data, "confident", "test"),
        "MiraBest Uncertain test": read_labelled(data, "uncertain", "test"),
        "MiraBest Uncertain": read_labelled(data, "uncertain"),
        HYBRID: read_labelled(data, "hybrid"),
    }


def _say(score: Score) -> str:
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}] of {score.n}"


if __name__ == "__main__":
    sys.exit(main())
