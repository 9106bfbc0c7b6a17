"""What is to be known of an uncertainty: bits of ``unc_flags``.

The stage sets them; the report reads them.
"""

from __future__ import annotations

DOUBTFUL = 1
"""The prediction set does not hold exactly one class, or the margin is below the option ``margin``."""
TOO_FAR = 2
"""Too far from training: what the model makes of the source is unlike what it made of training images."""
NO_DATA = 32
"""There is no class, and so no uncertainty; as in ``morph_flags``."""

NAMES = {
    DOUBTFUL: "doubtful",
    TOO_FAR: "too_far_from_training",
    NO_DATA: "no_data",
}
"""Names of the bits, as commands print them."""


def name_flags(value: int) -> list[str]:
    """Return the names of the bits that are set."""
    return [name for bit, name in NAMES.items() if value & bit]
