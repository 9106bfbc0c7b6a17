"""Reproductions run end to end on real data, are kept, and say what they did."""

from __future__ import annotations

import json
from importlib import import_module

import numpy as np
import pytest

from survey_ml.cli import main
from survey_ml.cli.reproduce import PAPERS
from survey_ml.data.labelled.reading import read_labelled
from survey_ml.errors import ConfigError
from survey_ml.labelled import LabelledImages
from survey_ml.papers import slijepcevic2022_shift
from survey_ml.papers.trials import Trial


@pytest.fixture(scope="module")
def data():
    try:
        read_labelled("mirabest", "confident", "test")
        read_labelled("frdeep-first", split="test")
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.mark.real
@pytest.mark.parametrize("paper", sorted(PAPERS))
def test_a_quick_run_gives_rows_a_picture_and_is_not_done_twice(paper, data, tmp_path):
    reproduce = import_module(PAPERS[paper]).reproduce
    said = []
    first = reproduce(tmp_path, quick=True, report=said.append)
    assert said and all("epoch" in line for line in said)
    assert first.picture.read_bytes().startswith(b"\x89PNG")
    assert first.paper == paper
    for row in first.rows:
        assert row.n > 0 or row.ours is None
        if row.low is not None:
            assert 0.0 <= row.low <= row.ours <= row.high
    assert any(row.low is not None and row.ours > 0.3 for row in first.rows)
    assert json.loads(json.dumps(first.describe(), allow_nan=False))["rows"]
    said.clear()
    again = reproduce(tmp_path, quick=True, report=said.append)
    assert again == first and not said
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize(("losses", "kept"), [([0.4], 0), ([0.69, 0.3], 1), ([0.69, 0.69, 0.69], 2)])
def test_a_network_that_learnt_nothing_is_trained_again(losses, kept, tmp_path, monkeypatch):
    images = LabelledImages(
        np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1]), ("FRI", "FRII"), np.array(list("abcd")),
        np.arange(4.0), np.zeros(4), np.full(4, "train"), False,
    )  # fmt: skip
    trials = [Trial([{"loss": loss}], {"Confident": np.zeros((4, 2), np.float32)}, 1) for loss in losses]
    names = []

    def keep_trial(name, *rest):
        names.append(name)
        return trials[len(names) - 1]

    monkeypatch.setattr(slijepcevic2022_shift, "keep_trial", keep_trial)
    found = slijepcevic2022_shift.run_arm(
        "labels alone", tmp_path, slijepcevic2022_shift.RECIPE, images, None, images, lambda text: None
    )
    assert found is trials[kept] and len(set(names)) == len(names) == len(losses)


def test_without_the_data_it_says_what_to_set(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SURVEY_ML_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "bowles2021", "--quick", "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "SURVEY_ML_DATA" in capsys.readouterr().err
