"""`check` finds what a model promises and does not keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_files import make_card, make_network, write_forest, write_model

from survey_ml.models import check as check_module
from survey_ml.models.check import check_model, make_images
from survey_ml.models.classifier import Classifier, list_runtimes, load_classifier
from survey_ml.models.format import read_model, save_model
from survey_ml.models.registry import ModelFile, find_model
from survey_ml.models.runtime import load_network


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(check_module, "N_BATCH", 9)


def look(path, **options):
    checks, symmetries = check_model(ModelFile("m", path, "file"), n=12, **options)
    return {one.name: one for one in checks}, symmetries


def test_a_model_that_keeps_its_promises_passes(tmp_path):
    told = []
    checks, symmetries = look(
        write_model(tmp_path / "m.safetensors", group="D4"), tell=lambda *now: told.append(now)
    )
    assert [one.passed for one in checks.values()] == [True] * 4
    assert "invariant under all eight symmetries: 12 images" in checks["symmetry"].detail
    assert len(symmetries) == 7
    assert all(one.claimed and one.largest < 1e-5 and one.flips == 0 for one in symmetries)
    assert checks["runtimes"].value < 1e-4
    assert told == [(k, 8) for k in range(1, 9)]


@pytest.mark.parametrize("seed", [7, 4242])
def test_both_runtimes_say_what_double_precision_says(seed):
    # Torch was off by 1.2e-4 on these images while its features lay channels last.
    model = find_model("firstgalaxy-attention")
    arrays, card, _ = read_model(model.path)
    exact = load_network(arrays, card, pooled=True).double()
    images = make_images(129, card.preprocessing.side, seed)
    with torch.inference_mode():
        logits = exact(torch.from_numpy(images).double()[:, None])[0] / card.temperature
    for runtime in list_runtimes(card):
        found = load_classifier(model.path, runtime).predict(images).probabilities
        assert np.abs(found - logits.softmax(1).numpy()).max() < 1e-5


def test_a_model_that_claims_nothing_may_depend_on_the_orientation(tmp_path):
    checks, symmetries = look(write_model(tmp_path / "m.safetensors"))
    assert checks["symmetry"].passed is None
    assert "not invariant" in checks["symmetry"].detail
    assert max(one.largest for one in symmetries) > 1e-3
    assert not any(one.claimed for one in symmetries)


def test_a_claim_that_is_not_kept_fails(tmp_path):
    network = make_network(group="C4")
    save_model(tmp_path / "m.safetensors", network, make_card(network.architecture, invariant_under="D4"))
    checks, symmetries = look(tmp_path / "m.safetensors")
    assert checks["symmetry"].passed is False
    assert [one.largest < 1e-5 for one in symmetries] == [True] * 3 + [False] * 4
    save_model(tmp_path / "c4.safetensors", network, make_card(network.architecture, invariant_under="C4"))
    checks, _ = look(tmp_path / "c4.safetensors")
    assert checks["symmetry"].passed is True


@pytest.mark.parametrize(
    ("group", "n"), [("C1", 0), ("C2", 1), ("C4", 3), ("C8", 3), ("C6", 1), ("D1", 1), ("D4", 7), ("D16", 7)]
)
def test_a_claim_is_about_what_the_pixel_grid_can_show(group, n):
    assert len(check_module._list_claimed(group) - {(0, False)}) == n


def test_an_odd_difference_of_sides_breaks_a_claim(tmp_path):
    from survey_ml.learning.preprocessing import Preprocessing

    network = make_network(group="D4")
    card = make_card(network.architecture, invariant_under="D4", preprocessing=Preprocessing(side=51))
    save_model(tmp_path / "m.safetensors", network, card)
    assert look(tmp_path / "m.safetensors")[0]["symmetry"].passed is False


def test_a_forest_has_no_other_runtime(tmp_path):
    checks, _ = look(write_forest(tmp_path / "f.safetensors"))
    assert checks["runtimes"].passed is None
    assert checks["symmetry"].passed is True


def test_a_damaged_file_fails_and_ends_the_check(tmp_path):
    path = write_model(tmp_path / "m.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    checks, symmetries = look(path)
    assert list(checks) == ["file"]
    assert checks["file"].passed is False
    assert symmetries == []


def test_a_batch_that_matters_is_found(tmp_path, monkeypatch):
    """A row that is made to depend on its batch, as batch statistics would."""
    predict = Classifier.predict

    def leak(self, images, batch_size=64):
        found = predict(self, images, batch_size)
        first = found.probabilities.copy()
        for start in range(0, len(first), batch_size):
            first[start : start + batch_size] += np.float32(1e-4) * first[start]
        return type(found)(found.logits, first, found.embedding, found.attention)

    monkeypatch.setattr(Classifier, "predict", leak)
    checks, _ = look(write_model(tmp_path / "m.safetensors"))
    assert checks["batch"].passed is False
