"""One image in memory, as a notebook opens it."""

from __future__ import annotations

import numpy as np
import pytest
from fits_files import make_image, write_image

from survey_ml import open_image
from survey_ml.errors import InputError
from survey_ml.field import Beam


@pytest.mark.parametrize("kind", ["plain", "rows", "gzip"])
def test_pixels_are_in_jansky_and_the_field_is_that_of_the_header(tmp_path, kind):
    path = write_image(
        tmp_path / f"north.fits{'.gz' * (kind == 'gzip')}", kind=kind, BUNIT="mJy/beam", RESTFRQ=1.4e9
    )
    image, field = open_image(path)
    expected = make_image() * np.float32(1e-3)
    assert image.dtype == np.float32 and np.array_equal(image, expected, equal_nan=True)
    assert (field.name, field.shape, field.frequency) == ("north", image.shape, 1.4e9)
    assert (field.beam.major, field.beam.minor, field.beam.pa) == pytest.approx((6, 5, 30))


def test_what_the_header_lacks_can_be_given_and_the_error_says_how(tmp_path):
    path = write_image(tmp_path / "a.fits", BMAJ=None, BUNIT=None)
    with pytest.raises(InputError, match="BUNIT") as caught:
        open_image(str(path), beam_arcsec=(5.4, 5.4, 0.0))
    assert "open_image(path, unit=" in caught.value.hint
    with pytest.raises(InputError, match="no beam") as caught:
        open_image(str(path), unit="Jy/beam")
    assert "open_image(path, beam_arcsec=" in caught.value.hint
    _, field = open_image(path, beam_arcsec=(5.4, 5.4, 0.0), unit="Jy/beam", frequency_hz=1.4e9)
    assert (field.beam, field.frequency) == (Beam(5.4, 5.4, 0.0), 1.4e9)
