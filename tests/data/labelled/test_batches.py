"""Pickled batches are read without running what is in them."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from survey_ml.data.labelled.batches import load_plain, read_batches
from survey_ml.errors import InputError


def make_batch(given, side=4, **changed) -> dict:
    rng = np.random.default_rng(len(given))
    return {
        "batch_label": "a batch",
        "labels": list(given),
        "data": [rng.integers(0, 255, side * side).astype(np.uint8) for _ in given],
        "filenames": [np.str_(f"./folder/s{k}.png") for k in range(len(given))],
    } | changed


def write_batches(folder, batches, classes=("FRI", "FRII"), protocol=3):
    folder.mkdir(exist_ok=True)
    meta = {"num_cases_per_batch": 3, "label_names": list(classes), "num_vis": 16}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol))
    for name, batch in batches.items():
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    return folder


def pack(folder, path):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "some/where")
    return path


@pytest.mark.parametrize("protocol", [3, 4])
def test_folder_and_archive_hold_what_was_written(tmp_path, protocol):
    parts = {
        "data_batch_1": make_batch([0, 1, 0]),
        "data_batch_10": make_batch([1]),
        "data_batch_2": make_batch([0, 0]),
        "test_batch": make_batch([1, 0]),
    }
    folder = write_batches(tmp_path / "batches", parts, protocol=protocol)
    (folder / "notes.txt").write_text("not read")
    for path in (folder, pack(folder, tmp_path / "batches.tar.gz")):
        found = read_batches(path)
        assert found.classes == ("FRI", "FRII")
        assert found.labels.tolist() == [0, 1, 0, 0, 0, 1, 1, 0]
        assert found.split.tolist() == ["train"] * 6 + ["test"] * 2
        assert found.names[:3].tolist() == ["./folder/s0.png", "./folder/s1.png", "./folder/s2.png"]
        order = ("data_batch_1", "data_batch_2", "data_batch_10", "test_batch")
        expected = np.concatenate([np.stack(parts[name]["data"]) for name in order])
        assert found.images.shape == (8, 4, 4)
        assert np.array_equal(found.images.reshape(8, 16), expected)


class Attack:
    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_in_a_pickle_is_called(tmp_path):
    attack = Attack()
    Attack.path = str(tmp_path / "made")
    folder = write_batches(
        tmp_path / "batches", {"data_batch_1": make_batch([0], extra=attack), "test_batch": make_batch([1])}
    )
    with pytest.raises(InputError, match=r"data_batch_1 cannot be read: ValueError: the pickle asks for"):
        read_batches(folder)
    assert not (tmp_path / "made").exists()
    pickle.loads((folder / "data_batch_1").read_bytes())
    assert (tmp_path / "made").exists()


def spell(*parts) -> bytes:
    return b"\x80\x03" + b"".join(parts) + b"."


def find(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (spell(find("builtins", "eval"), b"X\x01\x00\x00\x001\x85R"), "asks for builtins.eval"),
        (spell(find("numpy", "load")), "asks for numpy.load"),
        (spell(find("numpy", "dtype.__init__")), "asks for numpy.dtype.__init__"),
        (spell(b"(", find("numpy", "ndarray"), b"o"), "instruction OBJ"),
        (spell(b"(inumpy\nndarray\n"), "instruction INST"),
        (spell(find("numpy", "ndarray"), b")\x81"), "instruction NEWOBJ"),
        (spell(b"X\x01\x00\x00\x00aQ"), "instruction BINPERSID"),
        (spell(b"\x82\x01"), "instruction EXT1"),
        (spell(b"}r" + struct.pack("<I", 1 << 31)), "memo of number 2147483648"),
        # Written to the class itself, it would stay for the next file.
        *(
            (spell(find(module, name), b"N}X\x04\x00\x00\x00textNs\x86b"), "cannot be read: TypeError")
            for module, name in (
                ("numpy.core.multiarray", "scalar"),
                ("numpy", "dtype"),
                ("numpy", "ndarray"),
            )
        ),
        (spell(find("numpy", "dtype"), b"X\x02\x00\x00\x00O8\x85R"), "neither of 8-bit numbers nor text"),
        (b"", "a file cannot be read"),
        (b"\x80\x03}", "a file cannot be read"),
        (b"no pickle at all", "a file"),
    ],
)
def test_pickles_that_are_more_than_arrays_are_refused(content, said):
    with pytest.raises(InputError, match=said) as caught:
        load_plain(content, "a file")
    assert "a file" in caught.value.message
    good = pickle.dumps([np.str_("abc"), np.arange(4, dtype=np.uint8)], 3)
    text, array = load_plain(good, "another")
    assert text.text == "abc"
    assert array.values.tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    "value",
    [
        np.arange(3),
        np.arange(3.0),
        np.array([None]),
        np.arange(8, dtype=np.uint8).reshape(2, 2, 2),
        np.asfortranarray(np.arange(9, dtype=np.uint8).reshape(3, 3)),
        np.empty(0, np.uint8),
        np.float64(1.0),
        {1, 2},
        1 << 70,
    ],
)
def test_other_arrays_and_objects_are_refused(value):
    with pytest.raises(InputError):
        load_plain(pickle.dumps(value, 3), "a file")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"labels": [0]}, "2 images, 1 labels"),
        ({"labels": [0, 5]}, "a label 5, but 2 classes"),
        ({"labels": [0, "1"]}, "a label is no small number"),
        ({"labels": [0, -1]}, "a label is no small number"),
        ({"data": [np.zeros(16, np.uint8), np.zeros(9, np.uint8)]}, "not of one size"),
        ({"data": [np.zeros(15, np.uint8)] * 2}, "15 bytes is not square"),
        ({"data": [b"1234", b"1234"]}, "not of one size"),
        ({"data": None}, "lacks data"),
        ({"filenames": [1, 2]}, "no text"),
    ],
)
def test_batches_that_contradict_themselves_are_named(tmp_path, changed, said):
    parts = {"data_batch_1": make_batch([0, 1], **changed), "test_batch": make_batch([1, 0])}
    with pytest.raises(InputError, match=said):
        read_batches(write_batches(tmp_path / "batches", parts))


def test_batches_of_different_sizes_do_not_go_together(tmp_path):
    parts = {"data_batch_1": make_batch([0, 1], side=5), "test_batch": make_batch([1, 0])}
    with pytest.raises(InputError, match="different sizes"):
        read_batches(write_batches(tmp_path / "batches", parts))


def test_what_is_no_archive_of_batches_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no batches"):
        read_batches(tmp_path / "empty")
    text = tmp_path / "text.tar.gz"
    text.write_bytes(b"not packed")
    with pytest.raises(InputError, match=r"text\.tar\.gz cannot be unpacked"):
        read_batches(text)
    with pytest.raises(InputError, match="does not exist"):
        read_batches(tmp_path / "nowhere.tar.gz")
    parts = {"data_batch_1": make_batch([0]), "test_batch": make_batch([1])}
    whole = pack(write_batches(tmp_path / "batches", parts), tmp_path / "whole.tar.gz")
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(InputError, match="cannot be unpacked"):
        read_batches(cut)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("survey_ml.data.labelled.batches.LARGEST", 1 << 16)
    path = tmp_path / "bomb.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("batches.meta")
        member.size = 1 << 20
        archive.addfile(member, io.BytesIO(bytes(1 << 20)))
    assert path.stat().st_size < 1 << 14
    with pytest.raises(InputError, match="unpacks to more than"):
        read_batches(path)


def test_links_in_an_archive_are_not_followed(tmp_path):
    parts = {"data_batch_1": make_batch([0]), "test_batch": make_batch([1])}
    folder = write_batches(tmp_path / "batches", parts)
    path = tmp_path / "links.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder / "batches.meta", "batches.meta")
        archive.add(folder / "test_batch", "test_batch")
        link = tarfile.TarInfo("data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, str(folder / "data_batch_1")
        archive.addfile(link)
    with pytest.raises(InputError, match="holds no batches"):
        read_batches(path)
