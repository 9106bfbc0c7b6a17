from __future__ import annotations

import numpy as np
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from survey_ml.export.names import Names, name_positions


def test_positions_are_truncated_not_rounded():
    # 12h34m56.789s -> .78, -01d23m45.69s -> 45.6
    ra = (12 + 34 / 60 + 56.789 / 3600) * 15
    dec = -(1 + 23 / 60 + 45.69 / 3600)
    assert name_positions(np.array([ra]), np.array([dec])).tolist() == ["SML J123456.78-012345.6"]


def test_whole_degrees_stay_whole():
    names = name_positions(np.array([15.0, 0.1, 360.0, 0.0]), np.array([0.0, -0.00001, 90.0, -90.0]), "X")
    assert names.tolist() == [
        "X J010000.00+000000.0",
        "X J000024.00-000000.0",
        "X J000000.00+900000.0",
        "X J000000.00-900000.0",
    ]


def test_positions_that_are_not_finite_have_no_name():
    assert name_positions(np.array([np.nan, 1.0]), np.array([0.0, np.inf])).tolist() == ["", ""]


@given(st.floats(0, 359.9999), st.floats(-89.99, 89.99))
def test_names_agree_with_astropy_to_one_unit_of_the_last_digit(ra, dec):
    name = str(name_positions(np.array([ra]), np.array([dec]), "S")[0])[3:]
    text = f"{name[:2]}:{name[2:4]}:{name[4:9]} {name[9:12]}:{name[12:14]}:{name[14:]}"
    back = SkyCoord(text, unit=("hourangle", "deg"))
    assert -1e-7 <= ra - back.ra.deg < 0.01 * 15 / 3600 + 1e-7
    assert -1e-7 <= abs(dec) - abs(back.dec.deg) < 0.1 / 3600 + 1e-7


def test_shared_names_get_letters_in_order():
    ra = np.array([10.0, 20.0, 10.0, np.nan, np.nan, 10.0, 30.0])
    dec = np.array([1.0, 2.0, 1.0, 0.0, 0.0, 1.0, 3.0])
    names, plain = Names(ra, dec), name_positions(ra, dec)
    assert [name[len(bare) :] for name, bare in zip(names.read(), plain, strict=True)] == [
        "a", "", "b", "", "", "c", "",
    ]  # fmt: skip
    assert names.read(slice(1, 3)).tolist() == names.read()[1:3].tolist()
    assert names.read(np.array([5, 0, 6])).tolist() == names.read()[[5, 0, 6]].tolist()
    many = Names(np.full(28, 1.0), np.zeros(28)).read()
    bare = len("SML J000400.00+000000.0")
    assert [name[bare:] for name in many[[0, 25, 26, 27]]] == ["a", "z", "aa", "ab"]
    assert len(set(many.tolist())) == 28


@given(st.lists(st.tuples(st.floats(0, 1e-4), st.floats(-5e-5, 5e-5)), max_size=30))
def test_no_two_rows_share_a_name(positions):
    ra, dec = np.array(positions).reshape(-1, 2).T
    assert len(set(Names(ra, dec).read().tolist())) == len(positions)
