"""Islands of one source: lobes near each other and alike, whatever lies around them."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.stages.morphology.extent import FREQUENCY, find_extent, link_islands

BEAM = (5.4, 5.4)


def paint(*sources, side=300):
    """Draw beams at (x, y, peak in Jy/beam) on 1.8 arcsec pixels without noise."""
    y, x = np.mgrid[:side, :side].astype(float)
    width = 2 * (3.0 / 2.3548) ** 2
    return sum(p * np.exp(-((x - u) ** 2 + (y - v) ** 2) / width) for u, v, p in sources).astype(np.float32)


def find(image, noise=1e-4, **more):
    return find_extent(image, noise, 3.0, pixel_arcsec=1.8, beam=BEAM, **more)


def test_the_distance_of_lobes_goes_with_the_root_of_their_flux():
    def linked(apart, one, two):
        return link_islands(np.array([[0.0, 0.0], [apart, 0.0]]), np.array([one, two]))[0, 1]

    assert linked(99.0, 0.05, 0.05) and not linked(101.0, 0.05, 0.05)
    assert linked(31.0, 0.005, 0.005) and not linked(32.0, 0.005, 0.005)
    assert linked(119.0, 5.0, 5.0) and not linked(121.0, 5.0, 5.0)
    assert linked(50.0, 0.02, 0.08) and not linked(50.0, 0.019, 0.081)


def test_a_double_has_its_middle_between_its_lobes_and_leaves_neighbours_out():
    image = paint((150, 150, 0.010), (164, 156, 0.008), (180, 150, 0.001), (30, 40, 0.010))
    extent = find(image)
    assert extent.n_islands == 2 and extent.own[156, 164] and not extent.own[150, 180]
    assert extent.middle == pytest.approx((153, 157), abs=1)
    assert extent.islands[150, 180] and extent.islands[40, 30]
    assert not (extent.own & ~extent.islands).any()


def test_lobes_are_linked_by_others_between_them():
    image = paint((150, 150, 0.004), (162, 150, 0.004), (174, 150, 0.004), (186, 150, 0.004))
    assert find(image).n_islands == 4
    assert find(paint((150, 150, 0.004), (186, 150, 0.004))).n_islands == 1


def test_a_noise_peak_is_no_island_but_what_was_found_is_one():
    extent = find(paint((150, 150, 0.00045), (158, 150, 0.00045)))
    assert extent.own[150, 150] and extent.n_islands == 1
    assert not extent.islands[150, 158]


def test_nothing_at_its_place_leaves_a_source_where_it_is():
    image = paint((200, 150, 0.01))
    image[:20] = np.nan
    extent = find(image)
    assert extent.n_islands == 0 and extent.middle == (150, 150) and not extent.own.any()
    assert extent.islands[150, 200]


def test_fluxes_count_at_the_frequency_of_the_relation():
    image = paint((150, 150, 0.010), (172, 150, 0.010))
    assert find(image).n_islands == 2
    assert find(image, frequency=np.nan).n_islands == 2
    # Steep spectra: the same flux at 150 MHz is a fifth of it at 1.4 GHz.
    assert find(image, frequency=0.15e9).n_islands == 1
    assert find(5.0 * image, noise=5e-4, frequency=0.15e9).n_islands == 2
    assert FREQUENCY == 1.4e9
