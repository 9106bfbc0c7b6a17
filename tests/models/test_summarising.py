"""The reference summary of a model that was just trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
from trial_model import draw_labelled, write_model

from survey_ml.cli import main
from survey_ml.models.fitting import Fitting
from survey_ml.models.format import read_card
from survey_ml.models.reference import find_reference
from survey_ml.models.summarising import LEAST_IMAGES, choose_held_out, summarise_images

pytest.importorskip("torch", reason="survey-ml[learning] is not installed")


def show(path, capsys, *more):
    with pytest.raises(SystemExit) as ended:
        main(["models", "show", str(path), *more])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_a_summary_lies_beside_its_model_and_is_shown(tmp_path, capsys):
    path = write_model(tmp_path / "trial.safetensors")
    assert json.loads(show(path, capsys, "--json"))["reference"] is None
    assert "reference summary: none" in show(path, capsys)
    data = draw_labelled(path, 64)
    made = summarise_images(path, data, "mine, test images")
    assert made == tmp_path / "trial.reference"
    found = find_reference(path, read_card(path)[1])
    assert (found.summary.n, found.summary.data, found.summary.held_out) == (64, "mine, test images", True)
    assert found.summary.counts == tuple(np.bincount(data.labels, minlength=4).tolist())
    assert {"beam", "size"} <= {name for name, values in found.summary.quantiles.items() if values}
    assert json.loads(show(path, capsys, "--json"))["reference"]["n"] == 64
    assert "64 images" in show(path, capsys)


def test_test_images_go_before_validation_images_and_few_are_none(tmp_path):
    path = write_model(tmp_path / "trial.safetensors")
    data = draw_labelled(path, 64)
    split = np.where(np.arange(64) < 2 * LEAST_IMAGES, "valid", "train")
    data = type(data)(
        data.images, data.labels, data.classes, data.names, data.ra, data.dec, split, data.subtracted
    )
    fitting = Fitting(name="trial", model="equivariant", architecture={}, recipe={"epochs": 1})
    kept, said = choose_held_out(data, data.take(slice(0, 30)), fitting)
    assert (len(kept.labels), said) == (30, "test images")
    kept, said = choose_held_out(data, data.take(slice(0, 5)), fitting)
    assert (len(kept.labels), said) == (2 * LEAST_IMAGES, "validation images")
    train = data.take(split == "train")
    assert (
        choose_held_out(train, train.take(slice(0, 0)), fitting.model_copy(update={"validation": 0.0}))
        is None
    )
