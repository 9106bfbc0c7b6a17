"""The pool of `survey-ml train morphology --semi-supervised`: read, freed of leaks, and judged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from survey_ml.cli.output import format_count

if TYPE_CHECKING:
    from survey_ml.labelled import LabelledImages
    from survey_ml.models.classifier import Classifier
    from survey_ml.models.fitting import Fitting
    from survey_ml.models.semi_supervised import Pool


def open_pool(
    source: str,
    model: str | None,
    images: LabelledImages,
    test: LabelledImages,
    fitting: Fitting,
    *,
    anyway: bool = False,
) -> Pool:
    """Return a pool without images of validation and test sources, and say what is wrong with it.

    Parameters
    ----------
    source : str
        As ``survey-ml shift pool`` takes it.
    model : str, optional
        That the pool is judged by: the default model when it has the classes.
    images, test : LabelledImages
    fitting : Fitting
    anyway : bool
        Whether a pool that is not safe is returned nevertheless.

    Raises
    ------
    ConfigError
        When the pool is not safe.
    """
    import numpy as np

    from survey_ml.errors import ConfigError
    from survey_ml.models.fitting import divide_images
    from survey_ml.models.semi_supervised import find_doubts, remove_held

    train, valid = divide_images(images, fitting)
    pool, gone = remove_held(read_images(source, images.subtracted), valid, test)
    if gone:
        which = f"{format_count(gone, 'image')} within 30 arcsec of validation or test images"
        click.echo(f"left out of the pool: {which}", err=True)
    for what, ra in (("the pool has", pool.ra), ("the labelled images have", images.ra)):
        if not np.isfinite(ra).any():
            click.echo(f"{what} no positions: whether test images are in the pool is not known", err=True)
    judge = _find_judge(model, images.classes)
    if judge is None:
        click.echo(
            f"the pool was not compared with the labelled images: there is no model of "
            f"{', '.join(images.classes)}; name one with --pool-model",
            err=True,
        )
        return replace(pool, doubts=("nothing told whether they are like the labelled ones",))
    doubts = find_doubts(judge, pool, {"train": train, "valid": valid, "test": test})
    if doubts and not anyway:
        raise ConfigError(
            f"{source} is not safe to learn from: {'; '.join(doubts)}",
            "give images like the labelled ones, leave --semi-supervised out, or insist with --pool-anyway",
        )
    for doubt in doubts:
        click.echo(f"the pool is not safe, and taken nevertheless: {doubt}", err=True)
    return replace(pool, doubts=tuple(doubts))


def read_images(source: str, subtracted: bool) -> Pool:
    """Read a pool, each image as a model that is trained on the labelled ones wants to see it."""
    import numpy as np

    from survey_ml.data.pools import read_pool
    from survey_ml.errors import InputError
    from survey_ml.learning.preparation import prepare_image
    from survey_ml.learning.preprocessing import Preprocessing
    from survey_ml.models.semi_supervised import Pool

    wanted, rows, empty = Preprocessing(subtract_clip=subtracted), [], 0
    for one in read_pool(source):
        cutout = one.cutout
        made = prepare_image(
            cutout.image, wanted, pixel_arcsec=cutout.pixel_arcsec, beam_arcsec=cutout.beam_arcsec
        )
        if "no_data" in made.flags or "empty" in made.flags:
            empty += 1
            continue
        rows.append((made.image, one.name, one.ra, one.dec))
    if empty:
        click.echo(f"left out: {format_count(empty, 'image')} with nothing in them", err=True)
    if not rows:
        raise InputError(f"{source}: no image has anything in it", "give images of sources")
    images, names, ra, dec = zip(*rows, strict=True)
    return Pool(np.stack(images), np.array(names, np.str_), np.array(ra), np.array(dec), source)


def _find_judge(model: str | None, classes: tuple[str, ...]) -> Classifier | None:
    from survey_ml.errors import ConfigError
    from survey_ml.models.classifier import load_classifier
    from survey_ml.models.registry import find_model
    from survey_ml.models.spec import DEFAULT

    classifier = load_classifier(find_model(DEFAULT if model is None else model).path)
    if sorted(classifier.classes) == sorted(classes):
        return classifier
    if model is not None:
        raise ConfigError(
            f"the labelled images are of {', '.join(classes)}, {model} of {', '.join(classifier.classes)}",
            "name a model of these classes with --pool-model",
        )
    return None
