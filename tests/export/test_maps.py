from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from survey_ml.export.maps import write_map


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int32", "float64"])
def test_a_map_is_a_fits_image_with_wcs_beam_and_unit(tmp_path, field, dtype):
    info = field("f", shape=(1100, 37))
    pixels = (np.random.default_rng(0).random(info.shape) * 100).astype(dtype)
    write_map(tmp_path / "m.fits", info, "rms", np.dtype(dtype), lambda y0, y1: pixels[y0:y1])
    with fits.open(tmp_path / "m.fits") as hdus:
        hdus.verify("exception")
        np.testing.assert_array_equal(hdus[0].data, pixels)
        header = hdus[0].header
    assert header["BMAJ"] == pytest.approx(8 / 3600) and header["BPA"] == 30
    assert header.get("BUNIT") == ("Jy/beam" if dtype.startswith("float") else None)
    assert header["BTYPE"] == "rms"
    assert WCS(header).all_pix2world([[3, 5]], 0) == pytest.approx(info.wcs.all_pix2world([[3, 5]], 0))


def test_memory_does_not_grow_with_the_field(tmp_path, field):
    info = field("f", shape=(20_000, 500))
    tracemalloc.start()
    write_map(
        tmp_path / "m.fits",
        info,
        "rms",
        np.dtype("float32"),
        lambda y0, y1: np.zeros((y1 - y0, 500), np.float32),
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "m.fits").stat().st_size > 40e6
    assert peak < 8e6
