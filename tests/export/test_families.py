"""Families of columns and vectors from the parts of a release to its catalogue."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import parse_single_table

from survey_ml.data.commit import Unit, read_table, write_commit
from survey_ml.data.release import Release
from survey_ml.errors import PluginError
from survey_ml.export.catalogue import assemble
from survey_ml.export.pybdsf import rename_tables
from survey_ml.export.schema import columns_in, read_column
from survey_ml.export.tables import write_fits, write_parquet
from survey_ml.export.votable import write_votable
from survey_ml.products import Column, table

OWN = table(
    "votes",
    "source",
    columns=(
        Column("source_id", "int64"),
        Column("vote_*", "int32", "", "meta.number", "Votes for *"),
        Column("vote_shape", "float32[*]"),
    ),
)


def classify(store, product, make, *, only=None):
    """Commit a table over the sources of each tile."""
    for commit in list(Release(store).commits(stage="extraction").values()):
        unit = commit.unit
        number = read_table(store, unit, "sources", commit)["source_id"]
        if only is None or only(unit):
            rows = make(unit, number)
            write_commit(
                store,
                Unit(unit.field, "later", unit.tile),
                "c" * 64,
                made_by={},
                tables={product.name: (rows, product)},
            )


def make_morphology(unit, number):
    n = len(number)
    first = (number % 97 / 97).astype(np.float32)
    return {
        "source_id": number,
        "morph_class": np.where(first > 0.5, "FRI", "FRII"),
        "morph_p_fri": first,
        "morph_p_frii": 1 - first,
        "morph_model": np.full(n, "trial 1 0123456789ab"),
        "morph_flags": np.full(n, 16, np.int32),
    }


def make_votes(unit, number):
    n = len(number)
    return {
        "source_id": number,
        "vote_no": np.arange(n, dtype=np.int32),
        "vote_yes": np.full(n, 7, np.int32),
        "vote_shape": np.zeros((n, 4), np.float32),
    }


def test_a_built_in_family_is_joined_to_the_sources(tmp_path, commit):
    store = commit(str(tmp_path / "out"))
    classify(store, table("morphology", "source"), make_morphology, only=lambda unit: unit.tile != "0_0")
    tables = assemble(Release(store), {"morphology": table("morphology", "source")})
    assert "morphology" not in tables
    sources = tables["sources"]
    about = {column.name: column for column in columns_in(sources)}
    assert about["morph_p_frii"] == Column(
        "morph_p_frii",
        "float32",
        "",
        "stat.probability;src.morph.type",
        "Probability of the class frii",
    )
    number = read_column(sources, "source_id")
    made = read_column(sources, "tile") != "0_0"
    assert 0 < made.sum() < len(made)
    p = read_column(sources, "morph_p_fri")
    np.testing.assert_array_equal(p[made], (number[made] % 97 / 97).astype(np.float32))
    assert np.isnan(p[~made]).all()
    assert sources["morph_flags"].null_count == (~made).sum()
    renamed = rename_tables(tables)["sources"]
    assert renamed.column_names[-6:] == [
        "flags", "morph_class", "morph_p_fri", "morph_p_frii", "morph_model", "morph_flags",
    ]  # fmt: skip
    assert renamed["morph_flags"].null_count == (~made).sum()


def test_every_format_has_the_members_and_the_vectors(tmp_path, commit):
    store = commit(str(tmp_path / "out"))
    classify(store, OWN, make_votes)
    sources = assemble(Release(store), {"votes": OWN})["sources"]
    write_fits(sources, tmp_path / "a.fits", "sources")
    write_votable(sources, tmp_path / "a.vot", "sources")
    write_parquet(sources, tmp_path / "a.parquet", "sources")
    with fits.open(tmp_path / "a.fits") as opened:
        columns = opened[1].columns
    assert columns["vote_yes"].format == "J" and columns["vote_shape"].format == "4E"
    field = parse_single_table(tmp_path / "a.vot").get_field_by_id_or_name("vote_no")
    assert (field.description, field.ucd) == ("Votes for no", "meta.number")
    arrow = pq.read_schema(tmp_path / "a.parquet")
    assert arrow.field("vote_no").metadata[b"description"] == b"Votes for no"
    assert arrow.field("vote_shape").type.list_size == 4


@pytest.mark.parametrize("built_in", [True, False])
def test_parts_with_other_columns_are_no_catalogue(tmp_path, commit, built_in):
    store = commit(str(tmp_path / "out"))

    def change(unit, number):
        if built_in:
            rows = make_morphology(unit, number)
            if unit.tile == "1_0":
                rows["morph_p_bent"] = rows.pop("morph_p_frii")
        else:
            rows = make_votes(unit, number)
            if unit.tile == "1_0":
                rows["vote_shape"] = rows["vote_shape"][:, :3]
        return rows

    product = table("morphology", "source") if built_in else OWN
    classify(store, product, change)
    with pytest.raises(PluginError, match="other columns in tile 1_0 of field north than in tile 0_0") as got:
        assemble(Release(store), {product.name: product})
    assert ("morph_p_bent" if built_in else "float32[3]") in got.value.message


def test_a_catalogue_without_files_describes_members(tmp_path, commit):
    store = commit(str(tmp_path / "out"))
    classify(store, table("morphology", "source"), make_morphology)
    rows = Release(store).catalogue("morphology")
    assert rows["morph_p_fri"].description == "Probability of the class fri"
    assert rows["morph_p_fri"].meta["ucd"] == "stat.probability;src.morph.type"
