"""From FITS to label: cutouts of FIRST fields against the images that are published of them.

Run: ``python -m benchmarks.first_labels [--images mirabest] [--n 600] [--seed 1] [--model mirabest-d4]``.
``--images firstgalaxy`` takes those of firstgalaxydata, of the same sources where it has them.

The sources of each field are found and measured as a release does, and the stage `morphology` shows the
one in the middle to its model: at the catalogue's position, which is the middle of each file, at the
position that was found, which is that of the brightest source within 30 arcsec, and about the middle of all
islands that belong to what was found, as a release does. The published images are the middle of the same
pixels, clipped and scaled to 8 bits; the stage does this as the card of the model says.
Correlations are Pearson's over all pixels; images that are empty have none and are counted apart.
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
from survey_ml.data.labelled.firstgalaxy import read_firstgalaxy
from survey_ml.data.labelled.mirabest import ARCHIVE, read_mirabest_table
from survey_ml.errors import SurveyMLError
from survey_ml.learning.preprocessing import Preprocessing, fit_image, scale_bytes
from survey_ml.measure import measure_image
from survey_ml.stages.morphology.stage import Morphology, MorphologyOptions
from survey_ml.validation.completeness import measure_share

NEAR = 30.0
"""arcsec from the middle within which the brightest source is the one that is meant."""

MODELS = {"mirabest": "mirabest-d4", "firstgalaxy": "firstgalaxy-attention"}
"""Published images to a model that was trained on them."""

SAME = 3.0
"""arcsec; positions in firstgalaxydata are rounded to 3.6."""

Image = NDArray[np.float32]


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--n", type=int, default=600, help="fields, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", choices=tuple(MODELS), default="mirabest", help="published images")
    parser.add_argument("--model", help="a model by name or path; by default one of these images")
    options = parser.parse_args()
    paths = choose_fields(find_data("first_fields"), options.n, options.seed)
    stage, why = open_stage(options.model or MODELS[options.images])
    published = read_published(options.images, stage.classifier.card.preprocessing.side)
    paths = [path for path in paths if name_field(path) in published]
    settings = {"fields": len(paths), "seed": options.seed, "model": why or stage.classifier.label}
    report = Report("FIRST fields to labels", settings)
    rows = [compare_field(path, published[name_field(path)], stage) for path in paths]
    add_rows(report, rows, not why, options.images == "mirabest")
    return report.finish(options.json)


def name_field(path: Path) -> str:
    """Return the name that MiraBest has for the source of a file."""
    return path.name.removesuffix(".fits.fz")


def read_published(what: str, side: int) -> dict[str, tuple[Image, str, bool]]:
    """Return the published images of MiraBest's sources.

    Returns
    -------
    dict
        MiraBest's name to the image from 0 to 1, the class, and whether labels of it are compared: not
        when MiraBest is not confident.
    """
    table = read_mirabest_table(find_data(*ARCHIVE.split("/")))
    if what == "mirabest":
        sure = [re.fullmatch(r"[12]0\d", str(code)) is not None for code in table.code.tolist()]
        kinds = ["FRI" if code < 200 else "FRII" for code in table.code.tolist()]
        images = [fit_image(scale_bytes(image), side)[0] for image in table.images]
        return dict(zip(table.names.tolist(), zip(images, kinds, sure, strict=True), strict=True))
    found = {}
    data = read_firstgalaxy()
    for name, ra, dec in zip(table.names.tolist(), table.ra, table.dec, strict=True):
        away = 3600.0 * np.hypot((data.ra - ra) * np.cos(np.radians(dec)), data.dec - dec)
        if away.min() < SAME:
            k = int(away.argmin())
            kind = data.classes[int(data.labels[k])]
            found[name] = (fit_image(scale_bytes(data.images[k]), side)[0], kind, True)
    return found


def open_stage(model: str) -> tuple[Morphology, str]:
    """Return the stage, and why it has no model; without one it still cuts."""
    try:
        stage = Morphology(MorphologyOptions(model=model, centre="position"))
        stage.setup()
    except SurveyMLError as error:
        from types import SimpleNamespace

        stage = Morphology(MorphologyOptions(centre="position"))
        stage.classifier = SimpleNamespace(card=SimpleNamespace(preprocessing=Preprocessing()))
        return stage, f"none: {error.message}"
    return stage, ""


def compare_field(path: Path, published: tuple[Image, str, bool], stage: Morphology) -> dict[str, Any]:
    """Compare the cutouts of one field with its published image."""
    defaults = Defaults(beam_arcsec=BEAM, frequency_hz=1.4e9, unit="Jy/beam")
    field, image = read_field(path, name_field(path), defaults)
    wanted, kind, sure = published
    found = measure_image(image, field)
    row: dict[str, Any] = {
        "kind": kind, "sure": sure,
        "middle": np.nan, "found": np.nan, "shift": np.nan, "labels": ["", "", "", ""],
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
    about = Morphology(stage.options.model_copy(update={"centre": "extent"}))
    about.classifier = stage.classifier
    for views in about.show(image, field, table, found["islands"], np.arange(1, len(places))):
        images[2] = views.images[0]
    row["empty"][1] = not images[0].any()
    row["middle"] = correlate(images[0], wanted)
    if 1 in images:
        shift = [
            int(np.floor(b + 0.5) - np.floor(a + 0.5)) for a, b in zip(places[0], places[1], strict=True)
        ]
        row["shift"] = float(np.hypot(*shift))
        row["found"] = correlate(*overlap(images[1], wanted, shift[0], shift[1]))
    if hasattr(stage.classifier, "predict"):
        stack = np.stack([wanted, *(images.get(k, np.zeros_like(wanted)) for k in range(3))])
        best = stage.classifier.predict(stack).probabilities.argmax(axis=1)
        row["labels"] = [stage.classifier.classes[k] for k in best]
        if 1 not in images:
            row["labels"][2:] = ["", ""]
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


def add_rows(report: Report, rows: list[dict[str, Any]], labelled: bool, barred: bool) -> None:
    """Put tables into the report, and bars where they are asked for."""
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
    if barred:
        report.add_bar(
            "correlation at the catalogue's position, median",
            first["median"],
            ">= 0.995",
            first["median"] >= 0.995,
        )
        report.add_bar("the same, 5th percentile", first["5 %"], ">= 0.98", first["5 %"] >= 0.98)
    if not labelled:
        return
    confident = np.array([row["sure"] for row in rows])
    labels = np.array([row["labels"] for row in rows])
    true = np.array([row["kind"] for row in rows])
    lines = []
    for k, what in ((1, "catalogue"), (2, "found"), (3, "middle of what was found")):
        have = confident & (labels[:, k] != "")
        same = labels[have, k] == labels[have, 0]
        right, ideal = labels[have, k] == true[have], labels[have, 0] == true[have]
        lines.append(
            {
                "position": what,
                "sources": int(have.sum()),
                "label of the published image": measure_share(same),
                "true label": measure_share(right),
                "of the published image": measure_share(ideal),
            }
        )
        if k != 2 and barred:
            report.add_bar(
                f"same label, Confident sources, {what}",
                measure_share(same),
                ">= 0.97",
                same.mean() >= 0.97,
            )
    report.add_table("labels (most of these sources trained the model: no measure of its accuracy)", lines)


if __name__ == "__main__":
    sys.exit(main())
