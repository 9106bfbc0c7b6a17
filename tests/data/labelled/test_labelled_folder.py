"""A folder of images with a table: what is wrong is named with its line."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from survey_ml.data.labelled.folder import read_labelled_folder
from survey_ml.data.labelled.naming import number_classes
from survey_ml.data.labelled.reading import read_labelled
from survey_ml.errors import ConfigError, InputError

SIDE = 12


def write_folder(folder, lines, header="file,label", kind="png", n=4):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (n, SIDE, SIDE)).astype(np.uint8)
    for k, image in enumerate(images):
        if kind == "png":
            Image.fromarray(image).save(folder / f"{k}.png")
        else:
            fits.PrimaryHDU(image.astype(np.float32) - 0.5).writeto(folder / f"{k}.fits")
    (folder / "labels.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder, images


GOOD = ["0.png,FRI", "1.png,FRII", "2.png,FRII", "3.png,FRI"]


def test_images_come_in_the_order_of_the_table(tmp_path):
    folder, images = write_folder(tmp_path / "set", [GOOD[2], GOOD[0], "", GOOD[1], GOOD[3]])
    for data in (read_labelled_folder(folder), read_labelled(folder), read_labelled(folder / "labels.csv")):
        assert data.classes == ("FRI", "FRII")
        assert data.labels.tolist() == [1, 0, 1, 0]
        assert data.images.dtype == np.uint8
        assert np.array_equal(data.images, images[[2, 0, 1, 3]])
        assert data.names.tolist() == ["2.png", "0.png", "1.png", "3.png"]
        assert np.isnan(data.ra).all()
        assert set(data.split.tolist()) == {""}


def test_positions_and_splits_are_optional_and_columns_in_any_order(tmp_path):
    lines = [
        'FRI,train,10.5,-3,"0.fits",x',
        "FRI,test,,,1.fits,x",
        "FRII,train,370,NaN,2.fits,x".replace("370", "nan"),
        "FRII,,359,89.5,3.fits,x",
    ]
    folder, images = write_folder(tmp_path / "set", lines, "label,split,RA,Dec,FILE,note", "fits")
    data = read_labelled(folder)
    assert data.images.dtype == np.float32
    assert np.array_equal(data.images, images - np.float32(0.5))
    assert data.split.tolist() == ["train", "test", "train", ""]
    assert np.array_equal(data.ra, [10.5, np.nan, np.nan, 359.0], equal_nan=True)
    assert np.array_equal(data.dec, [-3.0, np.nan, np.nan, 89.5], equal_nan=True)
    part = read_labelled(folder, split="test")
    assert part.names.tolist() == ["1.fits"]
    assert part.classes == ("FRI", "FRII")
    with pytest.raises(ConfigError, match="no images of the split valid") as caught:
        read_labelled(folder, split="valid")
    assert "test, train" in caught.value.hint


def test_classes_keep_the_order_of_the_model(tmp_path):
    folder, _ = write_folder(tmp_path / "set", GOOD)
    data = read_labelled(folder, classes=("FRII", "FRI"))
    assert data.classes == ("FRII", "FRI")
    assert data.labels.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([*GOOD, "4.png,FRI"], "line 6: 4.png does not exist"),
        ([*GOOD[:3], "3.png,FR1"], "line 5 has the unknown class 'FR1'; did you mean FRI?"),
        ([*GOOD[:3], "3.png,"], "line 5 has no class"),
        ([*GOOD[:3], ",FRI"], "line 5 names no file"),
        ([*GOOD[:3], "3.png"], "line 5 has 1 values for 2 columns"),
        ([*GOOD[:2], "2.png,FRI"], "line 3 is the only one of the class FRII"),
        (["0.png,FRI", "1.png,FRI"], "no image has the class FRII"),
        (GOOD[:1], "lists 1 images"),
        ([], "lists 0 images"),
        (['0.png,"FRI'], "cannot be read"),
        ([*GOOD, "labels.csv,FRI"], "line 6: .*labels.csv has an unknown format"),
    ],
)
def test_what_is_wrong_with_a_table_is_named_with_its_line(tmp_path, lines, said):
    folder, _ = write_folder(tmp_path / "set", lines)
    with pytest.raises(InputError, match=said):
        read_labelled_folder(folder, classes=("FRI", "FRII"))


@pytest.mark.parametrize(
    ("header", "last", "said"),
    [
        ("file,label,ra,dec", "3.png,FRI,1.0,", "line 5 has no position"),
        ("file,label,ra,dec", "3.png,FRI,1.0,95", "line 5 has no position"),
        ("file,label,ra,dec", "3.png,FRI,12h,5", "line 5: ra is '12h', no number"),
        ("file,label,ra,dec", "3.png,FRI,inf,5", "line 5: ra is 'inf', no number"),
        ("file,label,split,x", "3.png,FRI,dev,", "line 5 has the unknown split 'dev'"),
        ("file,label,file,x", "3.png,FRI,,", "line 1 names a column twice"),
        ("name,label,ra,dec", "3.png,FRI,,", "line 1 has no column file"),
        ("a,b,c,d", "3.png,FRI,,", "line 1 has no column file and label"),
    ],
)
def test_what_is_wrong_with_a_column_is_named_with_its_line(tmp_path, header, last, said):
    folder, _ = write_folder(tmp_path / "set", [f"{line},," for line in GOOD[:3]] + [last], header)
    with pytest.raises(InputError, match=said):
        read_labelled_folder(folder)


def test_images_must_be_of_one_size_and_depth(tmp_path):
    folder, images = write_folder(tmp_path / "set", GOOD)
    Image.fromarray(images[3][:, :10]).save(folder / "3.png")
    with pytest.raises(InputError, match=r"line 5: 3\.png has 12 x 10 pixels, 0\.png has 12 x 12"):
        read_labelled_folder(folder)
    Image.fromarray(images[3].astype(np.uint16) * 200).save(folder / "3.png")
    with pytest.raises(InputError, match=r"line 5: 3\.png is not 8-bit, 0\.png is 8-bit"):
        read_labelled_folder(folder)
    (folder / "3.png").write_bytes((folder / "0.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"line 5: .*3\.png cannot be read as a PNG"):
        read_labelled_folder(folder)
    np.save(folder / "3.npy", images)
    (folder / "labels.csv").write_text("file,label\n" + "\n".join([*GOOD[:3], "3.npy,FRI"]))
    with pytest.raises(InputError, match=r"line 5: .*3\.npy holds more than one image"):
        read_labelled_folder(folder)


def test_a_folder_without_a_table_says_what_to_write(tmp_path):
    with pytest.raises(InputError, match=r"labels\.csv does not exist") as caught:
        read_labelled(tmp_path)
    assert "file,label" in caught.value.hint


def test_numbers_of_classes():
    labels, classes = number_classes(["b", "a", "b", "a"], ["1", "2", "3", "4"])
    assert labels.tolist() == [1, 0, 1, 0]
    assert classes == ("a", "b")
    with pytest.raises(InputError, match="all 2 images are of one class"):
        number_classes(["a", "a"], ["1", "2"])
    with pytest.raises(InputError, match="only 2 images have the class b"):
        number_classes(["a", "b", "a", "b", "a"], list("12345"), least=3)
    assert number_classes(["a", "b"], ["1", "2"], least=1)[0].tolist() == [0, 1]
