"""One entry finds out what a source is."""

from __future__ import annotations

import numpy as np
import pytest
from real_images import read_published
from test_batches import make_batch, pack, write_batches

from survey_ml.data.labelled.mirabest import CODES
from survey_ml.data.labelled.reading import find_data, read_labelled
from survey_ml.errors import ConfigError, InputError

NAMES = [f"{code}_188.320+019.481_0.2282_0049.17.png" for code in CODES]


def write_mirabest(folder):
    parts = {
        "data_batch_1": make_batch(range(10), filenames=NAMES),
        "test_batch": make_batch([0, 7], filenames=[NAMES[0], NAMES[7]]),
    }
    return write_batches(folder, parts, classes=tuple(map(str, CODES)))


def test_mirabest_and_frdeep_are_told_apart_by_their_classes(tmp_path):
    mirabest = write_mirabest(tmp_path / "mirabest")
    frdeep = write_batches(
        tmp_path / "frdeep", {"data_batch_1": make_batch([0, 1, 1]), "test_batch": make_batch([1])}
    )
    for path in (mirabest, pack(mirabest, tmp_path / "m.tar.gz")):
        assert read_labelled(path).counts() == {"FRI": 4, "FRII": 2}
        assert read_labelled(path, "uncertain").counts() == {"FRI": 2, "FRII": 2}
        assert read_labelled(path, "uncertain", "test").names.tolist() == [NAMES[7].removesuffix(".png")]
        assert read_labelled(path, "all", "train").counts() == {"FRI": 5, "FRII": 3, "hybrid": 2}
    data = read_labelled(pack(frdeep, tmp_path / "f.tgz"))
    assert data.classes == ("FRI", "FRII")
    assert data.names.tolist() == ["FRI/s0", "FRII/s1", "FRII/s2", "FRII/s0"]
    assert np.isnan(data.ra).all()
    assert read_labelled(frdeep, split="test").labels.tolist() == [1]
    other = write_batches(
        tmp_path / "o", {"data_batch_1": make_batch([0]), "test_batch": make_batch([1])}, ("cat", "dog")
    )
    with pytest.raises(InputError, match="the classes cat, dog, not FRI and FRII"):
        read_labelled(other)


def test_names_look_into_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SURVEY_ML_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=r"MiraBest_full_batches\.tar\.gz is not in") as caught:
        read_labelled("mirabest")
    assert "SURVEY_ML_DATA" in caught.value.hint
    (tmp_path / "radio_galaxies").mkdir()
    pack(write_mirabest(tmp_path / "m"), tmp_path / "radio_galaxies" / "MiraBest_full_batches.tar.gz")
    assert len(read_labelled("mirabest", split="test")) == 1
    monkeypatch.delenv("SURVEY_ML_DATA")
    for name in ("here", "shared"):
        (tmp_path / name).mkdir()
    (tmp_path / "shared" / "data").mkdir()
    (tmp_path / "radio_galaxies").rename(tmp_path / "shared" / "data" / "radio_galaxies")
    monkeypatch.chdir(tmp_path / "here")
    assert find_data("radio_galaxies").samefile(tmp_path / "shared" / "data" / "radio_galaxies")
    assert len(read_labelled("mirabest", "all")) == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "neither a file nor a data set known by name"),
        (("mirabest", "sure"), "no subset 'sure'"),
        (("mirabest", None, "dev"), "no split 'dev'"),
        (("firstgalaxy", "fold9"), "no subset 'fold9'"),
        (("frdeep-first", "confident"), "frdeep-first has no subsets"),
        ((".", "confident"), "has no subsets"),
    ],
)
def test_what_is_unknown_is_named(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SURVEY_ML_DATA", str(tmp_path))
    (tmp_path / "radio_galaxies").mkdir()
    pack(write_mirabest(tmp_path / "m"), tmp_path / "radio_galaxies" / "MiraBest_full_batches.tar.gz")
    with pytest.raises(ConfigError, match=said):
        read_labelled(*arguments)


def test_a_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(InputError, match="unknown format"):
        read_labelled(tmp_path / "x.txt")


@pytest.mark.real
def test_the_calls_that_training_makes():
    train, test = (read_published("mirabest", "confident", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (729, 104)
    assert len(read_published("mirabest", "uncertain", "test")) == 49
    assert len(read_published("mirabest", "no-hybrid", "test")) == 153
    assert not set(train.names.tolist()) & set(test.names.tolist())
