"""firstgalaxydata holds what was published, and its sources are where MiraBest's are."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from real_images import read_mirabest, read_published

from survey_ml.data.labelled.firstgalaxy import read_archive, read_firstgalaxy
from survey_ml.data.labelled.mirabest import select_mirabest
from survey_ml.data.labelled.reading import read_labelled
from survey_ml.errors import ConfigError, InputError
from survey_ml.learning.splits import find_most_similar, find_neighbours
from survey_ml.models.format import read_card
from survey_ml.models.registry import find_model

h5py = pytest.importorskip("h5py")


def write_archive(path, labels, splits, side=300):
    """Write an archive in the form of the package's."""
    target = path.with_suffix(".h5")
    with h5py.File(target, "w") as file:
        for k, (label, split) in enumerate(zip(labels, splits, strict=True)):
            group = file.create_group(f"data_{k}")
            image = group.create_dataset("Img", data=np.full((side, side), k, np.uint8))
            image.attrs.update({"RA": 10.0 + k, "DEC": -k, "Filepath_literature": f"FRI/{k}_x_MiraBest.png"})
            group["Label_literature"] = float(label)
            group["Split_literature"] = split
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(target, target.name)
    return path


def test_an_archive_of_the_form_is_read(tmp_path):
    path = write_archive(tmp_path / "x.zip", [0, 3, 5, 2], ["train", "test", "train", "valid"])
    data = read_labelled(path)
    assert data.classes == ("FRI", "FRII", "compact", "bent")
    assert data.labels.tolist() == [0, 3, 2]
    assert data.images[:, 0, 0].tolist() == [0, 1, 3]
    assert data.names.tolist() == ["0_x_MiraBest", "1_x_MiraBest", "3_x_MiraBest"]
    assert data.ra.tolist() == [10.0, 11.0, 13.0]
    assert data.dec.tolist() == [0.0, -1.0, -3.0]
    assert data.split.tolist() == ["train", "test", "valid"]
    assert read_labelled(path, split="valid").names.tolist() == ["3_x_MiraBest"]


def test_archives_that_are_not_as_published_are_named(tmp_path):
    with pytest.raises(InputError, match=r"data_0: uint8 \(20, 20\) is not an 8-bit image"):
        read_archive(write_archive(tmp_path / "a.zip", [0], ["train"], side=20))
    with pytest.raises(InputError, match="data_0 is of the split 'dev'"):
        read_archive(write_archive(tmp_path / "b.zip", [0], ["dev"]))
    with pytest.raises(InputError, match="has no images of the split test"):
        read_archive(write_archive(tmp_path / "c.zip", [0], ["train"]), "test")
    with pytest.raises(ConfigError, match="fold9"):
        read_firstgalaxy("fold9")
    (tmp_path / "d.zip").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"d\.zip cannot be read"):
        read_archive(tmp_path / "d.zip")


@pytest.mark.real
def test_the_published_split():
    data = read_published("firstgalaxy")
    assert data.images.shape == (2158, 300, 300)
    assert data.images.dtype == np.uint8
    counts = {
        split: list(data.take(data.split == split).counts().values()) for split in ("train", "valid", "test")
    }
    assert counts == {"train": [395, 824, 291, 248], "valid": [50] * 4, "test": [50] * 4}
    assert len(set(data.names.tolist())) == 2158
    train = data.split == "train"
    near = find_neighbours(data.ra[train], data.dec[train], data.ra[~train], data.dec[~train], 30.0)[0]
    assert not len(near)


@pytest.mark.real
def test_the_folds_have_a_test_set_of_their_own():
    """A model trained on the literature's split has seen most of it."""
    data, held = read_published("firstgalaxy"), read_published("firstgalaxy", "fold0", "test")
    assert held.counts() == {"FRI": 100, "FRII": 100, "compact": 100, "bent": 100}
    split = dict(zip(data.names.tolist(), data.split.tolist(), strict=True))
    found = [split[name] for name in held.names.tolist()]
    assert [found.count(part) for part in ("train", "valid", "test")] == [288, 58, 54]


@pytest.mark.real
def test_most_of_the_test_set_of_mirabest_is_in_its_training_set():
    """Which is why no model of the one is tested on the other without leaving these out."""
    data, table = read_published("firstgalaxy"), select_mirabest(read_mirabest(), "all")
    test, train = table.take(table.split == "test"), data.take(data.split == "train")
    pairs, _ = find_neighbours(test.ra, test.dec, train.ra, train.dec, 30.0)
    assert len(pairs) == len(set(pairs[:, 0].tolist())) == 82
    assert len(find_neighbours(table.ra, table.dec, data.ra, data.dec, 30.0)[0]) == 814


@pytest.mark.real
def test_without_positions_the_images_tell_the_same_source():
    data, table = read_published("firstgalaxy"), select_mirabest(read_mirabest(), "all")
    test = table.take(table.split == "test")
    pairs, _ = find_neighbours(test.ra, test.dec, data.ra, data.dec, 30.0)
    assert len(pairs) == 102
    kept = np.union1d(pairs[:, 1], np.arange(0, len(data), 4))
    found, values = find_most_similar(test.images[pairs[:, 0]], data.images[kept, 75:225, 75:225])
    assert (kept[found] == pairs[:, 1]).mean() > 0.85
    assert np.median(values) > 0.97


def test_models_of_these_images_take_the_clip_off_as_the_images_do():
    """No image has a gap between zero and its faintest pixel, as it would if it began at the clip."""
    data = read_published("firstgalaxy", split="test")
    assert data.subtracted and data.take(slice(3)).subtracted
    faintest = [image[image > 0].min() for image in data.images]
    assert np.median(faintest) == 1
    for name in ("firstgalaxy-attention", "firstgalaxy-forest"):
        assert read_card(find_model(name).path)[0].preprocessing.subtract_clip
    assert not read_card(find_model("mirabest-d4").path)[0].preprocessing.subtract_clip
