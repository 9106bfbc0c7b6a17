"""What a model's file holds of images that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import InputError
from survey_ml.learning.calibration import Calibrator
from survey_ml.learning.judgement import HeldOut
from survey_ml.learning.outliers import Gaussians
from survey_ml.models.card import Calibration

PREFIX = "held_out."
_DAMAGED = "the file was changed; get it again"


def list_held_out(n: int, n_classes: int, width: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return names, dtypes and shapes of the arrays of n held-out images with embeddings (n, width)."""
    return {
        f"{PREFIX}probabilities": ("float32", (n, n_classes)),
        f"{PREFIX}labels": ("int32", (n,)),
        f"{PREFIX}distances": ("float32", (n,)),
        f"{PREFIX}means": ("float32", (n_classes, width)),
        f"{PREFIX}precision": ("float32", (width, width)),
    }


def read_held_out(calibration: Calibration, tensors: Mapping[str, NDArray[Any]]) -> HeldOut:
    """Return what the arrays of a file say.

    Raises
    ------
    InputError
        When they are no probabilities, labels or distances.
    """
    p, labels = tensors[f"{PREFIX}probabilities"], tensors[f"{PREFIX}labels"]
    if (p < 0.0).any() or np.abs(p.sum(axis=1, dtype=np.float64) - 1.0).max() > 1e-3:
        raise InputError("what the model holds of held-out images are no probabilities", _DAMAGED)
    if not 0 <= labels.min() <= labels.max() < p.shape[1]:
        raise InputError("the model's held-out images have labels of no class", _DAMAGED)
    precision = tensors[f"{PREFIX}precision"]
    if (tensors[f"{PREFIX}distances"] < 0.0).any() or not (np.diag(precision) > 0.0).all():
        raise InputError("what the model holds of distances from its training is damaged", _DAMAGED)
    return HeldOut(
        Calibrator(calibration.method, calibration.scale, calibration.shift, calibration.knots),
        tensors[f"{PREFIX}probabilities"],
        tensors[f"{PREFIX}labels"],
        Gaussians(
            tensors[f"{PREFIX}means"].astype(np.float64), tensors[f"{PREFIX}precision"].astype(np.float64)
        ),
        tensors[f"{PREFIX}distances"],
    )


def write_held_out(held: HeldOut) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file."""
    assert held.gaussians is not None and held.distances is not None
    return {
        f"{PREFIX}probabilities": held.probabilities.astype(np.float32),
        f"{PREFIX}labels": held.labels.astype(np.int32),
        f"{PREFIX}distances": held.distances.astype(np.float32),
        f"{PREFIX}means": held.gaussians.means.astype(np.float32),
        f"{PREFIX}precision": held.gaussians.precision.astype(np.float32),
    }
