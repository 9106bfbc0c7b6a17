"""FR-DEEP (Tang, Scaife & Leahy 2019): the same 600 FRI and FRII seen by FIRST and by NVSS.

The archives are called PNG, but hold batches. Their names carry no position, only the number of a source
in its parent catalogue, so that positions are NaN. The same number may be an FRI and an FRII, and the two
surveys are not split alike: by their numbers, 37 of the 50 test sources of FIRST are trained on in NVSS.
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
        150 x 150 pixels of uint8, 550 for training and 50 for test; ra and dec are NaN. Names are class and
        file name, such as ``FRI/54_FRICAT_FR1_example``.

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
    pairs = zip(batches.labels.tolist(), batches.names.tolist(), strict=True)
    names = np.array([f"{CLASSES[label]}/{Path(name).stem}" for label, name in pairs], np.str_)
    return LabelledImages(batches.images, batches.labels, CLASSES, names, nowhere, nowhere, batches.split)
