"""What belongs together stays together."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.errors import InputError, SurveyMLError
from survey_ml.labelled import LabelledImages, join_images


def make(n=4, **changed) -> LabelledImages:
    arrays = {
        "images": np.arange(n * 6, dtype=np.uint8).reshape(n, 2, 3),
        "labels": np.arange(n) % 2,
        "classes": ("FRI", "FRII", "bent"),
        "names": np.array([f"s{k}" for k in range(n)]),
        "ra": np.arange(n, dtype=float),
        "dec": np.full(n, np.nan),
        "split": np.array(["train", "test"] * n)[:n],
    }
    return LabelledImages(**(arrays | changed))


@pytest.mark.parametrize("chosen", [[2, 0], np.array([True, False, True, False]), slice(0, 3, 2)])
def test_rows_are_taken_whole(chosen):
    data = make()
    part = data.take(chosen)
    rows = np.arange(4)[chosen]
    assert len(part) == 2
    assert part.classes == data.classes
    for name in ("images", "labels", "names", "ra", "split"):
        assert np.array_equal(getattr(part, name), getattr(data, name)[rows])


def test_classes_are_laid_in_another_order():
    data = make()
    moved = data.order_classes(("bent", "FRII", "FRI"))
    assert [moved.classes[k] for k in moved.labels] == [data.classes[k] for k in data.labels]
    assert moved.counts() == {"bent": 0, "FRII": 2, "FRI": 2}
    for other in (("FRI", "FRII"), ("FRI", "FRII", "compact"), ("FRI", "FRI", "bent")):
        with pytest.raises(ValueError, match="cannot be laid"):
            data.order_classes(other)


def test_counts_name_every_class():
    assert make().counts() == {"FRI": 2, "FRII": 2, "bent": 0}
    assert make().take([]).counts() == {"FRI": 0, "FRII": 0, "bent": 0}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"labels": np.array([0, 1, 0])}, "4 images, but labels"),
        ({"labels": np.array([0, 1, 0, 3])}, "labels from 0 to 3 for 3 classes"),
        ({"labels": np.array([0, 1, 0, -1])}, "labels from -1"),
        ({"labels": np.zeros(4)}, "labels of labelled images cannot be float64"),
        ({"images": np.zeros((4, 2, 3))}, "not float64"),
        ({"images": np.zeros((4, 6), np.uint8)}, r"\(4, 6\)"),
        ({"classes": ("FRI", "FRI", "bent")}, "named twice"),
        ({"split": np.array(["train"] * 3 + ["dev"])}, "not 'dev'"),
        ({"names": np.arange(4)}, "names of labelled images"),
    ],
)
def test_what_does_not_belong_together_is_refused(changed, said):
    with pytest.raises(SurveyMLError, match=said):
        make(**changed)


def test_sets_are_joined_behind_each_other():
    data = make(6)
    joined = join_images([data.take([4, 1]), data.take([3])])
    for name in ("images", "labels", "names", "ra", "split"):
        assert np.array_equal(getattr(joined, name), getattr(data, name)[[4, 1, 3]])
    assert joined.classes == data.classes


@pytest.mark.parametrize(
    "changed",
    [{"classes": ("a", "b")}, {"images": np.zeros((4, 3, 3), np.uint8)}, {"subtracted": True},
     {"images": np.zeros((4, 2, 3), np.float32)}],
)  # fmt: skip
def test_sets_of_other_kinds_are_not_joined(changed):
    with pytest.raises(InputError, match="do not go together"):
        join_images([make(), make(**changed)])
