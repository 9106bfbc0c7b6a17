"""Classes against a truth: which source stands for an object, and what is counted."""

from __future__ import annotations

import numpy as np

from survey_ml.validation.labels import count_labels, match_objects


def at(east, north, **more):
    """Positions in arcsec from a place on the equator."""
    return {"ra": 10.0 + np.asarray(east) / 3600, "dec": np.asarray(north) / 3600, **more}


def test_the_brightest_source_within_the_extent_stands_for_an_object():
    sources = at([0.0, 20.0, 300.0, 303.0], [0, 0, 0, 0], total_flux=np.array([1.0, 3.0, 1.0, 2.0]))
    truth = at([5.0, 300.0, 900.0], [0, 0, 0], extent=np.array([30.0, 0.0, 50.0]))
    rows, objects = match_objects(sources, truth, radius=2.0)
    assert rows.tolist() == [1, 2] and objects.tolist() == [0, 1]


def test_a_source_stands_for_one_object_and_the_brighter_chooses_first():
    sources = at([0.0, 3.0], [0, 0], total_flux=np.array([1.0, 5.0]))
    truth = at([1.0, 1.0], [0, 0], extent=np.array([0.0, 60.0]), total_flux=np.array([0.1, 9.0]))
    rows, objects = match_objects(sources, truth, radius=5.0)
    assert dict(zip(objects.tolist(), rows.tolist(), strict=True)) == {0: 0, 1: 1}


def test_nothing_to_match():
    none = at([], [], total_flux=np.empty(0))
    some = at([0.0], [0.0], total_flux=np.ones(1))
    for sources, truth in ((none, some), (some, none), (some, at([50.0], [0.0]))):
        rows, objects = match_objects(sources, truth, radius=1.0)
        assert len(rows) == len(objects) == 0


def test_counts_accuracy_and_what_is_no_class():
    labels = ["FRI", "FRI", "FRII", "", "FRII", "bent"]
    kinds = ["FRI", "fri", "FRI", "FRII", "point", "bent"]
    found = count_labels(labels, kinds, ("FRI", "FRII", "bent"))
    assert found.kinds == ("FRI", "FRII", "bent", "point")
    assert found.counts.tolist() == [[2, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert (found.accuracy.k, found.accuracy.n) == (3, 5)
    assert (found.recall("FRI").k, found.recall("FRI").n) == (2, 3)
    assert found.recall("point").n == 0
    assert 0 < found.accuracy.low < 0.6 < found.accuracy.high < 1


def test_no_rows_are_no_accuracy():
    found = count_labels([], [], ("FRI", "FRII"))
    assert found.counts.shape == (0, 3) and found.accuracy.n == 0
