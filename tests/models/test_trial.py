"""The images that models are tried on are like those that they see."""

from __future__ import annotations

import numpy as np

from survey_ml.models.trial import make_images


def test_images_are_clipped_and_scaled_and_of_one_seed():
    images = make_images(30, 80, seed=4)
    assert images.dtype == np.float32
    assert (images.max(axis=(1, 2)) == 1.0).all()
    empty = (images == 0).mean(axis=(1, 2))
    assert (empty > 0.2).all()
    assert empty.max() < 1.0
    np.testing.assert_array_equal(images, make_images(30, 80, seed=4))
    assert not np.array_equal(images, make_images(30, 80, seed=5))


def test_none_is_symmetric_by_itself():
    images = make_images(30, 80, seed=4)
    assert (np.abs(images - np.rot90(images, 1, axes=(1, 2))).max(axis=(1, 2)) > 0.05).all()
