"""FR-DEEP (Tang, Scaife & Leahy 2019): the same 600 FRI and FRII seen by FIRST and by NVSS.

The archives are called PNG, but hold batches. Their names carry no position, only the number of a source
in its parent catalogue (FRICAT, FRIICAT or CoNFIG), so that positions are NaN.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from survey_ml.data.labelled.batches import Batches, read_batches
from survey_ml.errors import InputError
from survey_ml.labelled import LabelledImages

ARCHIVES = {
    "first": "radio_galaxies/FRDEEP_FIRST_PNG_dataset.tar.gz",
    "nvss": "radio_galaxies/FRDEEP_NVSS_PNG_dataset.tar.gz",
}
"""Survey to archive, below the data folder."""

CLASSES = ("FRI", "FRII")


def read_frdeep(path: str | Path) -> LabelledImages:
    """Read the batches, a ``.tar.gz`` or the folder that it unpacks to.

    Returns
    -------
    LabelledImages
        150 x 150 pixels of uint8, 550 for training and 50 for test; ra and dec are NaN.

    Raises
    ------
    InputError
        When they are not what was published.
    """
    return label_batches(read_batches(Path(path)), str(path))


def label_batches(batches: Batches, place: str) -> LabelledImages:
    """Turn batches of the classes FRI and FRII into labelled images.

    Raises
    ------
    InputError
        When they have other classes.
    """
    if batches.classes != CLASSES:
        raise InputError(
            f"{place} has the classes {', '.join(batches.classes)}, not FRI and FRII",
            "Give FR-DEEP's archive.",
        )
    nowhere = np.full(len(batches.labels), np.nan)
    names = np.array([Path(name).stem for name in batches.names.tolist()], np.str_)
    return LabelledImages(batches.images, batches.labels, CLASSES, names, nowhere, nowhere, batches.split)
