"""Cutouts: plain pixels where scales agree, resampled and smoothed ones against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.errors import InputError
from survey_ml.field import Beam, Field
from survey_ml.stages.morphology.cutouts import BLOCK, cut_sources, group_places, smooth
from survey_ml.stages.morphology.sampling import FWHM, Target, plan_sampling

TARGET = Target(1.8, 5.4, 150)


FIRST = Beam(5.4, 5.4, 0.0)


def make_field(shape, pixel=(1.8, 1.8), beam=FIRST, turn=0.0):
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    cards = {
        "CTYPE1": "'RA---SIN'", "CTYPE2": "'DEC--SIN'", "CRVAL1": 150.0, "CRVAL2": 2.2,
        "CRPIX1": (shape[1] + 1) / 2, "CRPIX2": (shape[0] + 1) / 2,
        "CD1_1": -pixel[0] * cos / 3600, "CD1_2": pixel[1] * sin / 3600,
        "CD2_1": pixel[0] * sin / 3600, "CD2_2": pixel[1] * cos / 3600,
    }  # fmt: skip
    header = "".join(f"{key:<8}= {value!s:>20}".ljust(80) for key, value in cards.items())
    return Field("sky", shape, header, beam, 1.4e9)


def paint(field, pixel, sky, fwhm):
    """Draw round Gaussians at offsets (east, north) in arcsec from the middle, on a flat sky."""
    matrix = 3600 * np.array(field.sky.pixel_scale_matrix)
    y, x = np.mgrid[: field.shape[0], : field.shape[1]].astype(float)
    dx, dy = x - (field.shape[1] - 1) / 2, y - (field.shape[0] - 1) / 2
    east, north = (row[0] * dx + row[1] * dy for row in matrix)
    return sum(
        np.exp(-0.5 * ((east - e) ** 2 + (north - n) ** 2) * (FWHM / fwhm) ** 2) for e, n in sky
    ).astype(np.float32)


def cut_one(image, field, x, y, target=TARGET):
    sampling = plan_sampling(field, np.array([x]), np.array([y]), target)
    return next(iter(cut_sources(image, sampling, target.side))), sampling


@pytest.mark.parametrize(("x", "y"), [(300.4, 200.2), (299.6, 199.7), (0.0, 399.0), (-3.0, 50.0)])
def test_alike_pixels_are_taken_as_they_are(x, y):
    image = np.random.default_rng(1).normal(size=(400, 600)).astype(np.float32)
    image[210, 310] = np.nan
    cutout, sampling = cut_one(image, make_field((400, 600), (1.795, 1.805)), x, y)
    assert sampling.plain.all()
    row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    padded = np.pad(image, 200, constant_values=np.nan)
    window = padded[row + 200 - 75 : row + 200 + 75, column + 200 - 75 : column + 200 + 75]
    np.testing.assert_array_equal(cutout.pixels, window)
    there = np.pad(np.ones(image.shape, bool), 200)
    np.testing.assert_array_equal(cutout.inside, there[row + 125 : row + 275, column + 125 : column + 275])


@pytest.mark.parametrize("pixel", [(0.6, 0.6), (1.2, 1.2), (2.3, 2.3), (2.5, 1.5)])
@pytest.mark.parametrize("turn", [0.0, 25.0])
def test_other_pixels_give_what_the_training_would_have_seen(pixel, turn):
    sky = [(0.0, 0.0), (31.0, -14.0), (-22.5, 40.0)]
    shape = (round(330 / pixel[1]), round(330 / pixel[0]))
    field = make_field(shape, pixel, turn=turn)
    image = paint(field, pixel, sky, 5.4)
    cutout, sampling = cut_one(image, field, (shape[1] - 1) / 2, (shape[0] - 1) / 2)
    assert not sampling.plain.any() and not sampling.blur.any()
    # The cutout keeps the image's orientation, so it is the same sky on square pixels, turned.
    square = make_field((151, 151), turn=turn)
    allowed = 0.035 if max(pixel) > 2.0 else 0.005  # 2.2 to 9 pixels a beam
    expected = paint(square, (1.8, 1.8), sky, 5.4)[:150, :150]
    # Only where pixels are not square is the turn of the cutout not that of the image's axes.
    if pixel[0] == pixel[1] or turn == 0.0:
        np.testing.assert_allclose(cutout.pixels, expected, atol=allowed)
    assert cutout.pixels[75, 75] == pytest.approx(1.0, abs=allowed)
    assert cutout.pixels.sum() == pytest.approx(expected.sum(), rel=0.2 * allowed)


def test_a_sharper_beam_is_smoothed_to_the_model_s():
    field = make_field((700, 700), (0.6, 0.6), Beam(3.0, 2.0, 30.0))
    y, x = np.mgrid[:700, :700] - 349.5
    angle = np.radians(30.0)
    # East is to the left: along the major axis.
    along = (-np.sin(angle) * x + np.cos(angle) * y) * 0.6
    across = (np.cos(angle) * x + np.sin(angle) * y) * 0.6
    point = np.exp(-0.5 * FWHM**2 * ((along / 3.0) ** 2 + (across / 2.0) ** 2)).astype(np.float32)
    cutout, sampling = cut_one(point, field, 349.5, 349.5)
    wanted = paint(make_field((151, 151)), (1.8, 1.8), [(0.0, 0.0)], 5.4)[:150, :150]
    np.testing.assert_allclose(cutout.pixels / cutout.pixels.max(), wanted, atol=0.005)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(sampling.blur[0]),
        np.sort([5.4**2 - 3.0**2, 5.4**2 - 2.0**2]) / FWHM**2 / 0.36,
        rtol=1e-6,
    )


@pytest.mark.parametrize("beam", [Beam(5.4, 5.4, 0), Beam(5.2, 5.2, 0), Beam(9.0, 7.0, 10.0)])
def test_an_alike_or_wider_beam_is_left_alone(beam):
    assert not plan_sampling(make_field((9, 9), beam=beam), np.zeros(1), np.zeros(1), TARGET).blur.any()


def test_smoothing_keeps_the_sky_s_level_and_blanks():
    window = np.full((60, 80), 3.0, np.float32)
    window[20:30, 40:] = np.nan
    smoothed = smooth(window, np.array([[4.0, 1.0], [1.0, 2.0]]))
    np.testing.assert_array_equal(np.isnan(smoothed), np.isnan(window))
    np.testing.assert_allclose(smoothed[np.isfinite(window)], 3.0, rtol=1e-5)


@pytest.mark.parametrize("pixel", [1.8, 0.9])
def test_blank_pixels_stay_blank(pixel):
    side = round(600 / pixel)
    image = np.ones((side, side), np.float32)
    image[: side // 2] = np.nan
    cutout, _ = cut_one(image, make_field((side, side), (pixel, pixel)), side / 2, side / 2)
    assert cutout.inside.all()
    assert np.isnan(cutout.pixels[:74]).all()
    np.testing.assert_allclose(cutout.pixels[77:], 1.0, atol=1e-3)


class Counted:
    """An array that counts how it is read."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.reads = values, values.shape, values.dtype, 0

    def __getitem__(self, index):
        self.reads += 1
        assert all(0 <= part.start < part.stop <= n for part, n in zip(index, self.shape, strict=True))
        return self.values[index]


def test_neighbours_are_cut_from_one_read_and_change_nothing():
    shape = (1300, 1400)
    image = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    field = make_field(shape)
    rng = np.random.default_rng(3)
    x, y = rng.uniform(-5, 1404, 60), rng.uniform(-5, 1304, 60)
    counted = Counted(image)
    sampling = plan_sampling(field, x, y, TARGET)
    found = {cutout.row: cutout for cutout in cut_sources(counted, sampling, 150)}
    assert counted.reads <= 9 and sorted(found) == list(range(60))
    for k in (0, 7, 33):
        alone = next(iter(cut_sources(image, sampling, 150, np.array([k]))))
        np.testing.assert_array_equal(alone.pixels, found[k].pixels)
        np.testing.assert_array_equal(alone.around, found[k].around)


def test_groups_are_squares_and_hold_every_place_once():
    rng = np.random.default_rng(4)
    x, y = rng.uniform(0, 5000, 300), rng.uniform(0, 3000, 300)
    groups = list(group_places(x, y))
    assert sorted(np.concatenate(groups).tolist()) == list(range(300))
    assert all(np.ptp(x[g]) < BLOCK and np.ptp(y[g]) < BLOCK for g in groups)
    assert list(group_places(x[:0], y[:0])) == []


def test_no_place_gives_no_cutout():
    image, field = np.zeros((40, 40), np.float32), make_field((40, 40))
    sampling = plan_sampling(field, np.array([np.nan, 5.0, 1e9]), np.array([1.0, 5.0, 0.0]), TARGET)
    assert [cutout.row for cutout in cut_sources(image, sampling, 150)] == [1]
    far = plan_sampling(field, np.array([3000.0]), np.array([20.0]), TARGET)
    cutout = next(iter(cut_sources(image, far, 150)))
    assert np.isnan(cutout.pixels).all() and not cutout.inside.any()


def test_an_image_much_too_sharp_is_refused():
    field = make_field((40, 40), (0.02, 0.02))
    sampling = plan_sampling(field, np.array([20.0]), np.array([20.0]), TARGET)
    with pytest.raises(InputError, match=r"px wide, of 0\.02 arcsec each"):
        list(cut_sources(np.zeros((40, 40), np.float32), sampling, 150))
