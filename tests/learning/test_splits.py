"""Splits by sky position keep groups together and classes alike; leaks are found."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.errors import SurveyMLError
from survey_ml.learning.splits import (
    find_most_similar,
    find_near_duplicates,
    find_neighbours,
    fold_by_sky,
    group_by_sky,
    split_by_sky,
)

ARCSEC = 1.0 / 3600.0
NAN = float("nan")


def make_sky(n=600, seed=3):
    """Sources of three classes, a quarter of them with a friend 20 arcsec to the north."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, n), rng.uniform(-60, 60, n)
    labels = rng.choice(3, n, p=[0.6, 0.35, 0.05])
    friends = np.arange(n // 4)
    return (
        np.concatenate([ra, ra[friends]]),
        np.concatenate([dec, dec[friends] + 20 * ARCSEC]),
        np.concatenate([labels, labels[friends]]),
    )


def test_neighbours_are_found_across_the_seam_and_at_the_pole():
    ra, dec = np.array([359.999, 10.0, 10.0, NAN]), np.array([0.0, 89.999, 40.0, 0.0])
    ra2, dec2 = np.array([0.001, 190.0, 10.0, 0.0]), np.array([0.0, 89.999, 40.01, NAN])
    pairs, apart = find_neighbours(ra, dec, ra2, dec2, 10.0)
    assert pairs.tolist() == [[0, 0], [1, 1]]
    assert apart == pytest.approx([7.2, 7.2], abs=1e-6)
    assert find_neighbours(ra, dec, ra2, dec2, 7.1)[0].size == 0
    assert find_neighbours(ra, dec, ra2, dec2, 36.1)[0].tolist() == [[0, 0], [1, 1], [2, 2]]


def test_neighbours_agree_with_all_pairs():
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0, 0.1, (2, 80))
    ra2, dec2 = rng.uniform(0, 0.1, (2, 60))
    pairs, _ = find_neighbours(ra, dec, ra2, dec2, 40.0)
    a, d, a2, d2 = map(np.radians, (ra[:, None], dec[:, None], ra2, dec2))
    apart = 2 * np.arcsin(
        np.sqrt(np.sin((d - d2) / 2) ** 2 + np.cos(d) * np.cos(d2) * np.sin((a - a2) / 2) ** 2)
    )
    expected = np.argwhere(np.degrees(apart) * 3600 <= 40.0)
    assert len(expected) > 100
    assert np.array_equal(pairs, expected)


def test_friends_of_friends_are_one_group():
    dec = np.array([0.0, 25.0, 50.0, 81.0, 300.0]) * ARCSEC
    groups = group_by_sky(np.zeros(5), dec, 30.0)
    assert groups.tolist() == [0, 0, 0, 1, 2]


def test_without_positions_names_make_groups():
    nowhere = np.full(4, NAN)
    names = np.array(["a", "b", "a", "c"])
    assert group_by_sky(nowhere, nowhere, names=names).tolist() == [0, 1, 0, 2]
    assert len(set(group_by_sky(nowhere, nowhere).tolist())) == 4
    mixed = group_by_sky(np.array([1.0, 1.0, NAN, NAN]), np.array([0.0, 0.0, NAN, NAN]), names=names)
    assert mixed[0] == mixed[1]
    assert len(set(mixed[1:].tolist())) == 3


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together_and_classes_are_shared_alike(seed):
    ra, dec, labels = make_sky()
    split = split_by_sky(ra, dec, {"train": 0.7, "valid": 0.2, "test": 0.1}, seed, labels=labels)
    for first in ("train", "valid", "test"):
        others = split != first
        assert not find_neighbours(ra[~others], dec[~others], ra[others], dec[others], 30.0)[0].size
    for kind in range(3):
        mine = labels == kind
        for part, share in (("train", 0.7), ("valid", 0.2), ("test", 0.1)):
            assert abs((split[mine] == part).sum() - share * mine.sum()) <= 2


def test_a_split_follows_its_seed():
    ra, dec, labels = make_sky()
    shares = {"train": 0.8, "valid": 0.2}
    first, same, other = (split_by_sky(ra, dec, shares, seed, labels=labels) for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    # Two independent splits of four fifths agree in 0.68 of the sources.
    assert 0.6 < (first == other).mean() < 0.76


def test_large_groups_are_not_all_on_one_side():
    ra, dec, labels = make_sky()
    held = split_by_sky(ra, dec, {"train": 0.8, "valid": 0.2}, 1, labels=labels) == "valid"
    assert held[:150].mean() == pytest.approx(0.2, abs=0.03)
    assert held[150:600].mean() == pytest.approx(0.2, abs=0.03)


def test_folds_hold_out_every_source_once():
    ra, dec, labels = make_sky()
    folds = fold_by_sky(ra, dec, 5, 0, labels=labels)
    assert np.bincount(folds).tolist() == pytest.approx([150] * 5, abs=2)
    counts = np.array([np.bincount(labels[folds == k], minlength=3) for k in range(5)])
    assert (np.ptp(counts, axis=0) <= 3).all()
    for k in range(5):
        inside = folds == k
        assert not find_neighbours(ra[inside], dec[inside], ra[~inside], dec[~inside], 30.0)[0].size


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"train": 0.8, "valid": 0.1}, "sum to one"),
        ({"train": 1.2, "valid": -0.2}, "positive"),
        ({"train": NAN}, "positive"),
        ({}, "sum to one"),
    ],
)
def test_shares_that_are_none_are_refused(shares, said):
    with pytest.raises(SurveyMLError, match=said):
        split_by_sky(np.zeros(3), np.zeros(3), shares, 0)


def test_an_empty_part_is_an_error_that_names_it():
    with pytest.raises(SurveyMLError, match=r"3 sources in 1 places .* none for valid"):
        split_by_sky(np.zeros(3), np.zeros(3), {"train": 0.5, "valid": 0.5}, 0)
    with pytest.raises(SurveyMLError, match="none for train"):
        split_by_sky(np.empty(0), np.empty(0), {"train": 1.0}, 0)
    with pytest.raises(SurveyMLError, match="1 folds"):
        fold_by_sky(np.zeros(3), np.arange(3.0), 1, 0)


def test_near_duplicates_agree_with_all_pairs():
    rng = np.random.default_rng(2)
    images = rng.normal(size=(450, 9, 7)).astype(np.float32)
    images[3] = 0.0
    others = rng.normal(size=(230, 9, 7)).astype(np.float32)
    others[[5, 200]] = 3.0 * images[[400, 7]] + 2.0
    others[9] = images[449] + 0.1 * others[9]
    pairs, values = find_near_duplicates(images, others, 0.98)
    assert pairs.tolist() == [[7, 200], [400, 5], [449, 9]]
    assert values == pytest.approx(
        [np.corrcoef(images[i].ravel(), others[j].ravel())[0, 1] for i, j in pairs], abs=1e-5
    )
    expected = np.argwhere(
        np.corrcoef(images.reshape(450, -1)[4:], others.reshape(230, -1))[:446, 446:] > 0.4
    )
    assert len(expected) > 10
    found = find_near_duplicates(images[4:], others, 0.4)[0]
    assert np.array_equal(found, expected)


def test_each_pair_within_one_set_is_found_once():
    rng = np.random.default_rng(2)
    images = rng.integers(0, 255, (400, 6, 6)).astype(np.uint8)
    images[10], images[399], images[300] = images[2], images[2], images[250]
    assert find_near_duplicates(images)[0].tolist() == [[2, 10], [2, 399], [10, 399], [250, 300]]


def test_the_same_source_is_found_behind_a_shift_and_noise():
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:32, :32]
    place = rng.uniform(6, 26, (220, 4, 2))
    references = np.exp(-((y - place[..., :1, None]) ** 2 + (x - place[..., 1:, None]) ** 2) / 4).sum(axis=1)
    chosen = rng.integers(0, 220, 210)
    images = np.roll(references[chosen], 1, axis=2) * 40 + rng.normal(0, 2, (210, 32, 32))
    found, values = find_most_similar(images, references)
    assert (found == chosen).mean() > 0.95
    assert values[found == chosen].min() > 0.8
    # Without smoothing the shift costs correlation.
    assert np.median(values) > np.median(find_most_similar(images, references, 0.0)[1]) + 0.05


def test_images_of_other_sizes_cannot_be_compared():
    for find in (find_near_duplicates, find_most_similar):
        with pytest.raises(SurveyMLError, match="cannot be compared"):
            find(np.zeros((2, 4, 4)), np.zeros((2, 4, 5)))
    with pytest.raises(SurveyMLError, match="no reference"):
        find_most_similar(np.zeros((2, 4, 4)), np.zeros((0, 4, 4)))
