"""Peaks by saddle prominence, on islands small enough to see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from survey_ml.stages.extraction.peaks import find_peaks

RIDGE = np.array([[5.0, 9.0, 6.0, 5.0, 7.5, 8.0, 4.0]])


def peaks_of(snr, prominence=1.0, least=0.0, most=100):
    return find_peaks(snr, np.ones(snr.shape, bool), prominence, least, most).tolist()


def test_a_peak_counts_by_its_height_above_the_saddle():
    assert peaks_of(RIDGE, 2.9) == [[0, 1], [0, 5]]
    assert peaks_of(RIDGE, 3.1) == [[0, 1]]


def test_the_highest_peak_always_counts_and_others_must_be_bright():
    assert peaks_of(RIDGE, 1.0, least=8.5) == [[0, 1]]
    assert peaks_of(RIDGE, 1.0, most=1) == [[0, 1]]


def test_diagonal_pixels_touch():
    corner = np.array([[9.0, 0.0], [0.0, 8.0]])
    own = corner > 0
    assert find_peaks(corner, own, 0.5, 0.0, 9).tolist() == [[0, 0]]


def test_equal_peaks_come_in_raster_order():
    assert peaks_of(np.array([[7.0, 1.0, 7.0]])) == [[0, 0], [0, 2]]


def test_pixels_outside_the_island_are_not_seen():
    own = np.array([[True, True, True, True, False, False, False]])
    assert find_peaks(RIDGE, own, 1.0, 0.0, 9).tolist() == [[0, 1]]


@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(2, 9))
def test_without_a_threshold_peaks_are_the_local_maxima(seed, ny, nx):
    snr = np.random.default_rng(seed).permutation(ny * nx).reshape(ny, nx) + 1.0
    maxima = np.argwhere(snr == ndimage.maximum_filter(snr, 3, mode="constant"))
    assert sorted(peaks_of(snr, 0.5)) == maxima.tolist()


@pytest.mark.parametrize("prominence", [60.0, 200.0])
def test_more_prominence_keeps_a_subset(prominence):
    snr = np.random.default_rng(3).permutation(400).reshape(20, 20) * 1.0
    few, many = peaks_of(snr, prominence), peaks_of(snr, 1.0)
    assert len(few) < len(many)
    assert all(peak in many for peak in few)
