"""Islands: the same pixels as a labelling of the whole image, in an order that no tile changes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from survey_ml.field import Window
from survey_ml.stages.extraction.islands import find_islands

EIGHT = np.ones((3, 3))


def find(snr, **options):
    snr = np.asarray(snr, dtype=np.float32)
    return find_islands(snr, np.zeros_like(snr), np.ones_like(snr), **options)


@pytest.fixture(scope="module")
def snr(make_noise):
    """Smooth noise, stretched so that it holds islands of all sizes, with blanks."""
    image = make_noise((300, 260), np.eye(2) * 4.0, 1) * 3
    image[40:44] = np.nan
    image[120:150, 100:130] = np.nan
    return image


def test_same_pixels_as_labelling_the_whole_image(snr):
    labels, islands = find(snr, seed_snr=5, flood_snr=3)
    with np.errstate(invalid="ignore"):
        parts, n = ndimage.label(snr > 3, EIGHT)
        seeded = np.unique(parts[snr > 5])
    assert len(islands) == len(seeded) > 20
    assert n > len(seeded)
    assert np.array_equal(labels > 0, np.isin(parts, seeded))
    for i in range(len(islands)):
        assert len(np.unique(parts[labels == i + 1])) == 1
        own = islands.pixels[islands.starts[i] : islands.starts[i + 1]]
        assert np.array_equal(own, np.flatnonzero(labels == i + 1))
        assert islands.n_pixels[i] == len(own)
        y, x = np.nonzero(labels == i + 1)
        assert tuple(islands.boxes[i]) == (y.min(), y.max() + 1, x.min(), x.max() + 1)
        best = own[np.argmax(snr.ravel()[own])]
        assert (islands.peak_y[i], islands.peak_x[i]) == divmod(best, snr.shape[1])
        assert islands.peak_snr[i] == snr.ravel()[best]


def test_order_is_that_of_the_brightest_pixels(snr):
    _, islands = find(snr)
    order = islands.peak_y.astype(int) * snr.shape[1] + islands.peak_x
    assert (np.diff(order) > 0).all()


def test_islands_inside_a_window_are_those_of_the_field(snr):
    _, islands = find(snr)
    window = Window(60, 250, 30, 222)
    _, part = find(snr[window.slices])
    clear = part.measure_clearance(window, snr.shape) > 0
    assert clear.sum() > 10
    whole = {
        (y, x): (n, s)
        for y, x, n, s in zip(islands.peak_y, islands.peak_x, islands.n_pixels, islands.peak_snr, strict=True)
    }
    for i in np.flatnonzero(clear):
        place = part.peak_y[i] + window.y0, part.peak_x[i] + window.x0
        assert whole[place] == (part.n_pixels[i], part.peak_snr[i])


def test_clearance_counts_only_cut_sides():
    snr = np.zeros((20, 30))
    snr[2:5, 3:7] = 9
    _, islands = find(snr)
    assert islands.measure_clearance(Window(0, 20, 0, 30), (20, 30))[0] > 10**9
    assert islands.measure_clearance(Window(5, 25, 0, 30), (25, 30)).tolist() == [2]
    assert islands.measure_clearance(Window(5, 25, 9, 39), (90, 90)).tolist() == [2]
    assert islands.measure_clearance(Window(0, 20, 9, 39), (90, 90)).tolist() == [3]
    assert islands.measure_clearance(Window(0, 20, 0, 30), (21, 30)).tolist() == [15]


def test_diagonal_neighbours_belong_together():
    snr = np.zeros((5, 5))
    snr[1, 1] = 6
    snr[2, 2] = snr[3, 1] = 4
    labels, islands = find(snr)
    assert islands.n_pixels.tolist() == [3]
    assert labels[1, 1] == labels[2, 2] == labels[3, 1] == 1


def test_thresholds_are_exceeded_not_met():
    assert len(find([[0, 5.0, 0]])[1]) == 0
    assert find([[3.0, 5.1, 3.1]])[1].n_pixels.tolist() == [2]


def test_the_first_of_equal_pixels_is_the_brightest():
    snr = np.zeros((4, 6))
    snr[1, 4] = snr[2, 2] = snr[1, 3] = 7
    snr[2, 3] = 4
    _, islands = find(snr)
    assert (islands.peak_y[0], islands.peak_x[0]) == (1, 3)


def test_blank_neighbours_and_borders_are_told():
    snr = np.zeros((9, 20))
    snr[4, 3] = snr[4, 10] = snr[0, 17] = 8
    snr[5, 4] = np.nan
    _, islands = find(snr)
    told = dict(zip(islands.peak_x.tolist(), islands.touches_blank.tolist(), strict=True))
    assert told == {17: True, 3: True, 10: False}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_without_a_value_belong_to_no_island(bad):
    snr = np.full((3, 7), 8.0)
    snr[:, 3] = bad
    labels, islands = find(snr)
    assert islands.n_pixels.tolist() == [9, 9]
    assert not labels[:, 3].any()


@pytest.mark.parametrize("rms", [0.0, -1.0, np.nan])
def test_pixels_without_an_rms_belong_to_no_island(rms):
    image = np.full((4, 4), 9.0, dtype=np.float32)
    _, islands = find_islands(image, np.zeros_like(image), np.full_like(image, rms))
    assert len(islands) == 0
    assert islands.starts.tolist() == [0]


def test_background_and_rms_count():
    image = np.full((1, 3), 10.0, dtype=np.float32)
    background = np.array([[4.0, 4.0, 9.0]], dtype=np.float32)
    rms = np.array([[1.0, 2.0, 0.1]], dtype=np.float32)
    _, islands = find_islands(image, background, rms, seed_snr=5, flood_snr=3.5)
    assert islands.n_pixels.tolist() == [1, 1]
    np.testing.assert_allclose(islands.peak_snr, [6.0, 10.0])


def test_an_empty_window_has_no_islands():
    labels, islands = find(np.zeros((0, 4)))
    assert labels.shape == (0, 4)
    assert len(islands) == 0


@pytest.mark.parametrize(("seed", "flood"), [(3, 4), (5, 0), (5, -1), (float("nan"), 3)])
def test_senseless_thresholds_are_refused(seed, flood):
    with pytest.raises(ValueError, match="seed_snr"):
        find(np.zeros((2, 2)), seed_snr=seed, flood_snr=flood)
