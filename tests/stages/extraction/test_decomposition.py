"""What becomes of a point of an extended island whose shape cannot be fitted."""

from __future__ import annotations

import numpy as np
import pytest
from extended import BEAM, SHAPE, make_extended
from scipy import ndimage

from survey_ml.stages.extraction.decomposition import fit_island
from survey_ml.stages.extraction.model import POINT
from survey_ml.stages.extraction.options import ExtractionOptions, make_settings
from survey_ml.stages.extraction.settings import BOUNDED, FROM_RESIDUAL


@pytest.mark.parametrize("seed", range(48, 53))
def test_a_point_whose_shape_fails_stays_at_its_peak(seed):
    """Seed 50 has such a point; its anchor was once left where the shape had been started from."""
    data = make_extended(seed)
    lag = np.arange(-8, 9)
    acf = np.exp(-0.3 * (lag[:, None] ** 2 + lag**2))
    settings = make_settings(ExtractionOptions(), BEAM, acf)
    labels, _ = ndimage.label(data > 3.0, np.ones((3, 3)))
    own = labels == labels[np.unravel_index(data.argmax(), SHAPE)]
    residual = np.zeros(SHAPE)
    n, theta, kinds, flags, _, seeds = fit_island(
        data, np.ones(SHAPE), np.ones(SHAPE, bool), own, int(own.sum()), BEAM, acf, settings, residual
    )
    away = np.hypot(theta[:n, 1] - seeds[:n, 1], theta[:n, 2] - seeds[:n, 0])
    bounded = (kinds[:n] == POINT) & ((flags[:n] & (BOUNDED | FROM_RESIDUAL)) == BOUNDED)
    assert bounded.any() or seed != 50
    assert (away[bounded] <= settings.stray).all()
