"""From FITS to label: cutouts of FIRST fields against the images that MiraBest publishes of them.

Run: ``python -m benchmarks.first_labels [--n 600] [--seed 1] [--model mirabest-d4]``.

The sources of each field are found and measured as a release does, and the stage `morphology` shows the
one in the middle to its model: at the catalogue's position, which is the middle of each file, and at the
position that was found, which is that of the brightest source within 30 arcsec. The published images are
the middle of the same pixels, clipped and scaled to 8 bits. Correlations are Pearson's over all pixels;
images that are empty have none and are counted apart.
Found positions differ from the catalogue's, so that such cutouts are those of the published images
shifted: their correlation is over the pixels that both show, and the shift is given.
With a model that is not there, the cutouts are compared and the labels left out.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.first_fields import BEAM, choose_fields
from benchmarks.realdata import find_data, read_field
from benchmarks.reporting import Report, make_parser
from survey_ml.config import Defaults
from survey_ml.data.labelled.mirabest import ARCHIVE, MiraBest, read_mirabest_table
from survey_ml.errors import SurveyMLError
from survey_ml.learning.preprocessing import Preprocessing, scale_bytes
from survey_ml.measure import measure_image
from survey_ml.stages.morphology.stage import Morphology, MorphologyOptions
from survey_ml.validation.completeness import measure_share

NEAR = 30.0
"""arcsec from the middle within which the brightest source is the one that is meant."""

Image = NDArray[np.float32]


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--n", type=int, default=600, help="fields, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="mirabest-d4", help="a model by name or path")
    options = parser.parse_args()
    paths = choose_fields(find_data("first_fields"), options.n, options.seed)
    published = read_mirabest_table(find_data(*ARCHIVE.split("/")))
    stage, why = open_stage(options.model)
    settings = {"fields": len(paths), "seed": options.seed, "model": why or stage.classifier.label}
    report = Report("FIRST fields to labels", settings)
    rows = [compare_field(path, published, stage) for path in paths]
    add_rows(report, rows, not why)
    return report.finish(options.json)


def open_stage(model: str) -> tuple[Morphology, str]:
    """Return the stage, and why it has no model; without one it still cuts."""
    try:
        stage = Morphology(MorphologyOptions(model=model))
        stage.setup()
    except SurveyMLError as error:
        from types import SimpleNamespace

        stage = Morphology(MorphologyOptions())
        stage.classifier = SimpleNamespace(card=SimpleNamespace(preprocessing=Preprocessing()))
        return stage, f"none: {error.message}"
    return stage, ""


def compare_field(path: Path, published: MiraBest, stage: Morphology) -> dict[str, Any]:
    """Compare the cutouts of one field with its published image."""
    name = path.name.removesuffix(".fits.fz")
    field, image = read_field(path, name, Defaults(beam_arcsec=BEAM, frequency_hz=1.4e9, unit="Jy/beam"))
    index = int(np.flatnonzero(published.names == name)[0])
    wanted = scale_bytes(published.images[index])
    found = measure_image(image, field)
    row: dict[str, Any] = {
        "code": int(published.code[index]),
        "middle": np.nan, "found": np.nan, "shift": np.nan, "labels": ["", "", ""],
        "empty": [not wanted.any(), False],
    }  # fmt: skip
    sources = found["sources"]
    middle = [(length - 1) / 2 for length in image.shape]
    away = np.hypot(sources["x"] - middle[1], sources["y"] - middle[0]) * field.pixel_scale
    near = np.flatnonzero(away <= NEAR)
    chosen = near[np.argmax(sources["total_flux"][near])] if len(near) else None
    places = [(middle[1], middle[0])]
    if chosen is not None:
        places.append((float(sources["x"][chosen]), float(sources["y"][chosen])))
        row["away"] = float(away[chosen])
    table = {
        "source_id": np.arange(len(places)),
        "island_id": np.full(len(places), -1),
        "n_components": np.full(len(places), 2),
        "x": np.array([x for x, _ in places]),
        "y": np.array([y for _, y in places]),
        "local_rms": np.array([found["rms"][int(y + 0.5), int(x + 0.5)] for x, y in places], float),
        "resolved": np.ones(len(places), bool),
    }
    images: dict[int, Image] = {}
    for views in stage.show(image, field, table, found["islands"]):
        images |= dict(zip(views.rows.tolist(), views.images, strict=True))
    row["empty"][1] = not images[0].any()
    row["middle"] = correlate(images[0], wanted)
    if 1 in images:
        shift = [
            int(np.floor(b + 0.5) - np.floor(a + 0.5)) for a, b in zip(places[0], places[1], strict=True)
        ]
        row["shift"] = float(np.hypot(*shift))
        row["found"] = correlate(*overlap(images[1], wanted, shift[0], shift[1]))
    if hasattr(stage.classifier, "predict"):
        stack = np.stack([wanted, images[0], images.get(1, np.zeros_like(wanted))])
        best = stage.classifier.predict(stack).probabilities.argmax(axis=1)
        row["labels"] = [stage.classifier.classes[k] for k in best]
        if 1 not in images:
            row["labels"][2] = ""
    return row


def correlate(one: Image, other: Image) -> float:
    """Return Pearson's correlation over all pixels; NaN where one of them is empty."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) if one.any() and other.any() else np.nan


def overlap(found: Image, published: Image, dx: int, dy: int) -> tuple[Image, Image]:
    """Return the parts of two cutouts that show the same sky; the first is shifted by dx and dy pixels."""
    ny, nx = found.shape
    return (
        found[max(0, -dy) : ny - max(0, dy), max(0, -dx) : nx - max(0, dx)],
        published[max(0, dy) : ny + min(0, dy), max(0, dx) : nx + min(0, dx)],
    )


def add_rows(report: Report, rows: list[dict[str, Any]], labelled: bool) -> None:
    """Put tables and bars into the report."""
    table = []
    for what in ("middle", "found"):
        values = np.array([row[what] for row in rows])
        good = values[np.isfinite(values)]
        table.append(
            {
                "position": {"middle": "catalogue", "found": "found"}[what],
                "compared": len(good),
                "median": float(np.median(good)),
                "5 %": float(np.percentile(good, 5)),
                "least": float(good.min()),
            }
        )
    report.add_table("correlation with the published images", table)
    shift = np.array([row["shift"] for row in rows])
    report.notes.append(
        f"published images that are empty: {sum(row['empty'][0] for row in rows)}; ours: "
        f"{sum(row['empty'][1] for row in rows)}. Fields without a source within {NEAR:g} arcsec: "
        f"{int(np.isnan(shift).sum())}. Pixels from the catalogue's position to the one found: median "
        f"{np.nanmedian(shift):.1f}, 95 % {np.nanpercentile(shift, 95):.1f}."
    )
    first = table[0]
    report.add_bar(
        "correlation at the catalogue's position, median",
        first["median"],
        ">= 0.995",
        first["median"] >= 0.995,
    )
    report.add_bar("the same, 5th percentile", first["5 %"], ">= 0.98", first["5 %"] >= 0.98)
    if not labelled:
        return
    confident = np.array([re.fullmatch(r"[12]0\d", str(row["code"])) is not None for row in rows])
    labels = np.array([row["labels"] for row in rows])
    true = np.array(["FRI" if row["code"] < 200 else "FRII" for row in rows])
    lines = []
    for k, what in ((1, "catalogue"), (2, "found")):
        have = confident & (labels[:, k] != "")
        same = labels[have, k] == labels[have, 0]
        right, ideal = labels[have, k] == true[have], labels[have, 0] == true[have]
        lines.append(
            {
                "position": what,
                "Confident sources": int(have.sum()),
                "label of the published image": measure_share(same),
                "true label": measure_share(right),
                "of the published image": measure_share(ideal),
            }
        )
        if k == 1:
            report.add_bar(
                "same label, Confident, at the catalogue's position",
                measure_share(same),
                ">= 0.97",
                same.mean() >= 0.97,
            )
    report.add_table("labels (most of these sources trained the model: no measure of its accuracy)", lines)


if __name__ == "__main__":
    sys.exit(main())
