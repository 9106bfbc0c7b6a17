"""Which sources stand for objects, squares of a field, and the sources least like a reference."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.learning.shift_distances import find_median_distance, measure_mmd
from survey_ml.learning.shift_objects import choose_objects
from survey_ml.learning.shift_squares import MOST_SIDE, split_squares
from survey_ml.learning.shift_witness import measure_strangeness


def test_pieces_of_a_galaxy_count_once_and_the_brightest_stands_for_them():
    ra = np.array([10.0, 10.01, 10.0, 40.0, 359.999, 0.001])
    dec = np.array([0.0, 0.0, 0.01, 0.0, 0.0, 0.0])
    flux = np.array([1.0, 3.0, 2.0, 0.1, 5.0, 6.0])
    assert choose_objects(ra, dec, flux, 60.0).tolist() == [1, 3, 5]
    assert choose_objects(ra, dec, flux, 1.0).tolist() == list(range(6))


def test_the_choice_does_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    ra, dec, flux = rng.uniform(0, 1, 200), rng.uniform(60, 61, 200), rng.random(200)
    kept = choose_objects(ra, dec, flux, 120.0)
    order = rng.permutation(200)
    again = order[choose_objects(ra[order], dec[order], flux[order], 120.0)]
    assert set(again) == set(kept) and 10 < len(kept) < 200
    x, y = ra[kept] * np.cos(np.radians(60.5)), dec[kept]
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + np.eye(len(kept))
    assert apart.min() > 0.97 * 120.0 / 3600.0


def test_sources_without_a_place_stand_for_themselves_and_none_are_none():
    assert choose_objects([np.nan, np.nan, 1.0], [0.0, 0.0, np.nan], [1.0, np.nan, 1.0], 60.0).tolist() == [
        0, 1, 2,
    ]  # fmt: skip
    assert choose_objects([], [], [], 60.0).tolist() == []


@pytest.mark.parametrize("n", [0, 39, 40, 170, 5000])
def test_squares_share_out_a_field(n):
    rng = np.random.default_rng(n)
    x, y = rng.uniform(-0.5, 799.5, n), rng.uniform(-0.5, 399.5, n)
    squares = split_squares(x, y, (400, 800), 20)
    if n < 40:
        assert squares == []
        return
    assert sorted(np.concatenate([one.rows for one in squares])) == list(range(n))
    assert 2 <= len(squares) <= min(n // 20, MOST_SIDE**2)
    assert sum((one.x[1] - one.x[0]) * (one.y[1] - one.y[0]) for one in squares) == pytest.approx(320_000)
    for one in squares:
        assert (x[one.rows] >= one.x[0] - 1e-9).all() and (x[one.rows] <= one.x[1] + 1e-9).all()
        assert (y[one.rows] >= one.y[0] - 1e-9).all() and (y[one.rows] <= one.y[1] + 1e-9).all()


def test_the_strangest_source_is_the_one_that_was_put_in():
    rng = np.random.default_rng(1)
    one = rng.normal(size=(300, 4)).astype(np.float32)
    other = rng.normal(size=(270, 4)).astype(np.float32)
    assert abs(measure_strangeness(one, other).mean()) < 0.02
    other[:30] += 2.5
    strange = measure_strangeness(one, other)
    assert strange[:30].min() > np.median(strange[30:])
    assert set(np.argsort(-strange)[:20]) <= set(range(30))


def test_the_mean_strangeness_is_the_samples_part_of_the_distance():
    rng = np.random.default_rng(2)
    sides = [rng.normal(size=(60, 3)).astype(np.float32), rng.normal(1.0, 1.0, (50, 3)).astype(np.float32)]
    width = find_median_distance(np.concatenate(sides))
    inside = np.zeros((110, 3), bool)
    inside[:60] = True
    whole = measure_mmd(np.concatenate(sides), inside, width).values[0]
    parts = [measure_strangeness(sides[0], sides[1]).mean(), measure_strangeness(sides[1], sides[0]).mean()]
    assert sum(parts) == pytest.approx(whole, abs=1e-5)
