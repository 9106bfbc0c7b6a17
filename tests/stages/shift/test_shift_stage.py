"""The stage: what it says of a field like the reference, of others, and of those it can say nothing of."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage
from trial_model import write_model, write_reference

from survey_ml import morphology_flags as flags
from survey_ml.engine.outputs import check_outputs
from survey_ml.errors import ConfigError, InputError
from survey_ml.field import Beam, Field
from survey_ml.simulation.sky import make_cards
from survey_ml.stage import Inputs
from survey_ml.stages.shift.release import ReleaseShift
from survey_ml.stages.shift.spec import RELEASE, SPEC
from survey_ml.stages.shift.stage import (
    DOUBTFUL,
    FLAGS,
    NOT_JUDGED,
    REFUSED,
    ShiftMonitor,
    ShiftOptions,
)

pytest.importorskip("torch", reason="survey-ml[learning] is not installed")

CLASSES = ("FRI", "FRII", "compact", "bent")
SIDE, COLUMNS, ROWS = 50, 10, 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_model(tmp_path_factory.mktemp("model") / "trial.safetensors")
    write_reference(path)
    return path


def make_field(**changes):
    shape = (SIDE * ROWS, SIDE * COLUMNS)
    header = "".join(card.ljust(80) for card in make_cards(shape, 1.8, (150.0, 2.2)))
    return dataclasses.replace(Field("sky", shape, header, Beam(5.4, 5.4, 0.0), 1.4e9), **changes)


def classify(model, images, field=None):
    """Return what stages make of a field with these images in squares beside each other."""
    from survey_ml.models.classifier import load_classifier

    classifier = load_classifier(model, "torch")
    found = classifier.predict(images)
    n = len(images)
    image = np.zeros((ROWS * COLUMNS, SIDE, SIDE), np.float32)
    image[:n] = images
    image = image.reshape(ROWS, COLUMNS, SIDE, SIDE).swapaxes(1, 2).reshape(ROWS * SIDE, COLUMNS * SIDE)
    image += np.random.default_rng(0).normal(0.0, 0.005, image.shape).astype(np.float32)
    number = np.arange(n)
    y, x = (SIDE * part[:n] + SIDE // 2 for part in np.divmod(np.arange(ROWS * COLUMNS), COLUMNS))
    sources = {
        "source_id": number, "island_id": number, "x": x.astype(float), "y": y.astype(float),
        "ra": 150.0 - x * 1.8 / 3600.0, "dec": 2.2 + y * 1.8 / 3600.0, "peak_flux": np.ones(n),
        "local_rms": np.full(n, 0.005), "resolved": np.ones(n, bool), "n_components": np.ones(n, np.int32),
    }  # fmt: skip
    islands = {"island_id": number} | {
        f"{axis}_{end}": np.asarray(at + reach)
        for axis, at in (("x", x), ("y", y))
        for end, reach in (("min", -4), ("max", 4))
    }
    morphology = {"source_id": number, "morph_flags": np.zeros(n, np.int32)} | {
        f"morph_p_{name.lower()}": np.ascontiguousarray(found.probabilities[:, k])
        for k, name in enumerate(CLASSES)
    }
    card = classifier.card
    summary = {
        "name": card.name,
        "hash": classifier.hash,
        "classes": list(CLASSES),
        "preprocessing": dataclasses.asdict(card.preprocessing),
        "cutouts": {"cutout_arcsec": None, "centre": "position", "shown": "all"},
    }
    features = {"source_id": number, "morph_embedding": found.embedding}
    tables = {
        "sources": sources, "islands": islands, "morphology": morphology, "morphology_features": features,
    }  # fmt: skip
    return Inputs(
        field or make_field(), None, {"image": image}, tables, {"morphology_model": {"0_0": summary}}
    )


@pytest.fixture(scope="module")
def same(model):
    """A field of the kind of the reference."""
    from survey_ml.models.trial import make_images

    return classify(model, make_images(72, SIDE, seed=9))


def set_up(model, /, **options):
    own = {"reference": model.with_suffix(".reference"), "permutations": 100}
    made = ShiftMonitor(ShiftOptions(**own | options))
    made.setup()
    return made


def run(stage, inputs):
    _, found, summaries = check_outputs("shift", SPEC.writes, stage.run(inputs), None)
    row = {name: values[0] for name, values in found["shift"][0].items()}
    json.dumps(summaries, allow_nan=False)
    return row, summaries["shift_verdict"]


def change(inputs, table, **columns):
    tables = dict(inputs.tables) | {table: dict(inputs.tables[table]) | columns}
    return dataclasses.replace(inputs, tables=tables)


def take(inputs, chosen):
    tables = {name: {key: v[chosen] for key, v in rows.items()} for name, rows in inputs.tables.items()}
    return dataclasses.replace(inputs, tables=tables)


def test_a_field_like_the_reference_is_green(model, same):
    row, verdict = run(set_up(model), same)
    assert list(row) == [
        "shift_level", "shift_score", "shift_cause", "shift_p_value", "shift_effect", "shift_n",
        "shift_n_left_out", "shift_reason",
        *(f"shift_{what}_{name.lower()}" for what in ("share", "low", "high") for name in CLASSES),
    ]  # fmt: skip
    assert (row["shift_level"], row["shift_cause"], row["shift_reason"]) == ("green", "", "")
    assert (row["shift_n"], row["shift_n_left_out"]) == (72, 0)
    assert sum(row[f"shift_share_{name.lower()}"] for name in CLASSES) == pytest.approx(1.0, abs=1e-5)
    for name in CLASSES:
        low, share, high = (row[f"shift_{what}_{name.lower()}"] for what in ("low", "share", "high"))
        assert 0.0 <= low <= share <= high <= 1.0
    assert {"mmd", "energy", "separation"} <= set(verdict["statistics"])
    for one in verdict["statistics"].values():
        assert set(one) == {"value", "low", "high", "null_mean", "null_std", "p_value", "n", "d"}
    assert {"beam", "size"} <= set(verdict["covariates"])
    assert verdict["covariates"]["beam"]["sample"] == pytest.approx(3.0)
    assert verdict["model"]["hash"] and verdict["reference"]["n"] == 160


def test_neither_order_nor_call_changes_a_verdict(model, same):
    stage = set_up(model)
    first = run(stage, same)
    mixed = take(same, np.random.default_rng(1).permutation(72))
    assert run(stage, mixed) == first and run(set_up(model), same) == first
    _, other = run(set_up(model, seed=3), same)
    assert other["statistics"]["mmd"]["null_mean"] != first[1]["statistics"]["mmd"]["null_mean"]


def test_a_wider_beam_is_red_and_named(model):
    from survey_ml.models.trial import make_images

    images = ndimage.gaussian_filter(make_images(72, SIDE, seed=9), (0, 6.0, 6.0))
    images /= images.max(axis=(1, 2), keepdims=True)
    images[images < 0.02] = 0.0
    row, verdict = run(set_up(model), classify(model, images, make_field(beam=Beam(26.0, 26.0, 0.0))))
    assert (row["shift_level"], row["shift_cause"]) == ("red", "beam")
    assert np.isnan(row["shift_share_fri"]) and "look different" in row["shift_reason"]
    assert verdict["prior"]["refused"] and verdict["covariates"]["beam"]["shifted"]


def test_of_few_sources_nothing_is_said(model, same):
    for chosen in (slice(0, 19), slice(0, 0)):
        row, verdict = run(set_up(model), take(same, chosen))
        assert row["shift_level"] == "unknown" and "20 are needed" in row["shift_reason"]
        assert np.isnan(row["shift_score"]) and np.isnan(row["shift_p_value"])
        assert not verdict["statistics"] and verdict["score"] is None
        assert "shift_share_bent" in row  # the columns are those of all other fields


def test_sources_without_data_and_spoilt_ones_are_left_out(model, same):
    embedding = same.tables["morphology_features"]["morph_embedding"].copy()
    embedding[::9] = np.nan
    flag = np.zeros(72, np.int32)
    flag[1::9] = flags.FAINT
    flag[2::9] = flags.COARSE
    holed = change(
        change(same, "morphology_features", morph_embedding=embedding), "morphology", morph_flags=flag
    )
    row, _ = run(set_up(model), holed)
    assert (row["shift_n"], row["shift_n_left_out"]) == (56, 16) and row["shift_level"] == "green"
    embedding = np.full_like(embedding, np.nan)
    row, _ = run(set_up(model), change(same, "morphology_features", morph_embedding=embedding))
    assert (row["shift_level"], row["shift_n"]) == ("unknown", 0)


def test_a_reference_of_one_class_gives_no_shares(model, same, tmp_path):
    path = write_model(tmp_path / "trial.safetensors")
    write_reference(path, only=1)
    row, verdict = run(set_up(path), same)
    assert "of some class" in row["shift_reason"] and np.isnan(row["shift_share_frii"])
    assert row["shift_level"] in ("green", "amber") and verdict["prior"]["refused"]


def test_what_is_missing_or_of_another_model_is_said(model, same, tmp_path):
    with pytest.raises(ConfigError, match="nothing is known of the images that model trial"):
        run(set_up(model, reference="auto"), same)
    other = write_reference(write_model(tmp_path / "trial.safetensors", seed=1))
    with pytest.raises(InputError, match="not of the model"):
        run(set_up(model, reference=other), same)
    with pytest.raises(InputError, match="cannot be read"):
        run(set_up(model, reference=tmp_path / "none.reference"), same)
    summary = same.summaries["morphology_model"]["0_0"]
    two = {"0_0": summary, "0_1": summary | {"hash": "f" * 64}}
    with pytest.raises(InputError, match=r"classified by trial .* and trial"):
        run(set_up(model), dataclasses.replace(same, summaries={"morphology_model": two}))


def test_options_are_held_against_each_other():
    assert (ShiftOptions().reference, ShiftOptions().permutations, ShiftOptions().alpha) == (
        "auto",
        200,
        0.01,
    )
    with pytest.raises(ValidationError, match="give 1000 of them at least"):
        ShiftOptions(alpha=0.001)


def test_the_key_holds_the_file_that_is_named_or_all_that_could_be(tmp_path):
    path = tmp_path / "some.reference"
    assert ShiftOptions(reference=str(path)).files() == {"reference": path}
    assert set(ShiftOptions().files()) >= {"mirabest-d4.reference", "firstgalaxy-d4.reference"}


def run_all(stage, inputs):
    _, found, summaries = check_outputs("shift", SPEC.writes, stage.run(inputs), None)
    return {name: rows for name, (rows, _) in found.items()}, summaries["shift_verdict"]


def test_pieces_of_one_galaxy_count_once(model, same):
    plain, _ = run_all(set_up(model), same)
    # Each source found in three pieces within a few arcsec, which are shown the same picture.
    tripled = {name: {key: np.tile(v, (3,) + (1,) * (v.ndim - 1)) for key, v in rows.items()}
               for name, rows in same.tables.items()}  # fmt: skip
    number = np.arange(216)
    for name in ("sources", "morphology", "morphology_features"):
        tripled[name]["source_id"] = number
    tripled["sources"]["dec"] = tripled["sources"]["dec"] + (number // 72) * 5.0 / 3600.0
    tripled["sources"]["peak_flux"] = 1.0 - 0.1 * (number // 72)
    tripled["islands"] = same.tables["islands"]
    tables, verdict = run_all(set_up(model), dataclasses.replace(same, tables=tripled))
    assert (verdict["n"], verdict["n_left_out"], verdict["n_pieces"]) == (72, 144, 144)
    for name in ("shift_level", "shift_score", "shift_p_value"):
        assert tables["shift"][name] == plain["shift"][name]
    assert tables["shift_objects"]["source_id"].tolist() == list(range(72))
    assert tables["shift_sources"]["source_id"].tolist() == number.tolist()


def test_all_sources_of_a_field_are_flagged_by_its_level(model, same):
    tables, _ = run_all(set_up(model), same)
    assert set(tables["shift_sources"]["shift_flags"]) == {0}
    tables, _ = run_all(set_up(model), take(same, slice(0, 12)))
    assert (
        set(tables["shift_sources"]["shift_flags"]) == {NOT_JUDGED}
        and len(tables["shift_objects"]["ra"]) == 12
    )
    assert (FLAGS["red"], FLAGS["amber"]) == (REFUSED, DOUBTFUL)
    tables, _ = run_all(set_up(model), take(same, slice(0, 0)))
    assert {len(rows["source_id"]) for name, rows in tables.items() if name != "shift"} == {0}


def test_squares_are_judged_where_there_are_sources_for_two(model, same):
    _, verdict = run_all(set_up(model), same)
    squares = verdict["squares"]
    assert len(squares) >= 2 and sum(one["n"] for one in squares) == 72
    for one in squares:
        assert (one["level"] == "unknown") == (one["n"] < 20) == (one["score"] is None)
    _, verdict = run_all(set_up(model), take(same, slice(0, 39)))
    assert verdict["squares"] == [] and verdict["level"] != "unknown"


def make_release(fields, verdicts):
    rows = {}
    for name, tables in fields.items():
        part = tables["shift_objects"]
        for key, values in {"field": np.full(len(part["ra"]), name, object), **part}.items():
            rows.setdefault(key, []).append(values)
    tables = {"shift_objects": {key: np.concatenate(values) for key, values in rows.items()}}
    return Inputs(None, None, {}, tables, {"shift_verdict": verdicts}, {})


def run_release(model, inputs, **options):
    own = {"reference": model.with_suffix(".reference"), "permutations": 100}
    stage = ReleaseShift(ShiftOptions(**own | options))
    stage.setup()
    _, _, summaries = check_outputs("shift_release", RELEASE.writes, stage.run(inputs), None)
    return summaries["shift_release_verdict"]


def test_a_release_is_judged_by_all_its_fields(model, same):
    # Neither field has sources enough by itself; the second shows some sky of the first once more.
    halves = {"one": slice(0, 18), "two": slice(15, 33)}
    found = {name: run_all(set_up(model), take(same, part)) for name, part in halves.items()}
    verdicts = {name: verdict for name, (_, verdict) in found.items()}
    assert {one["level"] for one in verdicts.values()} == {"unknown"}
    whole = run_release(model, make_release({name: t for name, (t, _) in found.items()}, verdicts))
    assert (whole["n"], whole["n_left_out"], whole["fields"]) == (33, 3, 2)
    assert whole["conditional"]["level"] == "green" and whole["score"] is not None
    one = {"one": found["one"][0]}
    few = run_release(model, make_release(one, {"one": verdicts["one"]}))
    assert few["level"] == "unknown" and "18 sources" in few["reason"] and few["score"] is None


def test_fields_of_different_models_are_no_release(model, same):
    tables, verdict = run_all(set_up(model), take(same, slice(0, 18)))
    other = verdict | {"model": verdict["model"] | {"hash": "f" * 64}}
    with pytest.raises(InputError, match="classified by trial and trial"):
        run_release(model, make_release({"one": tables, "two": tables}, {"one": verdict, "two": other}))


def test_the_reference_beside_a_model_that_is_given_by_its_path_is_found(model, same):
    summary = same.summaries["morphology_model"]["0_0"] | {"path": str(model)}
    there = dataclasses.replace(same, summaries={"morphology_model": {"0_0": summary}})
    row, verdict = run(set_up(model, reference="auto"), there)
    assert row["shift_level"] == "green" and verdict["model"]["path"] == str(model)
