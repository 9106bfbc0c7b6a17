"""PNG of any depth and colours become one plane."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from survey_ml.data.png import read_png
from survey_ml.errors import InputError

GREY = np.random.default_rng(0).integers(0, 256, (9, 11)).astype(np.uint8)


def save(path, array, mode=None, **options):
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA"])
def test_grey_in_any_mode_is_the_same(tmp_path, mode):
    found = read_png(save(tmp_path / "x.png", GREY, mode))
    assert found.dtype == np.uint8
    assert found.flags.writeable
    assert np.array_equal(found, GREY)


def test_bits_are_black_and_white(tmp_path):
    Image.fromarray(GREY > 100).save(tmp_path / "x.png")
    assert np.array_equal(read_png(tmp_path / "x.png"), np.where(GREY > 100, 255, 0))


def test_sixteen_bits_keep_their_steps(tmp_path):
    deep = GREY.astype(np.uint16) * 251 + 3
    found = read_png(save(tmp_path / "x.png", deep))
    assert found.dtype == np.float32
    assert np.array_equal(found, deep.astype(np.float32))


def test_colours_are_averaged_and_transparent_is_dark(tmp_path):
    colours = np.zeros((2, 2, 4), np.uint8)
    colours[0, 0] = 30, 60, 90, 255
    colours[0, 1] = 200, 200, 200, 0
    colours[1, 0] = 100, 100, 100, 51
    colours[1, 1] = 255, 254, 254, 255
    assert read_png(save(tmp_path / "x.png", colours)).tolist() == [[60, 0], [20, 254]]
    assert read_png(save(tmp_path / "y.png", colours[..., :3].copy())).tolist() == [[60, 200], [100, 254]]
    key = int(GREY[0, 0])
    keyed = save(tmp_path / "z.png", GREY, transparency=key)
    assert np.array_equal(read_png(keyed), np.where(key == GREY, 0, GREY))


def write_claim(path, width, height):
    """Write a small PNG that claims to be large."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("side", [5000, 12000, 60000])
def test_a_claim_of_many_pixels_is_refused_unread(tmp_path, side):
    with pytest.raises(InputError, match=r"x\.png has .*more than 16777216"):
        read_png(write_claim(tmp_path / "x.png", side, side))


def test_what_is_no_png_is_named(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(GREY).save(path, format="JPEG")
    with pytest.raises(InputError, match=r"x\.png cannot be read as a PNG"):
        read_png(path)
    save(path, GREY)
    content = path.read_bytes()
    for bad in (content[:60], content[:-50], content[:45] + b"\xff" + content[46:], b""):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=r"x\.png cannot be read as a PNG"):
            read_png(path)
    with pytest.raises(InputError, match="does not exist"):
        read_png(tmp_path / "none.png")
