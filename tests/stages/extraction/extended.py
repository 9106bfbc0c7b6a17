"""Noise and overlapping Gaussians, of which no peak is a source of its own."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from survey_ml.stages.extraction.model import add_component

BEAM = np.array([0.6, 0.0, 0.6])
SHAPE = (60, 60)


def make_extended(seed):
    """Noise of rms 1 and five overlapping Gaussians of one to five beams."""
    rng = np.random.default_rng(seed)
    data = ndimage.gaussian_filter(rng.normal(size=SHAPE), 0.9)
    data /= data.std()
    for _ in range(5):
        sigma, angle = rng.uniform(1.3, 6.0, 2), rng.uniform(0.0, np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        precision = np.linalg.inv(turn @ np.diag(sigma**2) @ turn.T)
        row = [rng.uniform(10, 60), *rng.uniform(20, 40, 2), *precision[np.triu_indices(2)]]
        add_component(data, np.array(row), 1.0, 5.0)
    return data
