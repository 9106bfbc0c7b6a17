"""Simulated skies as files open like any other image."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from survey_ml.config import Defaults
from survey_ml.data.fits import FitsReader
from survey_ml.data.sky import main, make_header, write_image
from survey_ml.field import Window
from survey_ml.simulation.sky import Recipe, simulate_sky


@pytest.mark.parametrize("axes", [2, 4])
def test_the_reader_gets_back_what_was_written(tmp_path, axes):
    sky = simulate_sky(Recipe(96, 3, "noise"))
    path = write_image(tmp_path / "sky.fits", sky.image, sky.field, axes=axes)
    with FitsReader(str(path)) as reader:
        field, scale = reader.describe(Defaults(), "sky")
        image = reader.read(Window(0, 96, 0, 96))
    assert scale == 1.0
    np.testing.assert_array_equal(image, sky.image)
    assert (field.beam.major, field.beam.minor, field.beam.pa) == pytest.approx((8.0, 6.4, 35.0))
    assert field.frequency == pytest.approx(1.4e9)
    at = np.array([[10.0, 20.0], [80.5, 3.25]])
    np.testing.assert_allclose(field.wcs.all_pix2world(at, 0), sky.field.wcs.all_pix2world(at, 0), atol=1e-9)


def test_four_axes_are_frequency_and_stokes():
    header = make_header(Recipe(64).describe(), axes=4)
    assert (header["CTYPE3"], header["CTYPE4"]) == ("FREQ", "STOKES")
    assert header["CRVAL3"] == 1.4e9


def test_the_command_writes_image_and_truth(tmp_path, capsys):
    out, truth = tmp_path / "a.fits", tmp_path / "a.parquet"
    assert main(["--size", "256", "--seed", "4", "--out", str(out), "--truth", str(truth)]) == 0
    assert "256 x 256 px, seed 4" in capsys.readouterr().out
    with fits.open(out) as opened:
        assert opened[0].data.shape == (256, 256)
        assert opened[0].header["BUNIT"] == "Jy/beam"
    table = pq.read_table(truth)
    expected = simulate_sky(Recipe(256, 4)).truth
    np.testing.assert_array_equal(table["ra"].to_numpy(), expected["ra"])
    assert table["kind"].to_pylist() == list(expected["kind"])
    assert table.schema.field("total_flux").metadata == {b"unit": b"Jy"}
