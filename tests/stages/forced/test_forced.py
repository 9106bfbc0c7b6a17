"""Forced photometry: known brightness, calibrated errors, neighbours, tiles, and bad catalogues."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from survey_ml.errors import InputError
from survey_ml.field import Tile, Window, split_tiles
from survey_ml.stage import Inputs
from survey_ml.stages.forced.stage import Forced, ForcedOptions

SHAPE = (700, 700)


def write_positions(path, field, x, y):
    ra, dec = field.wcs.all_pix2world(x, y, 0)
    lines = ["ra,dec", *(f"{a!r},{d!r}" for a, d in zip(ra.tolist(), dec.tolist(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def measure(path, image, field, tile, acf):
    stage = Forced(ForcedOptions(catalogue=path))
    stage.setup()
    cut = image[tile.window.slices]
    inputs = Inputs(
        field,
        tile,
        arrays={"image": cut, "background": np.zeros_like(cut), "rms": np.ones_like(cut)},
        summaries={"noise_model": {"acf": acf.tolist(), "lag": acf.shape[0] // 2}},
    )
    return stage.run(inputs)["forced"]


@pytest.fixture(scope="module")
def acf(beam_covariance):
    """Autocorrelation of noise whose kernel has half the beam's covariance: the beam's shape."""
    y, x = np.mgrid[-8:9, -8:9]
    a = np.linalg.inv(beam_covariance)
    return np.exp(-0.5 * (a[0, 0] * x * x + 2 * a[0, 1] * x * y + a[1, 1] * y * y))


@pytest.fixture(scope="module")
def sky(make_noise, make_field, beam_covariance, add_source):
    """Noise of unit rms with 400 sources of S/N 8 on a jittered grid, and pairs 1.3 beams apart."""
    image = make_noise(SHAPE, beam_covariance / 2, 5)
    rng = np.random.default_rng(9)
    grid_y, grid_x = np.mgrid[20:680:33, 20:680:33]
    y = grid_y.ravel() + rng.uniform(-2, 2, grid_y.size)
    x = grid_x.ravel() + rng.uniform(-2, 2, grid_x.size)
    for yi, xi in zip(y, x, strict=True):
        add_source(image, yi, xi, 8.0, beam_covariance)
    return image, make_field(SHAPE), x, y


def test_brightness_is_unbiased_and_errors_are_calibrated(tmp_path, sky, acf):
    image, field, x, y = sky
    tile = Tile("0_0", Window(0, 700, 0, 700), Window(0, 700, 0, 700))
    table = measure(write_positions(tmp_path / "p.csv", field, x, y), image, field, tile, acf)
    assert_array_equal(np.sort(table["forced_id"]), np.arange(len(x)))
    pulls = (table["peak_flux"] - 8.0) / table["peak_flux_err"]
    assert abs(np.mean(pulls)) < 4 / np.sqrt(len(x))
    assert 0.88 < np.std(pulls) < 1.12
    assert_array_equal(table["total_flux"], table["peak_flux"])


def test_empty_sky_measures_zero(tmp_path, make_noise, make_field, beam_covariance, acf):
    image, field = make_noise(SHAPE, beam_covariance / 2, 6), make_field(SHAPE)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(20, 680, 300), rng.uniform(20, 680, 300)
    tile = Tile("0_0", Window(0, 700, 0, 700), Window(0, 700, 0, 700))
    table = measure(write_positions(tmp_path / "p.csv", field, x, y), image, field, tile, acf)
    pulls = table["peak_flux"] / table["peak_flux_err"]
    assert abs(np.mean(pulls)) < 0.25
    assert 0.85 < np.std(pulls) < 1.15


def test_neighbours_are_told_apart(tmp_path, make_field, beam_covariance, add_source, acf):
    image = np.zeros(SHAPE, np.float32)
    x, y, peaks = np.array([100.2, 104.1]), np.array([200.4, 201.0]), (10.0, 4.0)
    for xi, yi, peak in zip(x, y, peaks, strict=True):
        add_source(image, yi, xi, peak, beam_covariance)
    field = make_field(SHAPE)
    tile = Tile("0_0", Window(0, 700, 0, 700), Window(0, 700, 0, 700))
    table = measure(write_positions(tmp_path / "p.csv", field, x, y), image, field, tile, acf)
    assert_allclose(table["peak_flux"], peaks, rtol=2e-3)
    assert (table["flags"] & 4).all()


def test_tiles_agree_to_rounding(tmp_path, sky, acf):
    image, field, x, y = sky
    path = write_positions(tmp_path / "p.csv", field, x, y)
    whole = measure(path, image, field, Tile("0_0", Window(0, 700, 0, 700), Window(0, 700, 0, 700)), acf)
    halo = Forced(ForcedOptions(catalogue=path)).halo(field)
    parts = [measure(path, image, field, tile, acf) for tile in split_tiles(SHAPE, 128, halo)]
    ids = np.concatenate([part["forced_id"] for part in parts])
    order = np.argsort(ids)
    assert_array_equal(ids[order], np.sort(whole["forced_id"]))
    by_id = np.argsort(whole["forced_id"])
    for name in ("peak_flux", "peak_flux_err", "flags"):
        got = np.concatenate([part[name] for part in parts])[order]
        assert_allclose(got, whole[name][by_id], rtol=1e-9)


def test_blank_pixels_are_flagged_and_give_nan(tmp_path, sky, acf):
    image, field, _, _ = sky
    image = image.copy()
    image[300:340, 300:340] = np.nan
    x, y = np.array([320.0, 299.0, 100.0]), np.array([320.0, 320.0, 100.0])
    tile = Tile("0_0", Window(0, 700, 0, 700), Window(0, 700, 0, 700))
    table = measure(write_positions(tmp_path / "p.csv", field, x, y), image, field, tile, acf)
    rows = {int(i): k for k, i in enumerate(table["forced_id"])}
    assert np.isnan(table["peak_flux"][rows[0]])
    assert table["flags"][rows[0]] & 2
    assert table["flags"][rows[1]] & 1
    assert np.isfinite(table["peak_flux"][rows[1]])
    assert not table["flags"][rows[2]] & 3


def test_positions_on_the_other_side_of_the_sky_are_left_out(tmp_path, sky, acf):
    image, field, x, y = sky
    path = write_positions(tmp_path / "p.csv", field, x[:3], y[:3])
    ra, dec = field.wcs.all_pix2world(350.0, 350.0, 0)
    with path.open("a") as stream:
        stream.write(f"{(float(ra) + 180) % 360!r},{-float(dec)!r}\n")
    tile = Tile("0_0", Window(0, 700, 0, 700), Window(0, 700, 0, 700))
    assert_array_equal(np.sort(measure(path, image, field, tile, acf)["forced_id"]), [0, 1, 2])


def test_catalogue_without_positions_is_an_error(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("ra,flux\n1.0,2.0\n")
    with pytest.raises(InputError, match="dec"):
        Forced(ForcedOptions(catalogue=path)).setup()
    path.write_text("ra,dec\n1.0,2.0\n3.0,95.0\n")
    with pytest.raises(InputError, match="row 1"):
        Forced(ForcedOptions(catalogue=path)).setup()
