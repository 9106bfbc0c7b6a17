"""Pools of a reproduction: labels are balanced and nested, and a pool has the mix that it says."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.labelled import LabelledImages
from survey_ml.papers.pool_sets import (
    IMBALANCED,
    MIRABEST,
    draw_labelled,
    make_pools,
    take_off_clip,
    unbalance,
)
from survey_ml.papers.pool_verdicts import divide_in_three


@pytest.fixture
def data():
    n = 90
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 8, 8)).astype(np.uint8)
    images[images < 60] = 0
    labels = (np.arange(n) % 3 > 0).astype(np.int64)  # 30 and 60
    names = np.array([f"s{k}" for k in range(n)])
    return LabelledImages(
        images, labels, ("FRI", "FRII"), names, np.arange(n) * 1.0, np.zeros(n), np.full(n, "train")
    )


def test_labels_are_balanced_and_fewer_are_part_of_more(data):
    few, more = draw_labelled(data.labels, 10, 3), draw_labelled(data.labels, 40, 3)
    assert np.bincount(data.labels[few]).tolist() == [5, 5]
    assert np.bincount(data.labels[more]).tolist() == [20, 20]
    assert set(few) <= set(more)
    assert not np.array_equal(few, draw_labelled(data.labels, 10, 4))


def test_pools_hold_no_labelled_image(data):
    chosen = draw_labelled(data.labels, 20, 0)
    pools = make_pools(data, chosen, {"Other": data}, 0)
    assert list(pools) == [MIRABEST, "Other", IMBALANCED]
    for name in (MIRABEST, IMBALANCED):
        assert not set(pools[name].names) & set(data.names[chosen])
    assert len(pools[MIRABEST]) == 70
    assert pools[IMBALANCED].counts() == {"FRI": 20, "FRII": 2}
    assert unbalance(data, 0).counts() == {"FRI": 30, "FRII": 3}


def test_the_faintest_pixel_above_the_clip_becomes_zero_and_the_peak_stays(data):
    found = take_off_clip(data)
    assert found.subtracted
    for before, after in zip(data.images.astype(float), found.images, strict=True):
        low, high = before[before > 0].min(), before.max()
        assert after[before == low].max() == 0 and not after[before == 0].any()
        assert after.max() == round(255 * (high - low) / (255 - low))


def test_thirds_share_the_classes_and_no_image(data):
    thirds = divide_in_three(data)
    assert [one.counts() for one in thirds] == [{"FRI": 10, "FRII": 20}] * 3
    assert len(set(np.concatenate([one.names for one in thirds]))) == 90
