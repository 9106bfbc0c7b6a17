"""Posteriors over all weights: trained, written, read, sampled, and judged by, in whatever company."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import special

from survey_ml.cli import main
from survey_ml.errors import ConfigError, InputError
from survey_ml.labelled import LabelledImages
from survey_ml.learning.judgement import Standard
from survey_ml.models import estimator as estimators
from survey_ml.models.check import check_model
from survey_ml.models.classifier import load_classifier
from survey_ml.models.estimator import FEW, find_estimator
from survey_ml.models.fitting import Fitting, fit_model
from survey_ml.models.format import read_card, read_model
from survey_ml.models.kinds import build_network
from survey_ml.models.posterior import draw_networks
from survey_ml.models.pruning import compare_models, describe_effects, prune_model
from survey_ml.models.registry import ModelFile
from survey_ml.models.sampling import open_samples
from survey_ml.models.trial import make_images

IMAGES = make_images(40, 150, seed=9)


def draw_sources(n, seed):
    """Images of one or two parts, of 150 px, at random places on the sky."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 2).astype(np.int64)
    y, x = np.mgrid[:150, :150] - 75.0
    images = np.zeros((n, 150, 150))
    for image, label in zip(images, labels, strict=True):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(4, 14) * label
        for side in (-1, 1):
            dx, dy = length * side * np.cos(angle), length * side * np.sin(angle)
            image += np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / 30.0)
        image *= 255.0 / image.max()
    return LabelledImages(
        images=images.astype(np.uint8),
        labels=labels,
        classes=("single", "double"),
        names=np.array([f"s{k}" for k in range(n)]),
        ra=rng.uniform(0, 10, n),
        dec=rng.uniform(0, 10, n),
        split=np.where(np.arange(n) % 3 == 0, "valid", "train"),
    )


DATA = draw_sources(180, 1)


def make_fitting(**settings):
    given = {
        "name": "trial",
        "model": "lenet",
        "architecture": {"side": 32, "reduce": 2, "dropout": 0.1},
        "recipe": {"epochs": 2, "learning_rate": 3e-3},
        "posterior": {},
    }
    return Fitting.model_validate({**given, **settings})


def fit(folder, *, data=DATA, progress=None, **settings):
    return fit_model(data, make_fitting(**settings), folder, source="drawn", progress=progress)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("lenet"), recipe={"epochs": 12, "learning_rate": 5e-3})


def find(path, **settings):
    classifier = load_classifier(path, "torch")
    found = classifier.predict(IMAGES)
    judge = find_estimator("trial", classifier.hash, "", given=path, runtime="torch", **settings)
    return judge, found


CASES = {
    "laplace mixture": {"posterior": {"prior": "laplace-mixture", "scale": 1.0, "misspecified": True}},
    "dropout": {"posterior": {"method": "mc-dropout"}},
    "ensemble": {"posterior": {"method": "deep-ensemble", "members": 2}},
    "equivariant": {
        "model": "equivariant",
        "architecture": {"fields": [2, 2, 2, 2], "side": 32, "reduce": 2},
        "recipe": {"epochs": 1},
    },
    "equivariant dropout": {
        "model": "equivariant",
        "architecture": {"fields": [2, 2, 2, 2], "side": 32, "reduce": 2},
        "recipe": {"epochs": 1},
        "posterior": {"method": "mc-dropout"},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_every_method_is_trained_written_and_judged_by(case, tmp_path):
    path = fit(tmp_path, **CASES[case])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["curves.csv", "metrics.json", path.name]
    card, _ = read_card(path)
    asked = CASES[case].get("posterior", {})
    assert card.posterior.method == asked.get("method", "bayes-by-backprop") and card.calibration.n == 60
    judge, found = find(path, samples=12)
    judged = judge.judge(found.embedding, IMAGES)
    assert judge.needs_images and judged.calibrated.shape == (40, 2)
    size = 2 if case == "ensemble" else 12
    samples = judge.sample(IMAGES)
    assert samples.shape == (size, 40, 2)
    # Samples differ, and are about what the mean network says before its temperature.
    assert samples.std(axis=0).max() > 1e-4
    assert np.abs(samples.mean(axis=0) - special.softmax(found.logits, axis=1)).mean() < 0.1
    said = judge.describe()
    assert said["held_out"]["n"] == 60 and said["method"] == card.posterior.method


def test_an_interrupted_ensemble_goes_on_where_it_was(tmp_path):
    class StoppedError(Exception):
        pass

    settings = {"posterior": {"method": "deep-ensemble", "members": 3}}
    whole = fit(tmp_path / "whole", **settings)
    seen = []

    def stop(entry, epochs):
        seen.append(entry["epoch"])
        if len(seen) == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(tmp_path / "broken", progress=stop, **settings)
    again = []
    path = fit(tmp_path / "broken", progress=lambda entry, n: again.append(entry["epoch"]), **settings)
    assert again == [2, 1, 2]
    assert path.read_bytes() == whole.read_bytes()


def test_no_source_depends_on_its_company(path):
    judge, found = find(path)
    whole = judge.judge(found.embedding, IMAGES)
    order = np.random.default_rng(0).permutation(40)
    same, _ = find(path)
    parts = [same.judge(found.embedding[rows], IMAGES[rows]) for rows in np.split(order, [1, 6, 23])]
    for name in ("calibrated", "sets", "flags"):
        assert np.array_equal(
            np.concatenate([getattr(one, name) for one in parts]), getattr(whole, name)[order]
        )
    entropy = np.concatenate([one.uncertainty.entropy for one in parts])
    assert np.array_equal(entropy, whole.uncertainty.entropy[order])


def test_only_doubted_sources_get_all_samples(path):
    judge, found = find(path, standard=lambda classes: Standard(margin=0.4))
    samples = judge.sample(IMAGES)
    few, every = samples[:FEW], samples
    top = np.sort(few.mean(axis=0), axis=1)
    doubted = (top[:, 1] - top[:, 0] < 0.4) | (few.std(axis=0) > estimators.SURE_SPREAD).any(axis=1)
    assert 0 < doubted.sum() < 40
    mean = judge.judge(found.embedding, IMAGES).uncertainty.probabilities
    np.testing.assert_allclose(mean[doubted], every.mean(axis=0)[doubted], atol=1e-12)
    np.testing.assert_allclose(mean[~doubted], few.mean(axis=0)[~doubted], atol=1e-12)
    # What is saved costs little: no mean moves by more than a few times what the spread allows.
    assert np.abs(mean - every.mean(axis=0)).max() < 0.04


def test_both_runtimes_give_the_same_samples(path):
    pytest.importorskip("openvino")
    tensors, card, _ = read_model(path)
    drawn = draw_networks(tensors, card.posterior, build_network(card), 5, 3)
    one, other = (open_samples(drawn, card, name, 1).run(IMAGES) for name in ("torch", "openvino"))
    assert one.shape == (5, 40, 2)
    np.testing.assert_allclose(one, other, atol=1e-4)
    for k, state in enumerate(drawn):
        np.testing.assert_allclose(open_samples([state], card, "torch", 1).run(IMAGES)[0], one[k], atol=1e-6)


def test_it_passes_its_own_check(path):
    checks, _ = check_model(ModelFile("trial", path, "file"), n=8)
    assert {one.name: one.passed for one in checks} == {
        "file": True, "batch": True, "runtimes": True, "samples": True, "symmetry": None,
    }  # fmt: skip


def test_what_does_not_fit_together_is_said(path, tmp_path):
    bare = fit(tmp_path / "none", data=DATA.take(DATA.split == "train"), validation=0.0)
    with pytest.raises(ConfigError, match="was never calibrated"):
        find(bare)
    with pytest.raises(InputError, match=r"\d+ held-out images are too few"):
        fit(tmp_path / "few", data=DATA.take(DATA.split == "train"), validation=0.2)
    with pytest.raises(ConfigError, match="drops nothing has no posterior"):
        fit(tmp_path / "dry", architecture={"side": 32, "dropout": 0.0}, posterior={"method": "mc-dropout"})
    assert not list((tmp_path / "dry").iterdir()) and not list((tmp_path / "few").iterdir())
    with pytest.raises(ConfigError, match="a forest has no posterior"):
        fit(tmp_path / "forest", model="forest", recipe={})
    with pytest.raises(ConfigError, match="not the input of one linear layer"):
        fit(tmp_path / "mean", model="attention-gate", recipe={"epochs": 1},
            architecture={"fields": [2, 2, 2, 2], "side": 32, "aggregation": "mean"},
            posterior={"method": "mc-dropout"})  # fmt: skip
    judge, found = find(path)
    with pytest.raises(ValueError, match="looks at images"):
        judge.judge(found.embedding)
    with pytest.raises(ConfigError, match=r"judges trial .* but classes are by other"):
        find_estimator("other", "0" * 64, "", given=path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("held_out.probabilities", lambda values: values + 5),
        ("held_out.labels", lambda values: values + 7),
        ("held_out.distances", lambda values: -values),
        ("held_out.precision", lambda values: 0 * values),
        ("scale.head.weight", lambda values: -values),
    ],
)
def test_arrays_that_cannot_be_are_refused(path, tmp_path, name, change):
    tensors, card = load_file(path), read_card(path)[0]
    tensors[name] = change(tensors[name])
    bad = tmp_path / "bad.safetensors"
    save_file(tensors, bad, metadata={"card": card.to_json()})
    with pytest.raises(InputError, match="changed"):
        find(bad)


@pytest.mark.parametrize("changes", [
    {"kind": "head"}, {"kind": "forest"}, {"posterior": None},
    {"method": "laplace"}, {"method": "deep-ensemble"}, {"members": 3},
])  # fmt: skip
def test_a_card_that_contradicts_itself_is_refused(path, tmp_path, changes):
    card, _ = read_card(path)
    content = json.loads(card.to_json())
    for key, value in changes.items():
        (content if key in ("kind", "posterior") else content["posterior"])[key] = value
    bad = tmp_path / "bad.safetensors"
    save_file(load_file(path), bad, metadata={"card": json.dumps(content)})
    with pytest.raises(InputError, match=r"bad\.safetensors"):
        read_model(bad)


@pytest.mark.parametrize("by", ["snr", "fisher"])
def test_pruned_models_lack_what_was_taken_out_and_are_calibrated_again(path, tmp_path, by):
    train, held = DATA.take(DATA.split == "train"), DATA.take(DATA.split == "valid")
    out = tmp_path / "thin.safetensors"
    n = prune_model(path, out, by=by, share=0.5, train=train, held=held, said="drawn")
    tensors, card, _ = read_model(out)
    names = [f"mean.{layer}.weight" for layer in ("dense.1", "dense.4", "head")]
    weights = [tensors[name] for name in names]
    assert n == sum(int((one == 0).sum()) for one in weights) == round(sum(one.size for one in weights) / 2)
    assert (card.posterior.pruned, card.posterior.pruned_by, card.name) == (0.5, by, "thin")
    assert card.calibration.data == "drawn" and not card.metrics
    rows = describe_effects(compare_models(path, out, held))
    assert [row["class"] for row in rows] == ["all", "single", "double"]
    assert rows[0]["n"] == 60 and rows[0]["after"]["error"]["low"] <= rows[0]["after"]["error"]["value"]
    # Half of the weights are hardly missed, by either ranking.
    assert abs(rows[0]["after"]["error"]["value"] - rows[0]["before"]["error"]["value"]) < 0.1


def test_without_held_out_images_a_pruned_model_keeps_its_calibration(path, tmp_path):
    train, out = DATA.take(DATA.split == "train"), tmp_path / "kept.safetensors"
    prune_model(path, out, by="snr", share=0.3, train=train, held=DATA.take(DATA.split == "none"))
    before, after = read_model(path), read_model(out)
    assert after[1].calibration.data == f"{before[1].calibration.data}; before pruning"
    assert np.array_equal(before[0]["held_out.distances"], after[0]["held_out.distances"])
    assert find(out)[0].judge(find(out)[1].embedding, IMAGES).calibrated.shape == (40, 2)


def test_pruning_twice_counts_what_is_gone(path, tmp_path):
    train, held = DATA.take(DATA.split == "train"), DATA.take(DATA.split == "valid")
    once, twice = tmp_path / "once.safetensors", tmp_path / "twice.safetensors"
    first = prune_model(path, once, by="snr", share=0.5, train=train, held=held)
    assert prune_model(once, twice, by="snr", share=0.5, train=train, held=held) == first
    one, two = read_model(once)[0], read_model(twice)[0]
    assert all(np.array_equal(one[name], two[name]) for name in one if name.startswith("mean."))


def test_a_prune_that_fails_leaves_nothing_and_spares_its_model(path, tmp_path):
    train, held = DATA.take(DATA.split == "train"), DATA.take(DATA.split == "valid")
    out = tmp_path / "out.safetensors"
    with pytest.raises(InputError, match="are too few"):
        prune_model(path, out, by="snr", share=0.5, train=train, held=held.take(slice(0, 9)))
    with pytest.raises(InputError, match="was trained on 120 images, these are 180"):
        prune_model(path, out, by="snr", share=0.5, train=DATA, held=held)
    other = replace(train, classes=("one", "other"))
    with pytest.raises(InputError, match="images are of one, other"):
        prune_model(path, out, by="snr", share=0.5, train=other, held=held)
    assert not list(tmp_path.iterdir())
    whole = path.read_bytes()
    with pytest.raises(ConfigError, match="is the model itself"):
        prune_model(path, path, by="snr", share=0.5, train=train, held=held)
    with pytest.raises(ConfigError, match="cannot be written"):
        prune_model(path, path / "x.safetensors", by="snr", share=0.5, train=train, held=held)
    assert path.read_bytes() == whole


def test_what_has_no_gaussians_is_not_pruned(tmp_path):
    path = fit(tmp_path, posterior={"method": "mc-dropout"})
    with pytest.raises(ConfigError, match="is of the method mc-dropout"):
        prune_model(path, tmp_path / "x.safetensors", by="snr", share=0.3, train=DATA, held=DATA)
    plain = fit(tmp_path / "plain", posterior=None)
    with pytest.raises(InputError, match="has no posterior over the weights"):
        prune_model(plain, tmp_path / "x.safetensors", by="snr", share=0.3, train=DATA, held=DATA)


def test_commands_train_it_and_say_how_far_it_can_be_trusted(tmp_path, capsys):
    from survey_ml.data.labelled.product import write_cutout_file

    data = draw_sources(300, 1)
    source = tmp_path / "mine.npz"
    classes = np.array(data.classes)[data.labels]
    write_cutout_file(source, data.images, data.names, data.ra, data.dec, np.full(300, 1.8), classes)
    config = tmp_path / "train.yaml"
    config.write_text(
        "model: lenet\nname: mine\nvalidation: 0.3\nrecipe: {epochs: 1}\n"
        "architecture: {side: 32, reduce: 2}\nposterior: {prior: laplace, scale: 1.0}\n"
    )
    given = ["train", "morphology", "--data", source, "--config", config, "--out", tmp_path, "--json"]
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, given)))
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    np.save(tmp_path / "images.npy", IMAGES[:6])
    model = json.loads(said.out)["model"]
    with pytest.raises(SystemExit) as ended:
        main(["classify", str(tmp_path / "images.npy"), "--model", model, "--uncertainty", "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    rows = json.loads(said.out)["rows"]
    assert len(rows) == 6
    for row in rows:
        assert row["entropy"] == pytest.approx(row["expected_entropy"] + row["mutual_information"], abs=1e-6)
        assert set(row["calibrated"]) == {"single", "double"} and set(row["set"]) <= {"single", "double"}
    thin = tmp_path / "thin.safetensors"
    given = ["models", "prune", model, "--data", source, "--test", source, "--fraction", "0.2", "--out"]
    with pytest.raises(SystemExit) as ended:
        main([*map(str, given), str(thin), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0 and told["by"] == "snr" and told["pruned"] > 1000
    assert [row["class"] for row in told["effect"]] == ["all", "double", "single"]
    assert read_card(thin)[1] == told["hash"]
    for wrong, message in (("Thin.safetensors", "cannot be the file"), ("thin.pt", "cannot be the file")):
        with pytest.raises(SystemExit) as ended:
            main([*map(str, given), str(tmp_path / wrong)])
        assert ended.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["models", "show", str(thin)])
    assert "20% of the dense weights taken out by snr" in capsys.readouterr().out
