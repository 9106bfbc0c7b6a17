"""A reference summary comes back as it was written; what is not one is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from survey_ml.errors import ConfigError, InputError
from survey_ml.learning.shift_sources import Sources
from survey_ml.models.card import Base
from survey_ml.models.format import import_safetensors, read_card
from survey_ml.models.reference import find_reference, make_reference, read_reference, save_reference
from survey_ml.models.registry import find_model

MODEL = Base(name="trial", hash="a" * 64)


def make(n=60, **changes):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    sources = Sources(
        rng.normal(size=(n, 5)),
        np.tile([[0.3, 0.7]], (n, 1)),
        labels,
        {"beam": np.full(n, 3.0), "size": np.where(labels, np.nan, 20.0)},
    )
    return make_reference(MODEL, sources, ("FRI", "FRII"), beam=3.0, data="made", **changes)


def test_it_comes_back(tmp_path):
    made = make(most=40)
    save_reference(made, tmp_path / "trial.reference")
    found = read_reference(tmp_path / "trial.reference", "a" * 64)
    assert found.summary == made.summary
    assert (found.summary.n, found.summary.kept, found.summary.counts) == (60, 40, (30, 30))
    assert found.summary.quantiles["rms"] is None and found.summary.quantiles["beam"] == (3.0,) * 5
    for name, array in made.arrays.items():
        assert np.array_equal(found.arrays[name], array, equal_nan=True)
    assert len(found.sources) == 40 and np.isnan(found.sources.covariates["rms"]).all()
    assert found.scale.width == pytest.approx(np.sqrt(np.diag(made.arrays["covariance"])))


def test_it_lies_beside_its_model(tmp_path):
    model = tmp_path / "trial.safetensors"
    assert find_reference(model, "a" * 64) is None
    save_reference(make(), tmp_path / "trial.reference")
    assert find_reference(model, "a" * 64) is not None
    with pytest.raises(InputError, match="not of the model"):
        find_reference(model, "b" * 64)


def rewrite(path, *, summary=None, arrays=None):
    made = make()
    kept = json.loads(made.summary.model_dump_json()) | (summary or {})
    data = {**made.arrays, **(arrays or {})}
    path.write_bytes(import_safetensors().save(data, metadata={"summary": json.dumps(kept)}))
    return path


@pytest.mark.parametrize(
    ("summary", "arrays", "said"),
    [
        ({"kept": 50}, {}, "covariates is"),
        ({"counts": [1, 2]}, {}, "add up"),
        ({"more": 1}, {}, "more"),
        ({"width": 10**9}, {}, "width"),
        ({}, {"labels": np.full(60, 5, np.int32)}, "no class"),
        ({}, {"mean": np.full(5, np.nan)}, "not finite"),
        ({}, {"covariance": -np.eye(5)}, "negative variance"),
        ({}, {"covariance": 1e300 * np.eye(5)}, "not finite"),
        ({}, {"extra": np.zeros(3)}, "extra"),
        ({}, {"embedding": np.zeros((60, 6), np.float32)}, "embedding is"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, summary, arrays, said):
    with pytest.raises(InputError, match=said):
        read_reference(rewrite(tmp_path / "x.reference", summary=summary, arrays=arrays))


def test_a_covariance_of_double_precision_is_read_too(tmp_path):
    new = read_reference(rewrite(tmp_path / "new.reference"))
    covariance = new.arrays["covariance"].astype(np.float64)
    old = read_reference(rewrite(tmp_path / "old.reference", arrays={"covariance": covariance}))
    assert new.arrays["covariance"].dtype == old.arrays["covariance"].dtype == np.float32
    assert np.array_equal(new.arrays["covariance"], old.arrays["covariance"])


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"{}", b"\xff" * 100, b"\x10" + bytes(7) + b"[" * 16])
def test_what_is_no_summary_is_refused(tmp_path, content):
    path = tmp_path / "x.reference"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no reference summary"):
        read_reference(path)


def test_a_cut_or_absent_file_is_refused(tmp_path):
    whole = rewrite(tmp_path / "x.reference").read_bytes()
    (tmp_path / "cut.reference").write_bytes(whole[:-50])
    with pytest.raises(InputError, match="damaged"):
        read_reference(tmp_path / "cut.reference")
    with pytest.raises(InputError, match="cannot be read"):
        read_reference(tmp_path / "absent.reference")


def test_labels_are_needed():
    sources = Sources(np.zeros((5, 2)), np.full((5, 2), 0.5))
    with pytest.raises(ConfigError, match="labelled"):
        make_reference(MODEL, sources, ("FRI", "FRII"), beam=3.0)


@pytest.mark.parametrize(
    "name",
    ["mirabest-d4", "mirabest-attention", "firstgalaxy-d4", "firstgalaxy-attention", "firstgalaxy-forest"],
)
def test_every_built_in_model_has_a_small_one_of_images_that_it_was_not_trained_on(name):
    model = find_model(name)
    card, digest = read_card(model.path)
    found = find_reference(model.path, digest)
    assert found is not None and found.summary.held_out
    assert found.summary.classes == card.classes and min(found.summary.counts) >= 50
    assert model.path.with_suffix(".reference").stat().st_size < 400_000
    assert found.summary.beam == pytest.approx(3.0)
