"""How much a model leaves in an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def measure_madfm(residual: NDArray[np.floating]) -> float:
    """Return the median absolute deviation from the median, scaled to sigma of a normal sample.

    Parameters
    ----------
    residual : array
        NaN is left out.

    Returns
    -------
    float
        In the unit of the residual; NaN without any finite value.
    """
    values = residual[np.isfinite(residual)]
    if values.size == 0:
        return float("nan")
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
