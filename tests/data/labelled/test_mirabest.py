"""MiraBest and FR-DEEP hold what was published, and say where they meet."""

from __future__ import annotations

import numpy as np
import pytest
from real_images import read_mirabest, read_published

from survey_ml.data.labelled.batches import Batches
from survey_ml.data.labelled.mirabest import CODES, parse_batches, select_mirabest
from survey_ml.errors import ConfigError, InputError

TRAIN = (297, 43, 8, 167, 2, 378, 3, 171, 17, 13)
TEST = (42, 6, 1, 24, 1, 54, 1, 24, 2, 2)
"""Published numbers of each of the ten codes."""


def make_batches(names, labels) -> Batches:
    n = len(names)
    return Batches(
        np.arange(n * 4, dtype=np.uint8).reshape(n, 2, 2),
        np.array(labels),
        tuple(map(str, CODES)),
        np.array(names),
        np.array(["train", "test"] * n)[:n],
    )


NAMES = [
    "./MiraBest_data/100_188.320+019.481_0.2282_0049.17.png",
    "./MiraBest_data/112_327.005-008.424_0.1346_0148.19.png",
    "./MiraBest_data/201_016.732+000.523_0.1538_0026.95.png",
    "./MiraBest_data/310_016.732+000.523_0.1538_0026.95.png",
]


def test_names_tell_class_position_redshift_and_size():
    table = parse_batches(make_batches(NAMES, [0, 4, 6, 9]), "x")
    assert table.code.tolist() == [100, 112, 201, 310]
    assert table.ra.tolist() == [188.320, 327.005, 16.732, 16.732]
    assert table.dec.tolist() == [19.481, -8.424, 0.523, 0.523]
    assert table.redshift[1] == 0.1346
    assert table.size[1] == 148.19
    assert table.names[0] == "100_188.320+019.481_0.2282_0049.17"


def test_subsets_follow_the_codes():
    table = parse_batches(make_batches(NAMES, [0, 4, 6, 9]), "x")
    found = {}
    for subset in ("confident", "uncertain", "no-hybrid", "hybrid", "all"):
        data = select_mirabest(table, subset)
        found[subset] = [(name[:3], data.classes[k]) for name, k in zip(data.names, data.labels, strict=True)]
    assert found == {
        "confident": [("100", "FRI"), ("201", "FRII")],
        "uncertain": [("112", "FRI")],
        "no-hybrid": [("100", "FRI"), ("112", "FRI"), ("201", "FRII")],
        "hybrid": [("310", "hybrid")],
        "all": [("100", "FRI"), ("112", "FRI"), ("201", "FRII"), ("310", "hybrid")],
    }
    assert select_mirabest(table).classes == ("FRI", "FRII")
    with pytest.raises(ConfigError, match="sure"):
        select_mirabest(table, "sure")


@pytest.mark.parametrize(
    ("names", "labels"), [(NAMES[:1], [1]), (["100_188.320.png"], [0]), (["../100_x_y_z.png"], [0])]
)
def test_names_of_another_form_are_refused(names, labels):
    with pytest.raises(InputError, match="is not class"):
        parse_batches(make_batches(names, labels), "x")


@pytest.mark.real
def test_the_published_numbers_of_every_class():
    table = read_mirabest()
    for split, expected in (("train", TRAIN), ("test", TEST)):
        found = [int(((table.code == code) & (table.split == split)).sum()) for code in CODES]
        assert tuple(found) == expected
    assert table.images.shape == (1256, 150, 150)
    train = select_mirabest(table, "confident").take(select_mirabest(table, "confident").split == "train")
    assert train.counts() == {"FRI": 348, "FRII": 381}
    # The mean and the standard deviation that the papers normalise with.
    assert train.images.mean() / 255 == pytest.approx(0.0031, abs=5e-5)
    assert train.images.std() / 255 == pytest.approx(0.0350, abs=5e-5)
    assert 0.03 < table.redshift.min() < table.redshift.max() < 0.54
    assert 5.8 < table.size.min() < table.size.max() < 270


@pytest.mark.real
@pytest.mark.parametrize("name", ["frdeep-first", "frdeep-nvss"])
def test_frdeep_has_the_published_split(name):
    data = read_published(name)
    assert data.images.shape == (600, 150, 150)
    assert data.take(data.split == "train").counts() == {"FRI": 242, "FRII": 308}
    assert data.take(data.split == "test").counts() == {"FRI": 22, "FRII": 28}
    assert np.isnan(data.ra).all()
    assert len(set(data.names.tolist())) == 600
