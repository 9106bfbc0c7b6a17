"""What is to be known of the cutout that a class was found on: bits of ``morph_flags``."""

from __future__ import annotations

EDGE = 1
"""Part of the cutout lies off the image."""
BLANK = 2
"""Pixels of the cutout have no data."""
TOO_LARGE = 4
"""The source's island reaches beyond the cutout."""
EMPTY = 8
"""Nothing in the cutout is above the clip."""
UNRESOLVED = 16
"""One component, not larger than the beam."""
NO_DATA = 32
"""No pixel of the cutout has data: there is no class."""
COARSE = 64
"""Beam or pixel are too much larger than those of the training to be matched."""

NAMES = {
    EDGE: "edge",
    BLANK: "blank",
    TOO_LARGE: "too_large",
    EMPTY: "empty",
    UNRESOLVED: "unresolved",
    NO_DATA: "no_data",
    COARSE: "coarse",
}
"""Bit to the name that ``survey-ml classify`` gives it."""
