"""Reference summaries of the built-in models, from published test images, which none was trained on.

Run: ``python -m benchmarks.references [mirabest-d4 ...] [--out FOLDER] [--pack]``.

For MiraBest these are the Confident and Uncertain test images together, in their natural proportion: a
survey has both. ``--pack`` puts the files beside the models. The bars are that each is small, comes back as
it was written, and finds its own images green.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.reporting import Report, make_parser
from survey_ml.data.labelled.reading import read_labelled
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.models.card import Base
from survey_ml.models.classifier import load_classifier
from survey_ml.models.reference import SUFFIX, make_reference, read_reference, save_reference
from survey_ml.models.registry import find_model
from survey_ml.models.shift import compare_sets, describe_images

SOURCES = {
    "mirabest": (
        "no-hybrid",
        "MiraBest Confident and Uncertain, published test images (Porter & Scaife 2023)",
    ),
    "firstgalaxy": (None, "firstgalaxydata, published test images (Griese et al. 2023)"),
}
NAMES = (
    "mirabest-d4", "mirabest-attention", "mirabest-bayes", "firstgalaxy-d4", "firstgalaxy-attention",
    "firstgalaxy-forest",
)  # fmt: skip
LARGEST = 400_000
"""Bytes of a file."""


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="built-in models; all unless given")
    parser.add_argument("--out", type=Path, help="folder of the files; a passing one unless given")
    parser.add_argument("--pack", action="store_true", help="put the files beside the built-in models")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(NAMES)):
        sys.exit(f"no images for {', '.join(unknown)}; there are {', '.join(NAMES)}")
    report = Report("Reference summaries", {"models": ", ".join(options.names or NAMES)})
    with tempfile.TemporaryDirectory() as passing:
        rows = [
            add_reference(report, name, options.out or Path(passing), options.pack)
            for name in options.names or NAMES
        ]
    report.add_table("Files", rows)
    return report.finish(options.json)


def add_reference(report: Report, name: str, out: Path, pack: bool) -> dict[str, object]:
    """Make, write and read one summary; return a row of the table."""
    path = find_model(name).path
    classifier = load_classifier(path, threads=1)
    data = name.partition("-")[0]
    subset, said = SOURCES[data]
    images = read_labelled(data, subset, "test")
    wanted = classifier.card.preprocessing
    sources = describe_images(classifier, prepare_images(images, wanted.side), labels=images.labels)
    made = make_reference(
        Base(name=name, hash=classifier.hash),
        sources,
        classifier.classes,
        beam=wanted.beam_arcsec / wanted.pixel_arcsec,
        data=said,
    )
    place = path.with_suffix(SUFFIX) if pack else out / f"{name}{SUFFIX}"
    save_reference(made, place)
    size = place.stat().st_size
    found = read_reference(place, classifier.hash)
    report.add_bar(f"{name}: bytes", size, f"at most {LARGEST}", size <= LARGEST)
    own = compare_sets(classifier, sources, sources, found)
    report.add_bar(f"{name}: its own images", own.level, "green", own.level == "green")
    kept = found.summary
    return {
        "model": name, "n": kept.n, "classes": kept.counts, "numbers": kept.width, "bytes": size,
        "beam px": kept.quantiles["beam"], "signal to noise": kept.quantiles["signal_to_noise"] or "",
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
