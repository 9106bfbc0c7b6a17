from __future__ import annotations

import numpy as np
import pytest

from survey_ml.export.duplicates import find_duplicates

ARCSEC = 1 / 3600.0


def find(ra, dec, field, rms=None, flags=None, radius=4.0, frequency=None):
    n = len(ra)
    return find_duplicates(
        np.asarray(ra, float),
        np.asarray(dec, float),
        np.asarray(field),
        np.broadcast_to(np.asarray(radius, float) * ARCSEC, n),
        np.ones(n) if rms is None else np.asarray(rms, float),
        np.zeros(n, np.int32) if flags is None else np.asarray(flags, np.int32),
        np.full(n, np.nan) if frequency is None else np.asarray(frequency, float),
    ).tolist()


def test_the_lower_noise_is_the_better_one():
    assert find([10, 10], [0, 1 * ARCSEC], [0, 1], rms=[2, 1]) == [1, -1]


def test_a_source_at_the_edge_loses_even_with_lower_noise():
    assert find([10, 10], [0, 1 * ARCSEC], [0, 1], rms=[1, 2], flags=[2, 0]) == [1, -1]


def test_neighbours_of_one_field_are_not_duplicates():
    assert find([10, 10], [0, 1 * ARCSEC], [3, 3]) == [-1, -1]


def test_the_larger_radius_counts_and_nothing_beyond_it():
    assert find([10, 10], [0, 5 * ARCSEC], [0, 1], radius=[2, 6]) == [-1, 0]
    assert find([10, 10], [0, 7 * ARCSEC], [0, 1], radius=[2, 6]) == [-1, -1]


def test_a_row_has_one_partner_a_field():
    # Two rows of field 1 lie within reach of the one of field 0: only the nearer is the same object.
    assert find([10, 10, 10], [0, 1 * ARCSEC, -2 * ARCSEC], [0, 1, 1]) == [-1, 0, -1]


def test_second_nearest_pairs_are_matched_in_the_next_round():
    dec = np.array([0, 3, 1, 6.5]) * ARCSEC
    # 0-2 are nearest; then 1 takes what is left, 3.
    assert find([10] * 4, dec, [0, 0, 1, 1]) == [-1, -1, 0, 1]


def test_three_fields_name_one_best():
    assert find([10] * 3, np.array([0, 1, 2]) * ARCSEC, [0, 1, 2], rms=[3, 1, 2]) == [1, -1, 1]


def test_a_duplicate_makes_no_duplicates():
    # 0 beats 1 and 1 would beat 2, but 0 and 2 are too far apart to be one object.
    assert find([10] * 3, np.array([0, 3, 6]) * ARCSEC, [0, 1, 2], rms=[1, 2, 3]) == [-1, 0, -1]


def test_other_frequencies_are_other_measurements():
    both = {"ra": [10, 10], "dec": [0, 0], "field": [0, 1]}
    assert find(**both, frequency=[1.4e9, 0.9e9]) == [-1, -1]
    assert find(**both, frequency=[1.40e9, 1.45e9]) == [-1, 0]


@pytest.mark.parametrize("ra", [0.0, 359.99999])
def test_the_sky_wraps(ra):
    assert find([ra, 0.00001], [0, 0], [0, 1]) == [-1, 0]


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(5)
    n = 3000
    ra, dec = rng.uniform(10, 10.05, n), rng.uniform(0, 0.05, n)
    field, rms = rng.integers(0, 4, n), rng.uniform(1, 2, n)
    one = np.array(find(ra, dec, field, rms))
    order = rng.permutation(n)
    other = np.array(find(ra[order], dec[order], field[order], rms[order]))
    back = np.full(n, -1)
    back[order] = np.where(other >= 0, order[other], -1)
    assert (one == back).all()
    assert 0.2 < (one >= 0).mean() < 0.8
    # What a duplicate points at is no duplicate itself, is better, and is of another field.
    duplicates = np.flatnonzero(one >= 0)
    assert (one[one[duplicates]] == -1).all()
    assert (rms[one[duplicates]] < rms[duplicates]).all()
    assert (field[one[duplicates]] != field[duplicates]).all()


def test_zones_of_the_sky_find_what_the_whole_sky_finds(monkeypatch):
    rng, n = np.random.default_rng(8), 600
    ra, dec = rng.uniform(0, 0.2, n), rng.uniform(-0.1, 0.1, n)
    given = (
        ra, dec, rng.integers(0, 4, n), rng.uniform(0.002, 0.01, n), rng.random(n),
        rng.integers(0, 2, n), np.full(n, 1.4e9),
    )  # fmt: skip
    whole = find_duplicates(*given)
    assert (whole >= 0).sum() > 100
    for size in (1, 7, 100):
        monkeypatch.setattr("survey_ml.export.duplicates._ZONE", size)
        np.testing.assert_array_equal(find_duplicates(*given), whole)
