"""What is to be known of the cutout that a class was found on: bits of ``morph_flags``.

The stage sets them; the report and the demo read them.
"""

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
"""One component, not larger than the beam, and no island beside it belongs to the source."""
NO_DATA = 32
"""No pixel of the cutout has data: there is no class."""
COARSE = 64
"""Beam or pixel are too much larger than those of the training to be matched."""
FAINT = 128
"""The source's brightest pixel is below `FAINT_SIGMA` times the noise."""
OUTSHONE = 256
"""The brightest pixel that the model is shown is another source's."""

FAINT_SIGMA = 20.0
"""Of 200 real galaxies in simulated noise, `firstgalaxy-attention` was right about 0.46 at a peak of 10 times
the noise, 0.65 at 20 and 0.75 at 100; `mirabest-d4`, about 100 FRI and FRII of them, 0.64, 0.82, 0.90."""

OF_SOURCE = UNRESOLVED | FAINT | OUTSHONE
"""Those about the source; the others are about its cutout."""
