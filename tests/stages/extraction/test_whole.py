"""Islands that are fitted as a whole because components around their peaks leave too much."""

from __future__ import annotations

import numpy as np
import pytest
from extended import BEAM, SHAPE, make_extended
from scipy import ndimage

from survey_ml.stages.extraction.decomposition import fit_island
from survey_ml.stages.extraction.model import FREE, add_component
from survey_ml.stages.extraction.options import ExtractionOptions, make_settings
from survey_ml.stages.extraction.whole import measure_misfit, widen_island

LAG = np.arange(-8, 9)
ACF = np.exp(-0.3 * (LAG[:, None] ** 2 + LAG**2))


def fit(data, **options):
    """Components of the brightest island, and the mean square that they leave of it."""
    settings = make_settings(ExtractionOptions(**options), BEAM, ACF)
    labels, _ = ndimage.label(data > 3.0, np.ones((3, 3)))
    own = labels == labels[np.unravel_index(data.argmax(), SHAPE)]
    residual, weight = np.zeros(SHAPE), np.ones(SHAPE)
    n, theta, kinds, _, _, seeds = fit_island(
        data, weight, np.ones(SHAPE, bool), own, int(own.sum()), BEAM, ACF, settings, residual
    )
    return theta[:n], kinds[:n], seeds[:n], measure_misfit(residual, data, weight, own, 0.0)


@pytest.mark.parametrize("seed", range(48, 54))
def test_an_island_fitted_as_a_whole_leaves_less(seed):
    """All of these leave more than twice the noise around their peaks, and less as a whole."""
    data = make_extended(seed)
    peaks, _, _, before = fit(data)
    theta, kinds, seeds, after = fit(data, whole_chi2=2.0)
    if before <= 2.0 or len(peaks) < 2:
        np.testing.assert_array_equal(theta, peaks)
        return
    assert after < before
    assert (kinds == FREE).all()
    assert (theta[:, 0] > 0.0).all()
    assert len(np.unique(seeds, axis=0)) == len(theta)


def test_a_well_described_island_keeps_its_bits():
    data = make_extended(48)
    assert fit(data, whole_chi2=1e6)[3] == fit(data)[3]


def test_a_wide_source_between_two_peaks_is_found():
    """Around peaks alone, no component lies near the centre of what is spread out between them."""
    rng = np.random.default_rng(1)
    data = ndimage.gaussian_filter(rng.normal(size=SHAPE), 0.9)
    data /= data.std()
    for row in ([40, 30, 30, 0.02, 0.0, 0.02], [60, 22, 27, 0.6, 0, 0.6], [50, 36, 36, 0.6, 0, 0.6]):
        add_component(data, np.array(row, float), 1.0, 5.0)
    theta = fit(data, whole_chi2=1.2)[0]
    near = np.hypot(theta[:, 1] - 30.0, theta[:, 2] - 30.0).min()
    assert near < 1.0
    assert fit(data, whole_chi2=1.2)[3] < 1.5


def test_widening_takes_valid_pixels_only():
    own, valid = np.zeros((9, 9), bool), np.ones((9, 9), bool)
    own[4, 4] = True
    valid[4, 5] = False
    assert len(widen_island(own, valid, 1)) == 8
    assert [4, 5] not in widen_island(own, valid, 1).tolist()
