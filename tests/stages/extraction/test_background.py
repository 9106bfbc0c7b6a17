"""Background and rms: exact under tiling, unbiased, and calm where there is nothing to measure."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from survey_ml.stages.extraction.background import Mesh, choose_mesh, measure_background, support_radius

REAL = Path(os.environ.get("SURVEY_ML_DATA", Path(__file__).parents[3] / "../shared/data"))
SIZE = 512
MESHES = [Mesh(32, 96, 2, 4), Mesh(27, 81, 3, 5), Mesh(20, 60, 1, 3), Mesh(16, 80, 2, 16)]


def bits(array):
    return np.ascontiguousarray(array).view(np.uint32)


@pytest.fixture(scope="module")
def sky(make_noise, add_source):
    """Correlated noise with sources, diffuse emission, a round blank border, a slit and zeros."""
    beam = np.diag([2.9, 1.8])
    image = make_noise((SIZE, SIZE), beam / 2, 1)
    rng = np.random.default_rng(2)
    for y, x, peak in zip(*rng.uniform(0, SIZE, (2, 300)), rng.pareto(1.0, 300) * 2, strict=True):
        add_source(image, y, x, peak, beam)
    add_source(image, 250, 260, 300, np.diag([400.0, 150.0]))
    y, x = np.mgrid[:SIZE, :SIZE]
    image[np.hypot(y - 256, x - 256) > 300] = np.nan
    image[100:103] = np.nan
    image[300:400, 60:120] = 0.0
    return image


@pytest.mark.parametrize("mesh", MESHES)
def test_any_window_gives_the_same_bits(sky, mesh):
    whole = measure_background(sky, origin=(0, 0), **mesh._asdict())
    assert np.array_equal(np.isnan(whole[1]), np.isnan(sky))
    reach = support_radius(mesh.step, mesh.box)

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.tuples(*[st.integers(0, SIZE - 1)] * 2), st.tuples(*[st.integers(1, 90)] * 2))
    def check(corner, size):
        y0, x0 = corner
        y1, x1 = min(SIZE, y0 + size[0]), min(SIZE, x0 + size[1])
        top, left = max(0, y0 - reach), max(0, x0 - reach)
        window = sky[top : y1 + reach, left : x1 + reach]
        part = measure_background(window, origin=(top, left), **mesh._asdict())
        for mine, all_of_it in zip(part, whole, strict=True):
            core = mine[y0 - top : y1 - top, x0 - left : x1 - left]
            assert np.array_equal(bits(core), bits(all_of_it[y0:y1, x0:x1]))

    check()


def test_a_smaller_window_does_not(sky):
    """The stated radius is needed: half of it changes the numbers."""
    mesh = MESHES[0]
    _, whole = measure_background(sky, origin=(0, 0), **mesh._asdict())
    reach = support_radius(mesh.step, mesh.box) // 2
    top = 250 - reach
    _, part = measure_background(sky[top : 251 + reach], origin=(top, 0), **mesh._asdict())
    assert not np.array_equal(bits(part[reach]), bits(whole[250]))


def test_the_grid_follows_the_field_not_the_window(sky):
    """The same pixels at another place of the field lie otherwise on the mesh."""
    mesh = MESHES[0]
    _, here = measure_background(sky[110:300, 110:290], origin=(110, 110), **mesh._asdict())
    _, there = measure_background(sky[110:300, 110:290], origin=(0, 0), **mesh._asdict())
    assert not np.array_equal(bits(here), bits(there))


@pytest.mark.parametrize("kernel", [0.5, 1.0])
def test_rms_is_within_two_per_cent_and_scatters_by_less(make_noise, beam_covariance, kernel):
    size = 1024
    y, x = np.mgrid[:size, :size] / size
    truth = 2e-5 * np.clip(np.exp(2.2 * ((x - 0.45) ** 2 + (y - 0.55) ** 2)), 0.8, 3)
    image = (make_noise((size, size), beam_covariance * kernel, 3) * truth).astype(np.float32)
    mesh = choose_mesh(3.58, image.shape)
    background, rms = measure_background(image, origin=(0, 0), **mesh._asdict())
    low, median, high = np.percentile(rms / truth, [16, 50, 84])
    assert abs(median - 1) < 0.01
    assert (high - low) / 2 < (0.025 if kernel == 0.5 else 0.032)  # half as many beams are independent
    assert abs(np.median(background / truth)) < 0.01


def test_sources_do_not_raise_the_rms(make_noise, add_source, beam_covariance):
    """A source each 500 pixels from 3 to 3000 sigma, as on a deep field."""
    image = make_noise((512, 512), beam_covariance / 2, 4)
    rng = np.random.default_rng(5)
    for y, x, peak in zip(*rng.uniform(0, 512, (2, 520)), 3 / rng.power(1.2, 520), strict=True):
        add_source(image, y, x, min(peak, 3000), beam_covariance)
    background, rms = measure_background(image, origin=(0, 0), **choose_mesh(3.58, image.shape)._asdict())
    assert 0.98 < np.median(rms) < 1.03
    assert abs(np.median(background)) < 0.1


def test_a_galaxy_that_fills_a_cutout_leaves_the_rms_alone(make_noise, add_source):
    """Two lobes and a bridge of 100 px at 100 sigma in a cutout of 300 px."""
    image = make_noise((300, 300), np.eye(2) * 1.62 / 2, 6)
    for offset in (-45, 0, 45):
        add_source(image, 150, 150 + offset, 100, np.diag([200.0, 120.0]))
    _, rms = measure_background(image, origin=(0, 0), **choose_mesh(3.0, image.shape)._asdict())
    assert rms.max() < 1.35
    assert 0.97 < np.median(rms) < 1.04


def test_zeros_outside_the_mosaic_are_not_quiet_noise(make_noise):
    image = make_noise((400, 400), np.eye(2) * 1.3, 7)
    image[:, 200:] = 0.0
    _, rms = measure_background(image, origin=(0, 0), **Mesh(32, 96, 2, 4)._asdict())
    # Cells lie across the border at column 200: no more than their part of a box may be diluted.
    assert np.nanmin(rms[:, :190]) > 0.85
    assert np.isnan(rms[:, 330:]).all()


@pytest.mark.parametrize("value", [np.nan, 0.0, 3.5])
def test_nothing_to_measure_gives_nan_without_warnings(value):
    image = np.full((130, 90), value, dtype=np.float32)
    background, rms = measure_background(image, origin=(70, 40), step=32, box=96, stride=2)
    assert np.isnan(rms).all()
    assert np.isnan(background).all()
    assert rms.dtype == background.dtype == np.float32


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 3), (1, 400), (37, 2)])
def test_windows_of_any_shape(shape):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    _, rms = measure_background(image, origin=(5, 1000), step=32, box=96, stride=2)
    assert rms.shape == shape


def test_infinite_pixels_count_as_missing(make_noise):
    image = make_noise((200, 200), np.eye(2), 8)
    blank = image.copy()
    image[90:95, 90:95] = np.inf
    image[20, 20] = -np.inf
    blank[~np.isfinite(image)] = np.nan
    for one, other in zip(
        measure_background(image, origin=(0, 0), step=32, box=96, stride=2),
        measure_background(blank, origin=(0, 0), step=32, box=96, stride=2),
        strict=True,
    ):
        assert np.array_equal(bits(one), bits(other))


def test_scale_and_offset_pass_through(make_noise):
    image = make_noise((256, 256), np.eye(2), 9)
    background, rms = measure_background(image, origin=(0, 0), step=32, box=96, stride=2)
    shifted = (image * 4 + 1000).astype(np.float32)
    other_background, other_rms = measure_background(shifted, origin=(0, 0), step=32, box=96, stride=2)
    # The sum is rounded to 6e-5, and a sample at the clip may fall to its other side.
    np.testing.assert_allclose(other_rms, 4 * rms, rtol=3e-3)
    np.testing.assert_allclose(other_background, 4 * background + 1000, atol=0.02)


def test_masked_pixels_do_not_count(make_noise):
    image = make_noise((256, 256), np.eye(2), 10)
    mask = np.zeros(image.shape, dtype=bool)
    mask[:, 100:200] = True
    dirty = np.where(mask, image * 50, image).astype(np.float32)
    clean = measure_background(image, origin=(0, 0), step=32, box=96, stride=2, mask=mask)
    same = measure_background(dirty, origin=(0, 0), step=32, box=96, stride=2, mask=mask)
    assert np.isfinite(clean[1]).all()
    assert 0.9 < np.median(clean[1]) < 1.1
    assert np.array_equal(bits(same[1]), bits(clean[1]))


@pytest.mark.parametrize(
    "geometry",
    [
        {"step": 31, "box": 93, "stride": 2},
        {"step": 32, "box": 64, "stride": 2},
        {"step": 8, "box": 24, "stride": 2},
        {"step": 32, "box": 96, "stride": 2, "grow": 33},
    ],
)
def test_a_bad_mesh_is_refused(geometry):
    with pytest.raises(ValueError, match="must be"):
        measure_background(np.zeros((8, 8), np.float32), origin=(0, 0), **geometry)


@pytest.mark.parametrize("fwhm", [1.2, 2.5, 3.0, 3.58, 7.0, 20.0])
@pytest.mark.parametrize("shape", [(3, 3), (129, 129), (300, 300), (20000, 15000)])
def test_chosen_meshes_are_valid(fwhm, shape):
    mesh = choose_mesh(fwhm, shape)
    image = np.random.default_rng(1).normal(size=(40, 40)).astype(np.float32)
    measure_background(image, origin=(0, 0), **mesh._asdict())
    assert 2.5 * fwhm <= mesh.step <= 7 * fwhm + 6


def test_emission_wider_than_any_box_stays_where_it_is(make_noise):
    """Inside, nothing tells the noise; outside, nothing tells of the emission."""
    image = make_noise((500, 500), np.eye(2) * 1.3, 11)
    texture = np.abs(make_noise((500, 500), np.eye(2) * 200.0, 12))
    image[150:350, 150:350] += 500 * texture[150:350, 150:350] + 20
    background, rms = measure_background(image, origin=(0, 0), **choose_mesh(3.5, image.shape)._asdict())
    assert np.isfinite(rms).all()
    assert np.isfinite(background).all()
    frame = np.ones(image.shape, dtype=bool)
    frame[120:380, 120:380] = False
    assert np.percentile(rms[frame], 1) > 0.9
    assert np.percentile(rms[frame], 99) < 1.2


@pytest.mark.real
def test_galaxies_of_first_do_not_raise_the_rms_under_them():
    folder = REAL / "first_fields"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set SURVEY_ML_DATA")
    from astropy.io import fits

    ratios = []
    for path in sorted(folder.glob("*.fits.fz"))[::20]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = np.squeeze(fits.getdata(path)).astype(np.float32)
        _, rms = measure_background(image, origin=(0, 0), **choose_mesh(3.0, image.shape)._asdict())
        outside = image.copy()
        outside[75:225, 75:225] = np.nan
        quiet = 1.4826 * np.nanmedian(np.abs(outside - np.nanmedian(outside)))
        ratios.append(rms[110:190, 110:190].max() / quiet)
    assert 0.95 < np.median(ratios) < 1.15
    assert max(ratios) < 1.6
