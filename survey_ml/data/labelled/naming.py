"""Names of classes to numbers, and what can be wrong with them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import InputError


def number_classes(
    given: Sequence[str], places: Sequence[str], classes: Sequence[str] | None = None, least: int = 2
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Turn the class of each image into a number.

    Parameters
    ----------
    given : sequence of str
        Class of each image, as its table says.
    places : sequence of str
        Where that is written, such as ``labels.csv, line 3``.
    classes : sequence of str, optional
        Those to expect, in their order; when not given, those found, sorted.
    least : int
        Images of a class that are needed.

    Returns
    -------
    labels : (n,) array of int64
    classes : tuple of str

    Raises
    ------
    InputError
        For a class without a name, one that is not expected, and one with too few images; it names the place.
    """
    for name, place in zip(given, places, strict=True):
        if not name:
            raise InputError(f"{place} has no class", "Write one, or leave the image out.")
        if classes is not None and name not in classes:
            near = difflib.get_close_matches(name, classes, n=1, cutoff=0.6)
            raise InputError(
                f"{place} has the unknown class {name!r}{f'; did you mean {near[0]}?' if near else ''}",
                f"The classes are {', '.join(classes)}.",
            )
    known = tuple(sorted(set(given)) if classes is None else classes)
    count = Counter(given)
    for name in known:
        if count[name] == 0:
            raise InputError(f"no image has the class {name}", "Add images of it, or leave the class out.")
        if count[name] < least:
            raise InputError(
                f"{places[list(given).index(name)]} is the only one of the class {name}"
                if count[name] == 1
                else f"only {count[name]} images have the class {name}",
                f"Give at least {least} images of each class: some to train on and some to test with.",
            )
    if len(known) < 2:
        raise InputError(
            f"all {len(given)} images are of one class" if given else "there is no image",
            "Give images of at least two classes.",
        )
    return np.array([known.index(name) for name in given], np.int64), known
