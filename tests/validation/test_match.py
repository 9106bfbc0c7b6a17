"""Matches are one to one, nearest pair first, and the same in any order."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.validation.match import find_nearest, match_pixels, match_sky


def match_slowly(a, b, radius):
    pairs = sorted((np.hypot(*(p - q)), i, j) for i, p in enumerate(a) for j, q in enumerate(b))
    used_i, used_j, kept = set(), set(), []
    for d, i, j in pairs:
        if d <= radius and i not in used_i and j not in used_j:
            kept.append((i, j))
            used_i.add(i)
            used_j.add(j)
    return sorted(kept)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_greedy_match(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 30, (80, 2)), rng.uniform(0, 30, (120, 2))
    found = match_pixels(a, b, 3.0)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == match_slowly(a, b, 3.0)
    np.testing.assert_allclose(found.separation, np.hypot(*(a[found.first] - b[found.second]).T))


def test_the_nearest_pair_wins_and_ties_go_to_lower_rows():
    found = match_pixels([[0.0, 0.0], [1.0, 0.0]], [[0.9, 0.0]], 2.0)
    assert (found.first.tolist(), found.second.tolist()) == ([1], [0])
    tie = match_pixels([[0.0, 0.0], [2.0, 0.0]], [[1.0, 0.0]], 2.0)
    assert tie.first.tolist() == [0]


def test_each_row_may_have_its_own_radius():
    found = match_pixels([[0.0, 0.0], [10.0, 0.0]], [[3.0, 0.0], [13.0, 0.0]], [1.0, 5.0])
    assert (found.first.tolist(), found.second.tolist()) == ([1], [1])


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_empty_lists_have_no_pairs(n, m):
    assert match_pixels(np.zeros((n, 2)), np.ones((m, 2)), 5.0).first.size == 0


def test_the_sky_is_round():
    arcsec = 1 / 3600
    found = match_sky([359.9999, 10.0], [0.0, 89.9999], [0.0001, 190.0], [0.0, 89.9999], 1.0)
    assert found.first.tolist() == [0, 1]
    assert found.separation == pytest.approx([0.72, 0.72], abs=1e-3)
    assert match_sky([10.0], [60.0], [10.0 + 1.9 * arcsec], [60.0], 1.0).first.size == 1
    assert match_sky([10.0], [60.0], [10.0 + 2.1 * arcsec], [60.0], 1.0).first.size == 0


def test_nearest_may_be_shared():
    row, away = find_nearest([10.0, 10.001], [0.0, 0.0], [10.0, 50.0], [0.0, 0.0])
    assert row.tolist() == [0, 0]
    assert away == pytest.approx([0.0, 3.6], abs=1e-6)
    assert np.isinf(find_nearest([1.0], [1.0], [], [])[1]).all()
