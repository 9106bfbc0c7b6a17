"""Keys: what changes them, what does not, and how a change is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import trial
from releases import make_registry

from survey_ml.engine.keys import (
    describe_field,
    describe_ingest,
    describe_stage,
    explain_change,
    hash_json,
    package_versions,
    unit_key,
)
from survey_ml.field import Beam, Field
from survey_ml.stage import Options, Scope

FIELD = Field("north", (70, 90), "CTYPE1  = 'RA---SIN'", Beam(6.0, 5.0, 30.0), 1.4e9)


def describe(spec=trial.SMOOTH, options=None, field=FIELD, reads=None, core=32, seed=0):
    return describe_stage(
        spec,
        options or trial.SmoothOptions(),
        field=describe_field(field),
        reads=reads or {"ingest": "a" * 64},
        core=core,
        seed=seed,
    )


def test_same_from_any_order():
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert unit_key(describe(), "0_0") == unit_key(describe(), "0_0")
    assert unit_key(describe(), "0_0") != unit_key(describe(), "0_1")
    assert len(unit_key(describe(), "0_0")) == 64


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"spec": dataclasses.replace(trial.SMOOTH, version="2")}, "code: version 1 -> 2"),
        (
            {"spec": dataclasses.replace(trial.SMOOTH, factory="other:Smooth")},
            "code: factory trial:Smooth -> ",
        ),
        ({"options": trial.SmoothOptions(threshold=6.0)}, "option threshold: 3.0 -> 6.0"),
        ({"seed": 1}, "option seed: 0 -> 1"),
        ({"core": 64}, "option tiling.core: 32 -> 64"),
        ({"reads": {"ingest": "b" * 64}}, "input changed: ingest"),
        ({"reads": {"ingest": "a" * 64, "noise": "c" * 64}}, "input changed: noise"),
        (
            {"field": dataclasses.replace(FIELD, beam=Beam(5.0, 5.0, 30.0))},
            "input changed: beam.major 6.0 -> 5.0",
        ),
        ({"field": dataclasses.replace(FIELD, header="CTYPE1  = 'RA---TAN'")}, "input changed: header"),
    ],
)
def test_change_is_explained(changed, reason):
    old, new = describe(), describe(**changed)
    assert hash_json(old) != hash_json(new)
    assert explain_change(old, new).startswith(reason)


def test_field_name_and_order_of_reads_do_not_matter():
    assert describe() == describe(field=dataclasses.replace(FIELD, name="south"))
    both = {"a": "1", "b": "2"}
    assert hash_json(describe(reads=both)) == hash_json(describe(reads=dict(reversed(both.items()))))


def test_core_matters_only_where_there_is_a_unit_a_tile():
    assert "tiling" not in describe(spec=trial.TOTAL, options=trial.TotalOptions())
    assert trial.TOTAL.scope is Scope.FIELD


def test_unknown_frequency_is_equal_to_itself():
    field = dataclasses.replace(FIELD, frequency=float("nan"))
    assert describe(field=field) == describe(field=dataclasses.replace(FIELD, frequency=float("nan")))


def test_package_versions_are_major_and_minor(monkeypatch):
    assert all(version.count(".") == 1 for version in package_versions().values())
    old = describe()
    new = {**old, "packages": {**old["packages"], "numpy": "9.9"}}
    assert explain_change(old, new) == f"code: numpy {old['packages']['numpy']} -> 9.9"


def test_file_named_by_an_option_is_an_input(tmp_path):
    class WithFile(Options):
        model: str

    path = tmp_path / "weights.bin"
    path.write_bytes(b"one")
    old = describe(options=WithFile(model=str(path)))
    assert old["files"][str(path)]
    path.write_bytes(b"other")
    new = describe(options=WithFile(model=str(path)))
    assert explain_change(old, new) == f"input changed: {path}"
    assert "files" not in describe(options=WithFile(model="image"))


class WithModel(Options):
    model: str

    def files(self):
        return {"small-model": Path(self.model)}


def test_a_labelled_file_counts_by_what_it_holds_and_not_by_its_place(tmp_path):
    here, there = tmp_path / "here.bin", tmp_path / "there.bin"
    here.write_bytes(b"one")
    there.write_bytes(b"one")
    old = describe(options=WithModel(model=str(here)))
    assert list(old["files"]) == ["small-model"] and str(tmp_path) not in str(old)
    assert old == describe(options=WithModel(model=str(there)))
    there.write_bytes(b"other")
    new = describe(options=WithModel(model=str(there)))
    assert hash_json(new) != hash_json(old)
    assert explain_change(old, new) == "input changed: small-model"


def test_options_without_files_keep_their_key():
    assert "files" not in describe() and Options().files() == {}


def test_ingest_does_not_care_where_the_file_lies():
    spec = make_registry().stage("ingest")
    common = {"reader": "fits", "hdu": None, "scale": 1.0, "core": 32}
    old = describe_ingest(spec, sha256="a", **common)
    assert explain_change(old, describe_ingest(spec, sha256="b", **common)) == (
        "input changed: contents of the image file"
    )
    scaled = describe_ingest(spec, sha256="a", **{**common, "scale": 1e-3})
    assert explain_change(old, scaled) == "input changed: scale 1.0 -> 0.001"
