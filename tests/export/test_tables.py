from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import parse_single_table, validate
from astropy.table import Table

from survey_ml.columns import columns_of
from survey_ml.export.schema import columns_in, make_table, read_column
from survey_ml.export.tables import describe_fields, write_fits, write_parquet
from survey_ml.export.votable import describe_votable, write_votable
from survey_ml.field import Beam
from survey_ml.products import Column

SMALL = (
    Column("name", "string", "", "meta.id", "Name with <angles> & more"),
    Column("flux", "float64", "Jy/beam", "phot.flux.density", "Flux"),
    Column("score", "float32", "", "", ""),
    Column("big", "int64", "", "meta.id", "Large"),
    Column("count", "int32", "pix", "meta.number", "Count"),
    Column("good", "bool", "", "meta.code", "Flag"),
    Column("vector", "float32[3]", "", "", "Vector"),
)


@pytest.fixture
def small() -> pa.Table:
    data = {
        "name": np.array(["a", "", "longer"]),
        "flux": np.array([1.5, np.nan, -2.0]),
        "score": np.array([0.5, 0.25, np.inf], np.float32),
        "big": np.array([1, 1 << 40, -3]),
        "count": np.array([7, 8, 9], np.int32),
        "good": np.array([True, False, True]),
        "vector": np.arange(9, dtype=np.float32).reshape(3, 3),
    }
    masks = {name: np.array([False, True, False]) for name in ("count", "good")}
    return make_table(data, SMALL, masks)


def write(table: pa.Table, path, name="sources"):
    if path.suffix == ".fits":
        write_fits(table, path, name, release="r1", version="9")
    elif path.suffix == ".vot":
        write_votable(table, path, name, "About")
    else:
        write_parquet(table, path, name, "About")
    return path


def assert_same(back: Table, table: pa.Table, *, descriptions: bool = True) -> None:
    assert back.colnames == table.column_names
    for column in columns_in(table):
        expected, found = read_column(table, column.name), back[column.name]
        missing = np.zeros(len(table), bool)
        if "[" not in column.dtype:
            missing = table[column.name].is_null().to_numpy()
        if missing.any():
            assert (np.ma.getmaskarray(np.ma.asarray(found)) | ~missing)[:].all()
        values = np.ma.getdata(found)[~missing]
        if expected.dtype.kind == "U":
            assert [str(v) for v in values] == expected[~missing].tolist()
        else:
            np.testing.assert_array_equal(values, expected[~missing])
        assert str(found.unit or "").replace(" ", "") == column.unit
        if descriptions:
            assert (found.description or "") == column.description


@pytest.mark.parametrize("suffix", ["fits", "vot", "parquet"])
@pytest.mark.parametrize("kind", ["sources", "components", "islands", "small"])
def test_tables_come_back_as_they_went(tmp_path, catalogue, small, suffix, kind):
    table = small if kind == "small" else catalogue[kind]
    if suffix == "parquet" and kind == "small":
        # astropy's Parquet reader knows no nulls; those are read with pyarrow below.
        table = table.drop(["count", "good"])
    back = Table.read(write(table, tmp_path / f"t.{suffix}"))
    # astropy does not read TCOMM; the cards are looked at below.
    assert_same(back, table, descriptions=suffix != "fits")


@pytest.mark.parametrize("suffix", ["fits", "vot", "parquet"])
def test_empty_tables_keep_their_columns(tmp_path, suffix):
    table = make_table({}, columns_of("sources"))
    back = Table.read(write(table, tmp_path / f"t.{suffix}"))
    assert len(back) == 0
    assert back.colnames == table.column_names
    assert str(back["major"].unit) == "arcsec"


@pytest.mark.parametrize("suffix", ["fits", "vot", "parquet"])
def test_the_same_table_gives_the_same_bytes(tmp_path, catalogue, suffix):
    one = write(catalogue["sources"], tmp_path / f"one.{suffix}").read_bytes()
    assert one == write(catalogue["sources"], tmp_path / f"two.{suffix}").read_bytes()


def test_fits_cards_describe_every_column(tmp_path, catalogue):
    path = write(catalogue["components"], tmp_path / "c.fits", "components")
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert hdus[0].header["RELEASE"] == "r1"
        assert "DATE" not in hdus[0].header and "DATE" not in hdus[1].header
        header = hdus[1].header
        assert header["EXTNAME"] == "COMPONENTS"
        for number, column in enumerate(columns_of("components"), start=1):
            assert header[f"TTYPE{number}"] == column.name
            assert header.get(f"TUNIT{number}", "") == column.unit
            assert header[f"TUCD{number}"] == column.ucd
            assert header[f"TCOMM{number}"] == column.description


def test_fits_marks_missing_integers_and_booleans(tmp_path, small):
    with fits.open(write(small, tmp_path / "s.fits")) as hdus:
        data = hdus[1]
        assert data.header["TNULL5"] == data.data.view(np.ndarray)["count"][1]
        assert data.header["TNULL6"] == data.data.view(np.ndarray)["good"][1] == -1


def test_votable_is_valid_and_has_ucds_and_frame(tmp_path, catalogue):
    path = write(catalogue["sources"], tmp_path / "s.vot")
    table = parse_single_table(path, verify="exception")
    columns = {field.name: field for field in table.fields}
    for column in columns_of("sources"):
        assert columns[column.name].ucd == column.ucd
    assert columns["ra"].ref == "icrs"
    assert table.description == "About"
    assert 'system="ICRS"' in path.read_text()


def test_votable_passes_the_validator(tmp_path, small):
    report = tmp_path / "report.txt"
    with report.open("w") as out:
        assert validate(str(write(small, tmp_path / "s.vot")), output=out, xmllint=False), report.read_text()


def test_votable_keeps_letters_beyond_ascii(tmp_path):
    table = make_table({"name": np.array(["Ωmega", "plain"])}, SMALL[:1])
    back = Table.read(write(table, tmp_path / "s.vot"))
    assert back["name"].tolist() == ["Ωmega", "plain"]
    assert Table.read(write(table, tmp_path / "s.fits"))["name"].tolist() == ["\\u03a9mega", "plain"]


def test_votable_blocks_join_without_a_seam(tmp_path, monkeypatch, catalogue):
    monkeypatch.setattr("survey_ml.export.votable._ROWS_A_BLOCK", 7)
    assert_same(Table.read(write(catalogue["sources"], tmp_path / "s.vot")), catalogue["sources"])


def test_parquet_has_both_descriptions(tmp_path, catalogue):
    path = write(catalogue["sources"], tmp_path / "s.parquet")
    metadata = pq.read_metadata(path).metadata
    assert metadata[b"IVOA.VOTable-Parquet.version"] == b"1.0"
    content = metadata[b"IVOA.VOTable-Parquet.content"].decode()
    assert "<DATA" not in content and "<FIELD" in content
    assert b"unit: arcsec" in metadata[b"table_meta_yaml"]
    back = Table.read(path, format="parquet.votable")
    assert_same(back, catalogue["sources"])
    assert back["ra"].meta["ucd"] == "pos.eq.ra;meta.main"
    assert Table.read(path)["ra"].meta["ucd"] == "pos.eq.ra;meta.main"


def test_parquet_keeps_nulls(tmp_path, small):
    back = pq.read_table(write(small, tmp_path / "s.parquet"))
    assert back["count"].to_pylist() == [7, None, 9]
    assert back["good"].to_pylist() == [True, None, True]


def test_markup_in_descriptions_is_escaped(small):
    assert "Name with &lt;angles&gt; &amp; more" in describe_votable(small, "s")


def test_the_header_has_what_all_fields_share(tmp_path, catalogue, field):
    one, two = field("one"), field("two", ra=160.0)
    cards = describe_fields([one, two])
    path = tmp_path / "s.fits"
    write_fits(catalogue["sources"], path, "sources", cards)
    header = fits.getheader(path, 1)
    assert (header["RADESYS"], header["EQUINOX"]) == ("ICRS", 2000.0)
    assert header["RESTFRQ"] == 1.4e9
    assert header["BMAJ"] * 3600 == pytest.approx(one.beam.major)
    assert Table.read(path).colnames == catalogue["sources"].column_names


def test_what_differs_between_fields_is_not_in_the_header(field):
    one = field("one")
    narrow = replace(field("two"), beam=Beam(6.0, 6.0, 30.0), frequency=float("nan"))
    assert set(describe_fields([one, narrow])) == {"RADESYS", "EQUINOX"}
    old = replace(one, header=one.header.replace("'ICRS'", "'FK4' "))
    assert not {"RADESYS", "EQUINOX"} & set(describe_fields([one, old]))
    assert describe_fields([old])["RADESYS"][0] == "FK4"
    assert describe_fields([]) == {}


@pytest.mark.parametrize("suffix", ["fits", "vot", "parquet"])
@pytest.mark.parametrize("kind", ["sources", "islands", "small"])
def test_blocks_of_rows_give_the_same_bytes_as_one(tmp_path, catalogue, small, monkeypatch, suffix, kind):
    table = small if kind == "small" else catalogue[kind]
    whole = write(table.combine_chunks(), tmp_path / f"whole.{suffix}").read_bytes()
    monkeypatch.setattr("survey_ml.export.spool.BLOCK", 7)
    assert write(table, tmp_path / f"blocks.{suffix}").read_bytes() == whole


def test_fits_rows_are_the_bytes_that_astropy_writes(tmp_path, small):
    path = write(small, tmp_path / "a.fits")
    with fits.open(path) as hdus:
        hdus.writeto(tmp_path / "b.fits", checksum=False)
        rows = np.array(hdus[1].data)
        fits.BinTableHDU(rows, header=hdus[1].header).writeto(tmp_path / "c.fits")
    assert (tmp_path / "b.fits").read_bytes() == path.read_bytes()
    assert fits.getdata(tmp_path / "c.fits").tobytes() == fits.getdata(path).tobytes()
