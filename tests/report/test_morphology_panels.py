"""The panels of morphology: what they count, whom they show, and what they say without a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from trial_model import write_model, write_posterior

from survey_ml.config import LoadedConfig, ReleaseConfig
from survey_ml.data.release import Release
from survey_ml.data.sky import write_sky
from survey_ml.engine.run import run_release
from survey_ml.export.bundle import load_tables
from survey_ml.morphology_flags import OF_SOURCE
from survey_ml.report.context import Context
from survey_ml.report.panels.morphology import compare_with_labels, read_model, show_morphology
from survey_ml.report.panels.morphology_gallery import choose_sources, show_morphology_gallery
from survey_ml.report.panels.uncertainty import show_uncertainty
from survey_ml.simulation.sky import Recipe, simulate_sky
from survey_ml.validation.labels import find_doubtful

pytest.importorskip("torch", reason="survey-ml[learning] is not installed")

CLASSES = ("FRI", "FRII", "compact", "bent")


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> Context:
    base = tmp_path_factory.mktemp("morphology")
    sky = simulate_sky(Recipe(size=320, seed=4), "sky")
    write_sky(sky, base / "sky.fits")
    truth = Table({name: sky.truth[name] for name in ("ra", "dec", "peak_flux", "local_rms")})
    truth["kind"] = [("fri", "compact", "point")[k % 3] for k in range(len(truth))]
    truth.write(base / "truth.fits")
    write_posterior(write_model(base / "trial.safetensors"))
    release = ReleaseConfig(
        name="trial",
        fields=["sky.fits"],
        tiling={"core_px": 320, "halo_px": 64},
        stages={
            "morphology": {"model": "trial.safetensors"},
            "uncertainty": {"method": "laplace", "model": "trial-laplace.safetensors"},
        },
        engine={"kind": "local"},
        export={"formats": ["parquet"]},
        truth="truth.fits",
        out="out",
    )
    config = LoadedConfig(release=release, base=base, out=str(base / "out"), source="")
    assert run_release(config).exit_code == 0
    opened = Release.open(config.out)
    return Context(opened, release, Path(base), load_tables(opened, config), (), dict(opened.commits()))


def test_the_panel_counts_every_source_once(classified):
    body = show_morphology(classified).body
    label = classified.column("sources", "morph_class")
    for name in CLASSES:
        assert f"<td>{name}</td>" in body
        assert f">{int((label == name).sum())}</td>" in body
    assert read_model(classified)["hash"][:12] in body


def test_labels_are_compared_where_the_truth_has_kinds(classified):
    found = compare_with_labels(classified, list(CLASSES))
    assert set(found.kinds) == {"FRI", "compact", "point"}
    assert found.counts.sum() > 20
    assert found.accuracy.n == found.counts[:2].sum()
    assert "Against the kinds in <code>truth.fits</code>" in show_morphology(classified).body
    bare = classified.config.model_copy(update={"truth": None})
    without = dataclasses.replace(classified, config=bare)
    assert compare_with_labels(without, list(CLASSES)) is None
    assert "Against the kinds" not in show_morphology(without).body


def test_the_gallery_shows_the_certain_of_each_class_and_the_doubtful(classified):
    certain, doubtful = choose_sources(classified, CLASSES)
    p = np.stack([classified.column("sources", f"morph_p_{name.lower()}") for name in CLASSES], axis=1)
    label = classified.column("sources", "morph_class")
    assert set(certain).isdisjoint(doubtful) and len(doubtful) == 6
    sure = ~find_doubtful(classified.column("sources", "morph_flags"), label)
    assert certain and sure[certain].all()
    for name in set(label[sure]) - {""}:
        mine = [row for row in certain if label[row] == name]
        assert len(mine) <= 3
    flagged = classified.column("sources", "morph_flags") & ~OF_SOURCE
    assert not flagged[certain + doubtful].any()
    island = classified.column("sources", "island_id")
    shown = set(island[certain + doubtful])
    assert len(shown) == len(certain + doubtful)
    others = [r for r in np.flatnonzero((flagged == 0) & (label != "")) if island[r] not in shown]
    assert p[doubtful].max(axis=1).max() <= p[others].max(axis=1).min()
    body = show_morphology_gallery(classified).body
    assert body.count("<img ") == 2 and "where the model looked" in body


def test_the_gallery_says_when_the_model_is_another_one(classified, tmp_path):
    path = write_model(tmp_path / "trial.safetensors", seed=3)
    for model, words in (
        (str(path), "another one now"),
        ("mirabest-none", "there is no model mirabest-none"),
    ):
        stages = {"morphology": {"model": model}}
        config = classified.config.model_copy(update={"stages": stages})
        body = show_morphology_gallery(dataclasses.replace(classified, config=config)).body
        assert words in body and "<img" not in body


def test_there_is_no_panel_without_the_stage(context):
    assert show_morphology(context) is None
    assert show_morphology_gallery(context) is None


def test_the_panel_warns_where_sets_hold_fewer_than_promised(classified):
    """The kinds of this truth are dealt out, so that sets by an untrained model hold few of them."""
    body = show_uncertainty(classified).body
    assert "The promise does not hold here" in body and "significantly fewer than 90 %" in body
    bare = classified.config.model_copy(update={"truth": None})
    without = show_uncertainty(dataclasses.replace(classified, config=bare)).body
    assert "The promise does not hold here" not in without and "lies between classes" in without
