from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from survey_ml.export.pybdsf import rename_tables
from survey_ml.export.schema import columns_in, read_column
from survey_ml.export.tables import write_fits

DATA = Path(os.environ.get("SURVEY_ML_DATA", Path(__file__).parents[2] / "../shared/data"))
REFERENCE = DATA / "radio_tiles/pybdsf_ref"


def test_sizes_are_in_degrees_and_ids_run_over_the_release(catalogue):
    renamed = rename_tables(catalogue)
    sources, components = renamed["sources"], renamed["components"]
    np.testing.assert_allclose(
        read_column(sources, "Maj") * 3600, read_column(catalogue["sources"], "major"), rtol=1e-12
    )
    assert {c.name: c.unit for c in columns_in(sources)}["Maj"] == "deg"
    assert read_column(sources, "Source_id").tolist() == list(range(80))
    parents = read_column(components, "Source_id")
    assert (read_column(sources, "field")[parents] == read_column(components, "field")).all()
    # Each component of this catalogue is the brightest of its source.
    np.testing.assert_array_equal(read_column(sources, "RA_max")[parents], read_column(components, "RA"))
    islands = read_column(sources, "Isl_id")
    assert (
        read_column(catalogue["islands"], "island_id")[islands]
        == read_column(catalogue["sources"], "island_id")
    ).all()
    np.testing.assert_array_equal(
        read_column(sources, "Isl_rms"), read_column(catalogue["islands"], "local_rms")[islands]
    )
    assert renamed["islands"] is catalogue["islands"]


def test_codes_tell_single_shared_and_multiple(catalogue):
    sources = catalogue["sources"]
    code = read_column(rename_tables(catalogue)["sources"], "S_Code")
    keys = list(zip(read_column(sources, "field"), read_column(sources, "island_id"), strict=True))
    several = read_column(sources, "n_components") > 1
    for key, letter, many in zip(keys, code, several, strict=True):
        assert letter == ("M" if many else "C" if keys.count(key) > 1 else "S")
    assert set(code) == {"M", "C"} or set(code) == {"M", "C", "S"}


def test_components_alone_and_no_sources_at_all(catalogue):
    assert rename_tables({"peaks": catalogue["islands"]}) == {"peaks": catalogue["islands"]}
    empty = {name: table.slice(0, 0) for name, table in catalogue.items()}
    assert len(rename_tables(empty)["sources"]) == 0
    bare = rename_tables({"sources": catalogue["sources"]})["sources"]
    assert "Isl_rms" in bare.column_names and read_column(bare, "Isl_id").min() == 0


@pytest.mark.real
@pytest.mark.parametrize("ours, theirs", [("sources", "srl"), ("components", "gaul")])
def test_names_and_units_are_those_of_a_real_list(tmp_path, catalogue, ours, theirs):
    paths = list(REFERENCE.glob(f"*.{theirs}.FITS"))
    if not paths:
        pytest.skip(f"no reference lists under {REFERENCE}; set SURVEY_ML_DATA")
    reference = Table.read(paths[0])
    write_fits(rename_tables(catalogue)[ours], tmp_path / "t.fits", ours)
    table = Table.read(tmp_path / "t.fits")
    extra = {"name", "field", "duplicate_of", "flags"}
    # Their source list has positions, not pixels.
    extra |= {"Xposn", "Yposn"} if ours == "sources" else set()
    assert set(table.colnames) - set(reference.colnames) == extra
    for name in set(table.colnames) & set(reference.colnames):
        assert table[name].unit == reference[name].unit, name
