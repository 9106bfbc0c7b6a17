from __future__ import annotations

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from survey_ml.export import moc


def test_the_footprint_is_the_valid_pixels(field, monkeypatch):
    monkeypatch.setattr(moc, "_WINDOW", 64)
    info = field("f", shape=(300, 400))
    image = np.ones((300, 400), np.float32)
    image[:, :150] = np.nan
    footprint = moc.trace_field(info, lambda window: image[window])
    area = np.isfinite(image).sum() * (info.pixel_scale / 3600) ** 2
    found = footprint.sky_fraction * 4 * np.pi * np.rad2deg(1) ** 2
    assert found == pytest.approx(area, rel=0.1)
    y, x = np.mgrid[10:290:20, 10:390:20]
    ra, dec = info.wcs.all_pix2world(x.ravel(), y.ravel(), 0)
    inside = footprint.contains_lonlat(ra * u.deg, dec * u.deg)
    far = np.abs(x.ravel() - 150) > 16  # cells are about 8 px
    assert (inside[far] == (x.ravel() >= 150)[far]).all()


def test_the_footprint_does_not_mind_the_order_of_the_axes(field):
    info = field("f")
    wcs = info.wcs
    swapped = replace(info, header="".join(card.image for card in wcs.sub([2, 1]).to_header().cards))
    image = np.ones(info.shape, np.float32)
    footprint = moc.trace_field(swapped, lambda window: image[window])
    ra, dec = swapped.wcs.all_pix2world(150, 100, 0, ra_dec_order=True)
    assert footprint.contains_lonlat(np.array([ra]) * u.deg, np.array([dec]) * u.deg).all()


def test_windows_do_not_change_the_footprint(field, monkeypatch):
    info = field("f")
    image = np.where(np.random.default_rng(0).random(info.shape) < 0.01, 1.0, np.nan)
    whole = moc.trace_field(info, lambda window: image[window])
    monkeypatch.setattr(moc, "_WINDOW", 33)
    assert moc.trace_field(info, lambda window: image[window]) == whole


def test_a_blank_field_has_no_footprint(field):
    info = field("f")
    assert moc.trace_field(info, lambda window: np.full(info.shape, np.nan)[window]).empty()


def test_large_fields_get_coarser_cells(field):
    small, large = field("s"), field("l", shape=(20_000, 20_000))
    assert moc.choose_order(large) < moc.choose_order(small)
    cell = np.sqrt(4 * np.pi / 12) / 2 ** moc.choose_order(small)
    assert 8 <= np.rad2deg(cell) * 3600 / small.pixel_scale < 16
