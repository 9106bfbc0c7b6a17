"""`survey-ml shift`: its contract, on images from a seed and an untrained network."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from scipy.ndimage import gaussian_filter
from trial_model import write_model

from survey_ml.data.labelled.product import write_cutout_file
from survey_ml.models.format import read_card
from survey_ml.models.reference import find_reference, make_reference, save_reference
from survey_ml.models.trial import make_images

STATISTIC = ["value", "low", "high", "null_mean", "null_std", "p_value", "n", "d"]
IMAGES = make_images(160, 50, 1)
BYTES = np.rint(255 * IMAGES).astype(np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "trial.safetensors", classes=("FRI", "FRII"))


@pytest.fixture
def sets(tmp_path):
    blurred = gaussian_filter(IMAGES[120:], (0.0, 4.0, 4.0))
    blurred /= blurred.max(axis=(1, 2), keepdims=True)
    parts = {"first": BYTES[:60], "second": BYTES[60:120], "other": np.rint(255 * blurred).astype(np.uint8)}
    for name, images in parts.items():
        np.save(tmp_path / f"{name}.npy", images)
    return tmp_path


def test_compare_prints_the_contract(call, model, sets):
    answer = call("shift", "compare", sets / "first.npy", sets / "other.npy", "--model", model, "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert list(found) == ["level", "score", "cause", "statistics", "prior", "conditional", "covariates"]
    assert (found["level"], found["cause"]) == ("red", "beam")
    for one in [*found["statistics"].values(), *found["conditional"]["statistics"].values()]:
        assert list(one) == STATISTIC
        assert one["null_std"] > 0.0 and 0.0 < one["p_value"] <= 1.0 and one["n"] == 40
    assert {"mmd", "energy", "separation", "frechet", "frechet_debiased"} < set(found["statistics"])
    assert found["prior"] == {"refused": True, "classes": {}}
    assert found["covariates"]["beam"]["shifted"]


def test_like_images_are_green_and_the_text_says_so(call, model, sets):
    answer = call("shift", "compare", sets / "first.npy", sets / "second.npy", "--model", model)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("green")
    assert "by chance" in answer.out and "no shares of classes" in answer.out


def test_a_reference_beside_the_model_gives_shares(call, sets, tmp_path):
    from survey_ml.models.card import Base
    from survey_ml.models.classifier import load_classifier
    from survey_ml.models.shift import describe_images

    path = write_model(tmp_path / "trial.safetensors", classes=("FRI", "FRII"))
    classifier = load_classifier(path)
    images = make_images(200, 50, 5)
    labels = classifier.predict(images).probabilities.argmax(axis=1)
    labels = np.where(np.random.default_rng(0).random(200) < 0.1, 1 - labels, labels)
    sources = describe_images(classifier, images, labels=labels)
    made = make_reference(
        Base(name="trial", hash=classifier.hash), sources, ("FRI", "FRII"), beam=3.0, data="trial"
    )
    save_reference(made, path.with_suffix(".reference"))
    assert find_reference(path, read_card(path)[1]) is not None
    answer = call("shift", "compare", sets / "first.npy", sets / "second.npy", "--model", path, "--json")
    assert answer.code == 0, answer.err
    prior = answer.json["prior"]
    assert prior["refused"] is False and set(prior["classes"]) == {"FRI", "FRII"}
    for one in prior["classes"].values():
        assert 0.0 <= one["low"] <= one["estimate"] <= one["high"] <= 1.0
    text = call("shift", "compare", sets / "first.npy", sets / "second.npy", "--model", path).out
    assert "share of B" in text
    # The summary of another model is none of this one's.
    write_model(path, seed=3, classes=("FRI", "FRII"))
    refused = call("shift", "compare", sets / "first.npy", sets / "second.npy", "--model", path, "--json")
    assert refused.code == 2 and "not of the model" in refused.json["error"]


def test_few_empty_and_unreadable_images_are_said(call, model, sets):
    np.save(sets / "few.npy", BYTES[:19])
    answer = call("shift", "compare", sets / "first.npy", sets / "few.npy", "--model", model, "--json")
    assert answer.code == 2 and "too few" in answer.json["error"]
    np.save(sets / "blank.npy", np.zeros((30, 50, 50), np.uint8))
    answer = call("shift", "compare", sets / "blank.npy", sets / "first.npy", "--model", model)
    assert answer.code == 2 and "no image has anything in it" in answer.err
    answer = call("shift", "compare", sets / "absent.npy", sets / "first.npy", "--model", model)
    assert answer.code == 2 and "does not exist" in answer.err
    some = np.concatenate([BYTES[:30], np.zeros((5, 50, 50), np.uint8)])
    np.save(sets / "some.npy", some)
    answer = call("shift", "compare", sets / "some.npy", sets / "first.npy", "--model", model)
    assert answer.code == 0 and "left out: 5 images" in answer.err


def write_labelled(path, images, labels, ra):
    names = np.array([f"{path.stem}-{k}" for k in range(len(images))])
    write_cutout_file(path, images, names, ra, np.zeros(len(images)), 1.8, label=labels)


def test_a_pool_of_the_same_kind_is_safe_and_leaks_are_not(call, model, tmp_path):
    from survey_ml.models.classifier import load_classifier

    said = load_classifier(model).predict(IMAGES).probabilities.argmax(axis=1)
    labels = np.where(said == 0, "FRI", "FRII")
    ra = np.arange(160) * 0.1
    write_labelled(tmp_path / "labelled.npz", BYTES[:80], labels[:80], ra[:80])
    write_labelled(tmp_path / "pool.npz", BYTES[80:], labels[80:], ra[80:])
    answer = call(
        "shift", "pool", tmp_path / "labelled.npz", tmp_path / "pool.npz", "--model", model, "--json"
    )
    assert answer.code == 0, answer.err
    assert answer.json == {"safe": True, "reasons": [], "leaks": []}
    blank = np.concatenate([BYTES[:80], np.zeros((4, *BYTES.shape[1:]), np.uint8)])
    write_labelled(tmp_path / "blank.npz", blank, np.append(labels[:80], ["FRI"] * 4), 100.0 + ra[:84])
    empty = call("shift", "pool", tmp_path / "blank.npz", tmp_path / "pool.npz", "--model", model)
    assert empty.out == "safe\n" and "4 of 84 labelled images have nothing in them" in empty.err
    write_labelled(tmp_path / "none.npz", blank[70:], ["FRI", "FRII"] * 7, ra[:14])
    few = call("shift", "pool", tmp_path / "none.npz", tmp_path / "pool.npz", "--model", model)
    assert few.code == 2 and "10 labelled images have something in them, too few" in few.err
    near = ra[80:].copy()
    near[:3] = ra[:3] + 10.0 / 3600.0
    write_labelled(tmp_path / "near.npz", BYTES[80:], labels[80:], near)
    found = call(
        "shift", "pool", tmp_path / "labelled.npz", tmp_path / "near.npz", "--model", model, "--json"
    )
    assert not found.json["safe"] and len(found.json["leaks"]) == 3
    leak = found.json["leaks"][0]
    assert (leak["first"], leak["second"], leak["sides"]) == (
        "labelled-0",
        "near-0",
        ["labelled", "unlabelled"],
    )
    assert leak["arcsec"] == pytest.approx(10.0, abs=0.01)
    np.save(tmp_path / "bare.npy", BYTES[80:])
    bare = call("shift", "pool", tmp_path / "labelled.npz", tmp_path / "bare.npy", "--model", model)
    assert bare.code == 0 and bare.out.startswith("safe")
    assert "80 of 80 unlabelled images have no positions" in bare.err


def test_a_pool_in_a_folder_keeps_its_positions(call, model, tmp_path):
    from PIL import Image

    from survey_ml.models.classifier import load_classifier

    said = load_classifier(model).predict(IMAGES[:60]).probabilities.argmax(axis=1)
    lines = ["file,label,ra,dec,split"]
    for k in range(60):
        Image.fromarray(BYTES[k]).save(tmp_path / f"{k}.png")
        lines.append(f"{k}.png,{('FRI', 'FRII')[said[k]]},{0.1 * k},0.0,{'test' if k < 10 else 'train'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    found = call("shift", "pool", tmp_path, tmp_path, "--model", model, "--json")
    assert found.code == 0, found.err
    assert not found.json["safe"] and len(found.json["leaks"]) == 60
    assert any(
        reason.startswith("10 sources of the pool are test images") for reason in found.json["reasons"]
    )


def test_few_labels_are_a_reason_for_no_pool(call, model, tmp_path):
    from survey_ml.models.classifier import load_classifier

    said = load_classifier(model).predict(IMAGES).probabilities.argmax(axis=1)
    labels, ra = np.where(said == 0, "FRI", "FRII"), 0.1 * np.arange(160)
    write_labelled(tmp_path / "labelled.npz", BYTES[:79], labels[:79], ra[:79])
    write_labelled(tmp_path / "pool.npz", BYTES[80:], labels[80:], ra[80:])
    found = call(
        "shift", "pool", tmp_path / "labelled.npz", tmp_path / "pool.npz", "--model", model, "--json"
    )
    assert not found.json["safe"]
    assert [reason.split(":")[0] for reason in found.json["reasons"]] == [
        "79 labelled images to train on are few"
    ]


def test_images_of_one_name_are_counted_each(call, model, tmp_path):
    from survey_ml.models.classifier import load_classifier

    said = load_classifier(model).predict(IMAGES[:60]).probabilities.argmax(axis=1)
    labels, ra = np.where(said == 0, "FRI", "FRII"), 0.1 * np.arange(60)
    write_cutout_file(tmp_path / "a.npz", BYTES[:60], ["x"] * 60, ra, np.zeros(60), 1.8, label=labels)
    found = call("shift", "pool", tmp_path / "a.npz", tmp_path / "a.npz", "--model", model, "--json")
    assert any("60 sources of the pool" in reason for reason in found.json["reasons"])


def test_labelled_images_of_another_pixel_are_refused(call, model, tmp_path):
    labels, names = np.where(np.arange(60) % 2, "FRI", "FRII"), [f"{k}" for k in range(60)]
    for name, pixel in (("fine", 0.9), ("mixed", np.linspace(0.9, 1.8, 60))):
        write_cutout_file(
            tmp_path / f"{name}.npz", BYTES[:60], names, np.zeros(60), np.zeros(60), pixel, label=labels
        )
    fine = call("shift", "pool", tmp_path / "fine.npz", tmp_path / "fine.npz", "--model", model)
    assert fine.code == 2 and "pixels of 0.9 arcsec, networks are trained with 1.8" in fine.err
    mixed = call("shift", "pool", tmp_path / "mixed.npz", tmp_path / "fine.npz", "--model", model)
    assert mixed.code == 2 and "pixels of 0.9 to 1.8 arcsec" in mixed.err


def test_a_pool_of_another_beam_is_not_safe(call, model, tmp_path, sets):
    from survey_ml.models.classifier import load_classifier

    said = load_classifier(model).predict(IMAGES[:120]).probabilities.argmax(axis=1)
    write_labelled(
        tmp_path / "labelled.npz", BYTES[:120], np.where(said == 0, "FRI", "FRII"), np.arange(120) * 0.1
    )
    answer = call("shift", "pool", tmp_path / "labelled.npz", sets / "other.npy", "--model", model, "--json")
    assert answer.code == 0, answer.err
    assert not answer.json["safe"] and "look different" in answer.json["reasons"][0]
    assert "beam" in answer.json["reasons"][0]


def test_classes_may_be_named_in_another_order(call, tmp_path, sets):
    model = write_model(tmp_path / "trial.safetensors", classes=("FRII", "FRI"))
    labels = np.where(np.arange(120) % 4, "FRI", "FRII")
    write_labelled(tmp_path / "labelled.npz", BYTES[:120], labels, np.arange(120) * 0.1)
    answer = call("shift", "pool", tmp_path / "labelled.npz", sets / "other.npy", "--model", model, "--json")
    assert answer.code == 0, answer.err
    assert set(answer.json) == {"safe", "reasons", "leaks"}


def test_labels_of_other_classes_are_refused(call, model, tmp_path):
    labels = np.where(np.arange(160) % 2, "spiral", "elliptical")
    write_labelled(tmp_path / "labelled.npz", BYTES, labels, np.arange(160) * 0.1)
    answer = call("shift", "pool", tmp_path / "labelled.npz", tmp_path / "labelled.npz", "--model", model)
    assert answer.code == 2 and "spiral" in answer.err


def write_catalogue(path, n, seed, model="", move=0.0, **changes):
    """Write what a release says of n sources; every tenth has no class."""
    rng = np.random.default_rng(seed)
    logit = np.where(rng.random(n) < 0.5, -1.5, 1.5) + rng.normal(size=n) + move
    fri = 1.0 / (1.0 + np.exp(logit))
    fri[::10] = np.nan
    columns = {
        "source_id": np.arange(n), "morph_p_fri": fri, "morph_p_frii": 1.0 - fri,
        "morph_model": np.where(np.isfinite(fri), model, ""), "local_rms": rng.normal(1e-4, 1e-6, n),
        "snr": rng.lognormal(3.0, 1.0, n), "major": rng.lognormal(2.5, 0.5, n),
        "ra": 10.0 + 0.1 * np.arange(n), "dec": np.zeros(n), "peak_flux": rng.lognormal(-6.0, 1.0, n),
        **changes,
    }  # fmt: skip
    form = {".vot": "votable"}.get(path.suffix)
    Table({name: values for name, values in columns.items() if values is not None}).write(path, format=form)
    return path


@pytest.mark.parametrize("ending", ["fits", "csv", "vot", "parquet"])
def test_catalogues_are_compared_by_what_the_model_said(call, model, tmp_path, ending):
    from survey_ml.models.classifier import load_classifier

    label = load_classifier(model).label
    first = write_catalogue(tmp_path / f"first.{ending}", 400, 1, label)
    other = write_catalogue(tmp_path / f"other.{ending}", 300, 2, label)
    same = call("shift", "compare", first, other, "--model", model, "--json")
    assert same.code == 0, same.err
    assert same.json["level"] == "green" and same.json["statistics"]["mmd"]["n"] == 270
    assert set(same.json["covariates"]) == {"rms", "signal_to_noise", "size"}
    unsure = write_catalogue(tmp_path / f"unsure.{ending}", 300, 2, label, morph_p_fri=np.full(300, 0.5),
                             morph_p_frii=np.full(300, 0.5))  # fmt: skip
    found = call("shift", "compare", first, unsure, "--model", model, "--json").json
    assert found["level"] == "red" and found["prior"]["refused"]
    deep = write_catalogue(tmp_path / f"deep.{ending}", 300, 3, label, local_rms=np.full(300, 1e-5))
    found = call("shift", "compare", first, deep, "--model", model, "--json").json
    assert (found["level"], found["cause"]) == ("amber", "rms")


def test_pieces_of_one_galaxy_and_spoilt_sources_do_not_count(call, model, tmp_path):
    n = 300
    rng = np.random.default_rng(7)
    pairs = {"ra": 10.0 + 0.1 * (np.arange(n) // 2), "dec": np.where(np.arange(n) % 2, 20.0 / 3600.0, 0.0)}
    first = write_catalogue(tmp_path / "first.fits", n, 1)
    other = write_catalogue(tmp_path / "other.fits", n, 2, **pairs)
    answer = call("shift", "compare", first, other, "--model", model, "--json")
    assert answer.code == 0, answer.err
    # Every tenth has no class: 30 pairs have one source, 120 have two.
    assert answer.json["statistics"]["mmd"]["n"] == 150
    assert "other.fits: 0 sources faint, cut off or outshone, and 120 pieces of others" in answer.err
    assert "first.fits:" not in answer.err
    faint = write_catalogue(tmp_path / "faint.fits", n, 2, morph_flags=np.where(rng.random(n) < 0.5, 128, 16))
    answer = call("shift", "compare", first, faint, "--model", model, "--json")
    known = np.arange(n) % 10 > 0
    whole = np.count_nonzero((np.asarray(Table.read(faint)["morph_flags"]) == 16) & known)
    assert answer.json["statistics"]["mmd"]["n"] == whole


def test_a_catalogue_that_will_not_do_says_why(call, model, sets, tmp_path):
    first = write_catalogue(tmp_path / "first.fits", 100, 1)
    lacks = write_catalogue(tmp_path / "lacks.fits", 100, 1, morph_p_frii=None)
    answer = call("shift", "compare", first, lacks, "--model", model)
    assert answer.code == 2 and "lacks.fits has no column morph_p_frii" in answer.err
    foreign = write_catalogue(tmp_path / "foreign.fits", 100, 1, "another 1 (abc)")
    answer = call("shift", "compare", first, foreign, "--model", model)
    assert answer.code == 2 and "was classified by another 1 (abc)" in answer.err
    two = np.where(np.arange(100) % 2, "one", "two")
    several = write_catalogue(tmp_path / "several.fits", 100, 1, morph_model=two)
    answer = call("shift", "compare", first, several, "--model", model)
    assert answer.code == 2 and "classified by one and by two" in answer.err
    few = write_catalogue(tmp_path / "few.csv", 20, 1)
    answer = call("shift", "compare", first, few, "--model", model)
    assert answer.code == 2 and "has 18 sources" in answer.err
    # Beside images only what the model says of both is compared, however these were measured.
    mixed = call("shift", "compare", sets / "first.npy", first, "--model", model, "--json")
    assert mixed.code == 0 and mixed.json["covariates"] == {}
    assert mixed.json["statistics"]["mmd"]["d"] <= 2
    wrong = {
        "flags.csv": ({"morph_flags": np.full(100, "EDGE")}, "morph_flags holds no whole numbers"),
        "huge.fits": ({"morph_flags": np.full(100, 1e30)}, "morph_flags holds no whole numbers"),
        "vector.fits": ({"ra": np.zeros((100, 3))}, "column ra holds several numbers a row"),
        "percent.fits": ({"morph_p_fri": np.full(100, 50.0)}, "are no probabilities"),
        "four.fits": (
            {
                "morph_p_fri": np.full(100, 0.4),
                "morph_p_frii": np.full(100, 0.3),
                "morph_model": np.full(100, "four 1 (abc)"),
            },
            "classified by four 1 (abc): name that model",
        ),
        "text.fits": ({"snr": np.full(100, "high")}, "column snr holds no numbers"),
    }
    for name, (columns, said) in wrong.items():
        path = write_catalogue(tmp_path / name, 100, 1, **columns)
        answer = call("shift", "compare", first, path, "--model", model)
        assert answer.code == 2 and f"{name}" in answer.err and said in answer.err, name
    unplaced = write_catalogue(tmp_path / "unplaced.fits", 100, 1, ra=np.full(100, np.nan))
    answer = call("shift", "compare", first, unplaced, "--model", model)
    assert answer.code == 0 and "90 sources of" in answer.err and "without a position" in answer.err
    assert "does not tell the beam" in answer.err
    assert "named by nothing" in call("shift", "compare", first, "", "--model", model).err
    assert "named by nothing" in call("shift", "compare", first, first, "--model", "").err
    faint = call("shift", "compare", first, first, "--model", model, "--alpha", "1e-300")
    assert "a level of 1e-300 cannot be told with 200 permutations" in faint.err
    for url in ("ftp://nowhere.invalid/set", "sftp//://set", "unheard-of://set"):
        answer = call("shift", "compare", url, first, "--model", model)
        assert answer.code == 2 and "fault" not in answer.err, url
    assert "nan is no number" in call("shift", "compare", first, first, "--alpha", "nan").err
    fits.writeto(tmp_path / "image.fits", IMAGES[0])
    answer = call("shift", "compare", first, tmp_path / "image.fits", "--model", model)
    assert answer.code == 2 and "has 1 source" in answer.err


@pytest.mark.slow
def test_releases_are_compared_by_what_they_keep(call, tmp_path):
    from survey_ml.config import LoadedConfig, ReleaseConfig
    from survey_ml.data.sky import write_sky
    from survey_ml.engine.run import run_release
    from survey_ml.simulation.sky import Recipe, simulate_sky

    model = write_model(tmp_path / "trial.safetensors", classes=("FRI", "FRII"))
    for seed in (4, 5):
        recipe = Recipe(size=640, seed=seed, rms=5e-6, uniform=True)
        write_sky(simulate_sky(recipe, "sky"), tmp_path / f"sky{seed}.fits")
        release = ReleaseConfig(
            name="trial",
            fields=[f"sky{seed}.fits"],
            stages={"morphology": {"model": "trial.safetensors"}},
            engine={"kind": "local"},
            export={"formats": ["parquet"]},
            out=f"out{seed}",
        )
        out = str(tmp_path / f"out{seed}")
        assert run_release(LoadedConfig(release=release, base=tmp_path, out=out, source="")).exit_code == 0
    answer = call("shift", "compare", tmp_path / "out4", tmp_path / "out5", "--model", model, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["level"] == "green"
    assert set(answer.json["covariates"]) == {"beam", "rms", "signal_to_noise", "size"}
    parts = [tmp_path / f"out{seed}/catalogue/sources.parquet" for seed in (4, 5)]
    listed = call("shift", "compare", *parts, "--model", model, "--json")
    assert listed.code == 0, listed.err
    # The same sources, of which only what the model said is known.
    assert listed.json["statistics"]["mmd"] == answer.json["statistics"]["answers"]
    np.save(tmp_path / "images.npy", BYTES)
    mixed = call("shift", "compare", tmp_path / "out4", tmp_path / "images.npy", "--model", model, "--json")
    assert mixed.code == 0 and mixed.json["covariates"] == {}
    other = write_model(tmp_path / "other.safetensors", seed=3, classes=("FRI", "FRII"), name="other")
    refused = call("shift", "compare", tmp_path / "out4", tmp_path / "out5", "--model", other)
    assert refused.code == 2 and "was classified by trial" in refused.err
