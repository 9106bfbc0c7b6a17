"""Where the pixels of a field come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from survey_ml.field import Field


@dataclass(frozen=True)
class Source:
    """An input image that passed the checks of its header.

    Attributes
    ----------
    field : Field
        What its header says.
    path : str
        Absolute path or URL.
    reader : str
        ``fits``, or ``module:Class`` of a plugin's reader.
    hdu : str, int or None
        Which image in the file.
    scale : float
        Factor from the file's unit to Jy/beam.
    notes : tuple of str
        What a user should know, such as a default that the header overruled.
    stamp : mapping
        Size and time of the file before its header was read; empty where it is not known. Not stored.
    """

    field: Field
    path: str
    reader: str = "fits"
    hdu: str | int | None = None
    scale: float = 1.0
    notes: tuple[str, ...] = ()
    stamp: Mapping[str, Any] = dataclasses.field(default_factory=dict)
