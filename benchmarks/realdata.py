"""Where real data lie, and images as fields."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from survey_ml.config import Defaults
from survey_ml.data.fits import FitsReader
from survey_ml.field import Field, Window

ROOT = Path(__file__).parents[1]


def find_data(*parts: str) -> Path:
    """Return a folder of the real data; end the benchmark with a message when it is not there."""
    base = Path(os.environ.get("SURVEY_ML_DATA", ROOT.parent / "shared" / "data"))
    path = base.joinpath(*parts)
    if not path.exists():
        sys.exit(f"{path} is not there: set SURVEY_ML_DATA to the folder that has {'/'.join(parts)}")
    return path


def read_field(
    path: str | Path, name: str, defaults: Defaults | None = None
) -> tuple[Field, NDArray[np.float32]]:
    """Read a whole FITS image in Jy/beam."""
    with FitsReader(str(path)) as reader:
        field, scale = reader.describe(defaults or Defaults(), name)
        image = reader.read(Window(0, field.shape[0], 0, field.shape[1]))
    if scale != 1.0:
        image *= np.float32(scale)
    return field, image
