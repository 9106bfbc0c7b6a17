"""A forest as arrays says what scikit-learn's says, and damaged arrays are refused."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.errors import InputError, SurveyMLError
from survey_ml.learning.forest import Forest, evaluate_forest, export_forest, grow_forest


def make_data(n: int, seed: int):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    features = rng.normal(0, 1, (n, 6)).astype(np.float32)
    features[:, 0] += labels
    features[:, 1] = np.round(features[:, 1] + (labels == 2))
    return features, labels


@pytest.fixture(scope="module")
def forest() -> Forest:
    return grow_forest(*make_data(300, 1), seed=7, n_trees=20)


@pytest.mark.parametrize(
    "options", [{}, {"max_depth": 3}, {"min_samples_leaf": 5, "class_weight": "balanced"}]
)
def test_it_agrees_with_scikit_learn(options):
    from sklearn.ensemble import RandomForestClassifier

    features, labels = make_data(300, 1)
    grown = RandomForestClassifier(25, random_state=3, **options).fit(features, labels)
    unseen = np.concatenate([make_data(500, 2)[0], features])
    found = evaluate_forest(export_forest(grown), unseen)
    np.testing.assert_allclose(found, grown.predict_proba(unseen), atol=1e-12)
    assert (found.argmax(axis=1)[:500] == make_data(500, 2)[1]).mean() > 0.5


def test_a_row_does_not_depend_on_the_others(forest):
    features, _ = make_data(50, 5)
    whole = evaluate_forest(forest, features)
    np.testing.assert_array_equal(evaluate_forest(forest, features[::-1])[::-1], whole)
    np.testing.assert_array_equal(evaluate_forest(forest, features[17:18]), whole[17:18])
    assert evaluate_forest(forest, features[:0]).shape == (0, 3)


def test_one_seed_gives_one_forest(forest):
    again = grow_forest(*make_data(300, 1), seed=7, n_trees=20)
    for name, array in forest.to_arrays().items():
        np.testing.assert_array_equal(array, again.to_arrays()[name])
    other = grow_forest(*make_data(300, 1), seed=8, n_trees=20)
    assert len(other.feature) != len(forest.feature)


def test_arrays_make_the_forest_again(forest):
    again = Forest.from_arrays(forest.to_arrays(), 6)
    features, _ = make_data(20, 9)
    np.testing.assert_array_equal(evaluate_forest(again, features), evaluate_forest(forest, features))


def change(forest, name, place, value):
    arrays = {key: array.copy() for key, array in forest.to_arrays().items()}
    arrays[name][place] = value
    return arrays


@pytest.mark.parametrize(
    ("name", "place", "value", "said"),
    [
        ("left", 0, 0, "leads left"),
        ("right", 0, -1, "leads right"),
        ("right", 0, 10**6, "leads right"),
        ("feature", 0, 6, "measurement"),
        ("start", 1, 0, "follow one another"),
        ("start", 0, 1, "follow one another"),
        ("threshold", 0, np.nan, "not finite"),
        ("value", (0, 0), -1.0, "add up"),
        ("value", (0, 0), 7.0, "add up"),
    ],
)
def test_damaged_arrays_are_refused(forest, name, place, value, said):
    with pytest.raises(InputError, match=said):
        Forest.from_arrays(change(forest, name, place, value), 6)


def test_a_class_without_images_is_an_error():
    features, labels = make_data(60, 1)
    with pytest.raises(SurveyMLError, match="every class"):
        grow_forest(features, np.where(labels == 1, 2, labels), seed=0)
    with pytest.raises(SurveyMLError, match="every class"):
        grow_forest(features[:1], labels[:1] * 0, seed=0)
