"""What makes two components one source."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_array_equal

from survey_ml.stages.extraction.grouping import group_components

SIGMA2 = 2.0
"""Variance of the test components in px^2: a FWHM of 3.3 px."""


def group(*places, flood=3.0, rms=1.0):
    theta = np.array([[peak, x, y, 1 / SIGMA2, 0.0, 1 / SIGMA2] for peak, x, y in places])
    return group_components(theta, len(theta), np.full((60, 60), 1.0 / rms), flood).tolist()


def test_near_and_joined_is_one_source():
    assert group((20.0, 20.0, 20.0), (15.0, 22.5, 20.0)) == [0, 0]


def test_farther_than_their_widths_is_two():
    assert group((200.0, 20.0, 20.0), (150.0, 23.5, 20.0)) == [0, 1]


def test_a_dip_below_the_flood_level_is_two():
    assert group((4.0, 20.0, 20.0), (4.0, 23.2, 20.0)) == [0, 0]
    assert group((4.0, 20.0, 20.0), (4.0, 23.2, 20.0), rms=1.5) == [0, 1]


def test_joins_are_transitive_and_numbered_by_first_member():
    assert group((9.0, 40.0, 40.0), (20.0, 20.0, 20.0), (20.0, 25.0, 20.0), (20.0, 22.5, 20.0)) == [
        0,
        1,
        1,
        1,
    ]


def test_one_component_is_one_source():
    assert_array_equal(group((5.0, 3.0, 3.0)), [0])


def test_components_at_one_place_are_one_source():
    assert group((9.0, 20.0, 20.0), (4.0, 20.0, 20.0)) == [0, 0]
