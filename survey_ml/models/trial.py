"""Images to try a model on, made from a seed: clipped single, double and bent sources."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLIP = 0.02
"""Share of the peak below which sky is empty."""
MOST_PARTS = 4


def make_images(n: int, side: int, seed: int) -> NDArray[np.float32]:
    """Return images as models see them.

    Parameters
    ----------
    n : int
    side : int
        Pixels a side.
    seed : int

    Returns
    -------
    (n, side, side) ndarray of float32
        From 0 to 1, zero where the sky is empty: one to four elliptical Gaussians along a line or a
        bend, in any orientation and anywhere near the middle.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(np.float32) - np.float32(0.5 * (side - 1))
    images = np.zeros((n, side, side), np.float32)
    for image in images:
        n_parts = int(rng.integers(1, MOST_PARTS + 1))
        centre = rng.uniform(-0.03, 0.03, 2) * side
        angle, bend = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(-0.6, 0.6)
        length = rng.uniform(0.05, 0.35) * side
        for place in np.linspace(-1.0, 1.0, n_parts) if n_parts > 1 else [0.0]:
            turned = angle + bend * abs(place)
            dx = x - np.float32(centre[0] + place * length * np.cos(turned))
            dy = y - np.float32(centre[1] + place * length * np.sin(turned))
            width = rng.uniform(1.3, 4.0)
            longer = width * rng.uniform(1.0, 3.0)
            own = rng.uniform(0.0, np.pi)
            along = dx * np.float32(np.cos(own)) + dy * np.float32(np.sin(own))
            across = dy * np.float32(np.cos(own)) - dx * np.float32(np.sin(own))
            shape = np.exp(-0.5 * ((along / np.float32(longer)) ** 2 + (across / np.float32(width)) ** 2))
            image += np.float32(rng.uniform(0.2, 1.0)) * shape
        image /= image.max()
        image[image < CLIP] = 0.0
    return images
