"""Files of cutouts come back as they were written, and nothing else is read."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from survey_ml.data.labelled.product import label_cutouts, read_cutout_file, write_cutout_file
from survey_ml.data.labelled.reading import read_labelled
from survey_ml.errors import InputError
from survey_ml.labelled import join_images

IMAGES = np.random.default_rng(1).normal(size=(4, 9, 10)).astype(np.float32)
NAMES = ["a", "b", "ç", "d"]
RA, DEC = [1.0, 2.0, np.nan, 4.0], [-1.0, 0.0, np.nan, 90.0]
LABELS = ["bent", "FRI", "bent", "FRI"]


def test_everything_comes_back(tmp_path):
    path = write_cutout_file(tmp_path / "cutouts.npz", IMAGES, NAMES, RA, DEC, [1.8, 1.8, 2.0, 1.5], LABELS)
    found = read_cutout_file(path)
    assert np.array_equal(found.images, IMAGES)
    assert found.images.dtype == np.float32
    assert found.names.tolist() == NAMES
    assert np.array_equal(found.ra, RA, equal_nan=True)
    assert np.array_equal(found.dec, DEC, equal_nan=True)
    assert found.pixel_arcsec.tolist() == [1.8, 1.8, 2.0, 1.5]
    assert found.label is not None
    assert found.label.tolist() == LABELS
    assert [file.name for file in tmp_path.iterdir()] == ["cutouts.npz"]
    # A network that is trained on all of them would see sources at several scales.
    with pytest.raises(InputError, match=r"pixels of 1\.5 to 2 arcsec"):
        read_labelled(path)
    write_cutout_file(path, IMAGES, NAMES, RA, DEC, [1.5, 1.5 + 1e-7, 1.5, np.nan], LABELS)
    data = read_labelled(path)
    assert data.pixel_arcsec == data.take([0]).pixel_arcsec == 1.5
    unknown = replace(data, pixel_arcsec=np.nan)
    assert join_images([unknown, data]).pixel_arcsec == 1.5
    with pytest.raises(InputError, match="do not go together"):
        join_images([data, replace(data, pixel_arcsec=1.8)])
    assert data.classes == ("FRI", "bent")
    assert data.labels.tolist() == [1, 0, 1, 0]
    assert np.array_equal(data.images, IMAGES)
    assert read_labelled(path, classes=("bent", "FRI")).labels.tolist() == [0, 1, 0, 1]


def test_one_pixel_size_for_all_and_no_label(tmp_path):
    eight = (IMAGES > 0).astype(np.uint8)
    found = read_cutout_file(write_cutout_file(tmp_path / "x.npz", eight, NAMES, RA, DEC, 1.8))
    assert found.images.dtype == np.uint8
    assert found.pixel_arcsec.tolist() == [1.8] * 4
    assert found.label is None
    with pytest.raises(InputError, match="has no column label"):
        label_cutouts(found)


def test_classes_that_are_wrong_are_named_with_their_row(tmp_path):
    path = write_cutout_file(tmp_path / "x.npz", IMAGES, NAMES, RA, DEC, 1.8, ["bent", "FRI", "", "FRI"])
    with pytest.raises(InputError, match=r"row 2 \(ç\) has no class"):
        read_labelled(path)
    path = write_cutout_file(tmp_path / "x.npz", IMAGES, NAMES, RA, DEC, 1.8, LABELS)
    with pytest.raises(InputError, match=r"row 0 \(a\) has the unknown class 'bent'"):
        read_labelled(path, classes=("FRI", "FRII"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": IMAGES.astype(float)}, "images are float64"),
        ({"images": IMAGES[0]}, "not \\(n, y, x\\)"),
        ({"images": IMAGES[:0]}, "not \\(n, y, x\\)"),
        ({"names": NAMES[:3]}, "names has the shape"),
        ({"ra": [1.0]}, "ra has the shape"),
        ({"pixel_arcsec": [1.8, 1.8]}, "pixel_arcsec has the shape"),
        ({"label": LABELS[:2]}, "label has the shape"),
    ],
)
def test_arrays_that_do_not_belong_together_are_not_written(tmp_path, changed, said):
    arrays = {"images": IMAGES, "names": NAMES, "ra": RA, "dec": DEC, "pixel_arcsec": 1.8} | changed
    with pytest.raises(InputError, match=said):
        write_cutout_file(tmp_path / "x.npz", **arrays)
    assert not list(tmp_path.iterdir())


def write_raw(path, arrays):
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array), allow_pickle=True)
            archive.writestr(f"{name}.npy", content.getvalue())
    return path


GOOD = {"images": IMAGES, "names": np.array(NAMES), "ra": RA, "dec": DEC, "pixel_arcsec": 1.8}


def test_files_of_other_kinds_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    assert len(read_cutout_file(write_raw(path, GOOD)).images) == 4
    for changed, said in (
        ({"names": np.array(NAMES, object)}, "allow_pickle=False"),
        ({"label": np.array([b"a"] * 4)}, "label cannot be"),
        ({"ra": np.array(["1"] * 4)}, "ra cannot be"),
    ):
        with pytest.raises(InputError, match=said):
            read_cutout_file(write_raw(path, GOOD | changed))
    with pytest.raises(InputError, match="there is no names, dec"):
        read_cutout_file(write_raw(path, {key: GOOD[key] for key in ("images", "ra", "pixel_arcsec")}))
    content = write_raw(path, GOOD).read_bytes()
    for bad in (content[:300], b"text", b""):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=r"x\.npz cannot be read"):
            read_cutout_file(path)
    with pytest.raises(InputError, match="does not exist"):
        read_cutout_file(tmp_path / "none.npz")
    write_raw(path, GOOD)
    monkeypatch.setattr("survey_ml.data.labelled.product.LARGEST", 1000)
    with pytest.raises(InputError, match="unpacks to"):
        read_cutout_file(path)


def test_a_file_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    path = write_cutout_file(tmp_path / "x.npz", IMAGES, NAMES, RA, DEC, 1.8)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="no space"):
        write_cutout_file(path, IMAGES + 1, NAMES, RA, DEC, 1.8)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
