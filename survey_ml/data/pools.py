"""Images without labels that may come with positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from survey_ml.data.cutouts import Cutout, UnreadableCutout, read_cutouts
from survey_ml.data.labelled.product import read_cutout_file
from survey_ml.data.labelled.reading import is_labelled, read_labelled
from survey_ml.errors import InputError
from survey_ml.labelled import LabelledImages


@dataclass(frozen=True, eq=False)
class Placed:
    """An image and where it lies; NaN in deg where not known."""

    cutout: Cutout
    name: str
    ra: float
    dec: float


def read_pool(source: str | Path) -> Iterator[Placed]:
    """Read images one after the other, without their labels.

    Parameters
    ----------
    source : str or Path
        A data set that `survey_ml.data.labelled.reading` knows by name, a ``.npz`` file of cutouts, which has
        positions, an archive (``.tar.gz``, ``.zip``), a table (``.csv``) or a folder of labelled images; or
        what `survey_ml.data.cutouts` reads, without positions.

    Raises
    ------
    InputError
        When an image cannot be read.
    """
    text = str(source)
    if is_labelled(source):
        yield from _place_labelled(read_labelled(source), text)
    elif text.endswith(".npz"):
        file = read_cutout_file(Path(source))
        for number, image in enumerate(file.images):
            cutout = Cutout(text, number, image, image.dtype == np.uint8, float(file.pixel_arcsec[number]))
            yield Placed(cutout, str(file.names[number]), float(file.ra[number]), float(file.dec[number]))
    else:
        for one in read_cutouts([source]):
            if isinstance(one, UnreadableCutout):
                raise InputError(one.cause, one.remedy)
            yield Placed(one, f"{Path(one.input).name}[{one.index}]", np.nan, np.nan)


def _place_labelled(data: LabelledImages, source: str) -> Iterator[Placed]:
    for number, image in enumerate(data.images):
        cutout = Cutout(source, number, image, image.dtype == np.uint8, data.pixel_arcsec)
        yield Placed(cutout, str(data.names[number]), float(data.ra[number]), float(data.dec[number]))
