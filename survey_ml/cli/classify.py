"""`survey-ml classify`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from survey_ml.cli.group import debug_option
from survey_ml.cli.output import format_count, format_table, json_option, json_output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from survey_ml.data.cutouts import Cutout
    from survey_ml.models.classifier import Classifier
    from survey_ml.models.estimator import Estimator

READ_AT_A_TIME = 1024
"""Images that are held in memory before they are classified."""


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("--model", metavar="NAME|PATH", help="A name that `survey-ml models list` knows, or a file.")
@click.option(
    "--batch-size",
    default=64,
    show_default=True,
    type=click.IntRange(min=1),
    help="Images that are classified at a time; results do not depend on it.",
)
@click.option("--uncertainty", is_flag=True, help="Also say how far each class can be trusted.")
@click.option(
    "--posterior",
    metavar="NAME|PATH",
    help="Posterior over the model's weights for --uncertainty: the one that comes with it unless given.",
)
@json_option
@debug_option
@click.pass_context
def classify(
    ctx: click.Context,
    inputs: tuple[str, ...],
    model: str | None,
    batch_size: int,
    uncertainty: bool,
    posterior: str | None,
    as_json: bool,
) -> None:
    """Classify cutouts of radio sources by their shape.

    INPUT is a FITS or PNG image, an .npy array of images (n, y, x), or a folder of them; a source is in the
    middle of each. Floating-point images are clipped by their own noise; 8-bit ones are taken as
    clipped already. They are cut or padded to the size that the model looks at, and
    resampled when a FITS header says that their pixels differ from those of the training.

    With --uncertainty every row also has entropies in nats, the overlap of the two most probable classes, the
    margin between them, calibrated probabilities, and the set that holds the true class of 90 % of sources.

    Exit code 0: all were classified; 1: some could not be read, and are named; 2: none could.
    """
    from survey_ml.models.classifier import load_classifier
    from survey_ml.models.spec import DEFAULT

    with json_output(as_json) as emit:
        if posterior is not None and not uncertainty:
            from survey_ml.errors import ConfigError

            raise ConfigError(
                "--posterior says who judges classes, which was not asked for", "add --uncertainty"
            )
        classifier = load_classifier(DEFAULT if model is None else model)
        estimator = _find_estimator(classifier, model, posterior) if uncertainty else None
        rows: list[dict[str, Any]] = []
        faults: list[dict[str, str]] = []
        for part in _split(_read(inputs, faults), max(READ_AT_A_TIME, batch_size)):
            rows += _classify(part, classifier, batch_size, estimator)
        if rows:
            found = {"model": classifier.card.name, "hash": classifier.hash, "classes": classifier.classes}
            emit(found | {"rows": rows} | ({"failed": faults} if faults else {}))
    for fault in faults:
        click.echo(f"not read: {fault['input']}: {fault['cause']}", err=True)
        if fault["hint"]:
            click.echo(f"  hint: {fault['hint']}", err=True)
    if not rows:
        from survey_ml.errors import InputError

        raise InputError("no image could be read", "give FITS or PNG images, .npy arrays, or folders of them")
    if not as_json:
        more = ("calibrated", "entropy", "mutual_information", "set") if uncertainty else ()
        header = ("input", "index", "class", *(f"p({name})" for name in classifier.classes), *more, "flags")
        lines = [
            (
                row["input"],
                row["index"],
                row["class"],
                *row["p"].values(),
                *(_show(row, key) for key in more),
                " ".join(row["flags"]),
            )
            for row in rows
        ]
        click.echo(format_table(header, lines))
        click.echo(f"\n{format_count(len(rows), 'image')} by {classifier.label}")
    ctx.exit(1 if faults else 0)


def _show(row: dict[str, Any], key: str) -> Any:
    """Return what the table shows of a source: of calibrated probabilities that of its class."""
    if not row["class"]:
        return ""
    if key == "calibrated":
        return row[key][row["class"]]
    return "|".join(row[key]) or "none" if key == "set" else row[key]


def _read(inputs: tuple[str, ...], faults: list[dict[str, str]]) -> Iterator[Cutout]:
    """Yield what can be read; note what cannot."""
    from survey_ml.data.cutouts import UnreadableCutout, read_cutouts

    for one in read_cutouts(inputs):
        if isinstance(one, UnreadableCutout):
            faults.append({"input": one.input, "cause": one.cause, "hint": one.remedy})
        else:
            yield one


def _split(cutouts: Iterable[Cutout], size: int) -> Iterator[list[Cutout]]:
    part: list[Cutout] = []
    for one in cutouts:
        part.append(one)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _find_estimator(classifier: Classifier, model: str | None, posterior: str | None) -> Estimator:
    """Return what judges a classifier's classes."""
    from survey_ml.models.estimator import METHOD, find_estimator

    if posterior is None and classifier.card.is_bayesian:
        posterior = model
    method = METHOD if posterior is None else ""
    return find_estimator(classifier.card.name, classifier.hash, method, given=posterior)


def _classify(
    cutouts: list[Cutout], classifier: Classifier, batch_size: int, estimator: Estimator | None
) -> list[dict[str, Any]]:
    """Return one row an image, in their order."""
    import numpy as np

    from survey_ml.learning.judgement import describe_judgement
    from survey_ml.learning.preparation import prepare_image
    from survey_ml.uncertainty_flags import name_flags

    prepared = [
        prepare_image(
            one.image,
            classifier.card.preprocessing,
            pixel_arcsec=one.pixel_arcsec,
            beam_arcsec=one.beam_arcsec,
        )
        for one in cutouts
    ]
    images = np.stack([one.image for one in prepared])
    found = classifier.predict(images, batch_size)
    rows: list[dict[str, Any]] = []
    for cutout, one, probabilities in zip(cutouts, prepared, found.probabilities, strict=True):
        known = "no_data" not in one.flags
        rows.append(
            {
                "input": cutout.input,
                "index": cutout.index,
                "class": classifier.classes[int(probabilities.argmax())] if known else "",
                "p": _name_probabilities(probabilities, classifier.classes, known),
                "flags": list(one.flags),
            }
        )
    if estimator is not None:
        judged = estimator.judge(found.embedding, images if estimator.needs_images else None)
        for number, (row, more) in enumerate(
            zip(rows, describe_judgement(judged, classifier.classes), strict=True)
        ):
            known = row["class"] != ""
            flags = row["flags"] + (name_flags(int(judged.flags[number])) if known else [])
            row |= {key: more[key] if known else _empty(more[key]) for key in more} | {"flags": flags}
    return rows


def _empty(value: Any) -> Any:
    """Return what stands for a value of an image without data."""
    if isinstance(value, dict):
        return dict.fromkeys(value)
    return [] if isinstance(value, list) else None


def _name_probabilities(
    probabilities: NDArray[np.float32], classes: tuple[str, ...], known: bool
) -> dict[str, float | None]:
    return {name: float(p) if known else None for name, p in zip(classes, probabilities, strict=True)}
