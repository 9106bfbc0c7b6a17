from __future__ import annotations

import numpy as np
import pytest
from regions import Regions

from survey_ml.export.regions import write_regions
from survey_ml.export.schema import read_column


@pytest.mark.parametrize("suffix, form, label", [("reg", "ds9", "text"), ("crtf", "crtf", "label")])
def test_ellipses_come_back(tmp_path, catalogue, suffix, form, label):
    table = catalogue["sources"]
    path = tmp_path / f"s.{suffix}"
    write_regions(table, path)
    found = Regions.read(path, format=form)
    assert len(found) == len(table)
    np.testing.assert_allclose([r.center.icrs.ra.deg for r in found], read_column(table, "ra"), atol=1e-7)
    np.testing.assert_allclose([r.center.icrs.dec.deg for r in found], read_column(table, "dec"), atol=1e-7)
    # A region's height points north at angle 0 and turns east: it is the major axis, full length.
    np.testing.assert_allclose(
        [r.height.to_value("arcsec") for r in found], read_column(table, "major"), atol=2e-3
    )
    np.testing.assert_allclose(
        [r.width.to_value("arcsec") for r in found], read_column(table, "minor"), atol=2e-3
    )
    np.testing.assert_allclose([r.angle.to_value("deg") for r in found], read_column(table, "pa"), atol=6e-3)
    assert [r.meta[label] for r in found] == read_column(table, "name").tolist()


def test_both_formats_turn_the_same_way_on_the_sky(tmp_path, catalogue, field):
    # On the pixel grid, north up and east left, a position angle of 90 deg lies along x.
    table = catalogue["sources"].slice(0, 1)
    table = table.set_column(table.column_names.index("pa"), table.schema.field("pa"), [[90.0]])
    for suffix, form in (("reg", "ds9"), ("crtf", "crtf")):
        path = tmp_path / f"s.{suffix}"
        write_regions(table, path)
        mask = Regions.read(path, format=form)[0].to_pixel(field("f").wcs)
        box = mask.bounding_box
        assert box.shape[1] > box.shape[0]


def test_rows_without_a_shape_are_left_out(tmp_path, catalogue):
    table = catalogue["sources"]
    major = read_column(table, "major").copy()
    major[:3] = np.nan
    index = table.column_names.index("major")
    table = table.set_column(index, table.schema.field("major"), [major])
    write_regions(table, tmp_path / "s.reg")
    assert len(Regions.read(tmp_path / "s.reg", format="ds9")) == len(table) - 3
