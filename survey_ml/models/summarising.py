"""The reference summary of a model that was just trained, from images that it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from survey_ml.labelled import LabelledImages
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.models.card import Base
from survey_ml.models.classifier import load_classifier
from survey_ml.models.fitting import Fitting, divide_images
from survey_ml.models.reference import SUFFIX, make_reference, save_reference
from survey_ml.models.shift import describe_images

LEAST_IMAGES = 20
"""With fewer nothing could be compared."""


def choose_held_out(
    images: LabelledImages, test: LabelledImages, fitting: Fitting
) -> tuple[LabelledImages, str] | None:
    """Return images for a summary, and which they are.

    Test images, which had no part in the training at all; where there are none, validation images, which
    chose the epoch and the temperature but no weight. None where neither are enough.
    """
    for part, said in ((test, "test images"), (divide_images(images, fitting)[1], "validation images")):
        if len(part.labels) >= LEAST_IMAGES:
            return part, said
    return None


def summarise_images(path: Path, images: LabelledImages, data: str) -> Path:
    """Write the reference summary of a model beside its file.

    Parameters
    ----------
    path : Path
        Of the model.
    images : LabelledImages
        Of its classes; it was trained on none of them.
    data : str
        What they are.

    Returns
    -------
    Path
        Of the summary.
    """
    classifier = load_classifier(path, threads=1)
    wanted = classifier.card.preprocessing
    labels = np.asarray(images.labels, np.int64)
    sources = describe_images(classifier, prepare_images(images, wanted.side), labels=labels)
    made = make_reference(
        Base(name=classifier.card.name, hash=classifier.hash),
        sources,
        classifier.classes,
        beam=wanted.beam_arcsec / wanted.pixel_arcsec,
        data=data,
    )
    place = path.with_suffix(SUFFIX)
    save_reference(made, place)
    return place
