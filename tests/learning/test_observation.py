"""Images of other beams and depths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from survey_ml.errors import ConfigError
from survey_ml.learning.observation import Observation, observe_images, smooth_images

FWHM = np.sqrt(8 * np.log(2))
Y, X = np.mgrid[:64, :64] - 31.5


def draw_gaussians(*widths, at=(0.0, 0.0)):
    """Round Gaussians of these full widths, peak one."""
    r2 = (X - at[0]) ** 2 + (Y - at[1]) ** 2
    images = [np.exp(-r2 / (2 * (width / FWHM) ** 2)) for width in widths]
    return torch.from_numpy(np.stack(images).astype(np.float32))[:, None]


def measure_width(image):
    """Full width from the second moment."""
    image = image[0].numpy().astype(float)
    return FWHM * np.sqrt((image * (X**2 + Y**2)).sum() / image.sum() / 2)


def test_gaussians_widen_in_quadrature():
    images = draw_gaussians(5.0, 5.0, 5.0)
    smooth = smooth_images(images, torch.tensor([0.0, 6.0, 12.0]))
    assert [measure_width(one) for one in smooth] == pytest.approx([5.0, 61**0.5, 13.0], rel=2e-3)
    assert torch.allclose(smooth[0], images[0], atol=1e-6)
    assert smooth.sum(dim=(1, 2, 3)).tolist() == pytest.approx(images.sum(dim=(1, 2, 3)).tolist(), rel=1e-4)


def test_nothing_comes_back_from_the_other_side():
    smooth = smooth_images(draw_gaussians(3.0, at=(29.0, 0.0)), torch.tensor([12.0]))[0, 0]
    assert float(smooth[:, -1].max()) > 0.03
    assert float(smooth[:, :20].abs().max()) < 1e-5


def test_what_is_made_is_a_clipped_image_of_another_survey():
    observation = Observation(1.0, beam_px=3.0, widest_px=12.0, peak_snr=(50.0, 50.0))
    images = draw_gaussians(*[4.0] * 40)
    made = observe_images(images, torch.Generator().manual_seed(1), observation)
    assert made.amax(dim=(1, 2, 3)).tolist() == [1.0] * 40
    lit = made[made > 0]
    assert 0.9 * 3 / 50 < float(lit.min()) < 1.2 * 3 / 50
    # A beam b makes a source of 4 px sqrt(16 + b^2 - 9) wide, and peaks add noise of two per cent.
    areas = (made > 0.5).sum(dim=(1, 2, 3)).double().numpy()
    widths = np.sqrt(4 * areas / np.pi)
    assert widths.min() > 3.5
    assert widths.max() < 13.5
    assert widths.std() > 1.5
    assert 6.5 < widths.mean() < 9.5


def test_only_the_share_is_changed_and_the_rest_stays_as_it_is():
    images = draw_gaussians(*[4.0] * 200)
    observation = Observation(0.3)
    made = observe_images(images, torch.Generator().manual_seed(3), observation)
    changed = (made != images).any(dim=(1, 2, 3))
    assert 0.2 < float(changed.double().mean()) < 0.4
    again = observe_images(images, torch.Generator().manual_seed(3), observation)
    assert torch.equal(made, again)
    assert observe_images(images, torch.Generator(), Observation()) is images


def test_an_empty_image_stays_empty():
    made = observe_images(torch.zeros(3, 1, 16, 16), torch.Generator().manual_seed(0), Observation(1.0))
    assert not made.any()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"share": 1.5}, "share is 1.5"),
        ({"widest_px": 2.0}, "beam_px is 3 and widest_px 2"),
        ({"peak_snr": (2.0, 50.0)}, "peak_snr is 2 to 50"),
        ({"peak_snr": (60.0, 50.0)}, "peak_snr is 60 to 50"),
    ],
)
def test_settings_that_make_no_sense(settings, match):
    with pytest.raises(ConfigError, match=match):
        Observation(**settings)
