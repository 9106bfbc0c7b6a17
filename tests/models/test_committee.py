"""Models of several members: trained apart, one file, and the mean of their logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from test_fitting import SMALL, draw_sources, make_fitting
from torch import nn
from torch.nn import functional

from survey_ml.errors import ConfigError, InputError
from survey_ml.learning.committee import Committee
from survey_ml.learning.networks import Architecture, AttentionNetwork, View
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.models.check import check_model
from survey_ml.models.classifier import load_classifier
from survey_ml.models.estimator import find_estimator
from survey_ml.models.fitting import CHECKPOINT, fit_model
from survey_ml.models.format import read_model, save_model
from survey_ml.models.kinds import build_network
from survey_ml.models.posterior import list_dropped
from survey_ml.models.posterior_fitting import Trained, find_last_layer, fit_posterior
from survey_ml.models.registry import ModelFile

VIEWS = ({"side": 32, "reduce": 1}, {"side": 16, "reduce": 1}, {"side": 32, "reduce": 2})
"""What members look at: of the first the maps of attention are as they were, of the second they are padded,
of the third they are coarser."""
MEMBERS = len(VIEWS)
SEVERAL = {**SMALL, "members": VIEWS}
IMAGES = prepare_images(draw_sources(12, 2), 150)


@pytest.fixture(scope="module")
def data():
    found = draw_sources(120, 1)
    # Told apart beforehand, so that a seed is that of a network alone.
    return replace(found, split=np.where(np.arange(120) < 60, "train", "valid"))


@pytest.fixture(scope="module")
def path(data, tmp_path_factory):
    return fit_model(data, make_fitting(architecture=SEVERAL), tmp_path_factory.mktemp("committee"))


def test_members_are_the_networks_of_their_seeds_and_their_logits_are_averaged(data, path, tmp_path):
    tensors, card, _ = read_model(path)
    found = load_classifier(path, "torch").predict(IMAGES)
    logits, embedding = [], []
    for k, view in enumerate(VIEWS):
        alone = fit_model(
            data, make_fitting(architecture={**SMALL, **view}, seed=1000 * k), tmp_path / str(k)
        )
        for name, values in read_model(alone)[0].items():
            assert np.array_equal(tensors[f"members.{k}.{name}"], values)
        said = load_classifier(alone, "torch").predict(IMAGES)
        logits.append(said.logits)
        embedding.append(said.embedding)
    assert card.architecture["members"] == list(VIEWS)
    assert np.abs(logits[0] - logits[1]).max() > 0.05
    assert np.abs(found.logits - np.mean(logits, axis=0)).max() < 1e-5
    assert np.array_equal(found.embedding, np.concatenate(embedding, axis=1))
    assert found.attention.shape == (12, 32, 32)
    assert len((path.parent / "curves.csv").read_text().splitlines()) == 1 + 3 * MEMBERS


class Looking(nn.Module):
    """Says nothing but where it looks."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x):
        return torch.zeros(1, 2), torch.zeros(1, 3), self.attention[None]


def test_maps_of_attention_lie_where_members_look():
    ramp = torch.arange(32.0).expand(32, 32)
    architecture = Architecture(2, side=32, reduce=1, members=tuple(View(**view) for view in VIEWS))
    # The fourth part of a ramp in the middle, and the whole of it in blocks of two by two pixels.
    parts = [ramp, ramp[8:24, 8:24], functional.avg_pool2d(ramp[None], 2)[0]]
    laid = [
        Committee(architecture, [Looking(part if k == one else part * 0.0) for k, part in enumerate(parts)])
        for one in range(MEMBERS)
    ]
    # Beyond its 16 px the second does not look: there the mean is of two.
    members = torch.full((32, 32), MEMBERS - 1.0)
    members[8:24, 8:24] = MEMBERS
    whole, middle, coarse = (members * one(torch.zeros(1, 1, 32, 32))[2][0] for one in laid)
    assert torch.allclose(whole, ramp)
    assert torch.allclose(middle[8:24, 8:24], ramp[8:24, 8:24]) and middle.sum() == parts[1].sum()
    assert torch.allclose(coarse[:, 1:-1], ramp[:, 1:-1], atol=1e-4)


def test_runtimes_orientations_and_batches_agree(path):
    checks, symmetries = check_model(ModelFile("trial", path, "file"), n=40, seed=3)
    assert [one.name for one in checks] == ["file", "batch", "runtimes", "symmetry"]
    assert all(one.passed for one in checks), checks
    assert all(one.claimed for one in symmetries)


def test_it_has_one_last_layer_and_posteriors_over_it(data, path, tmp_path):
    tensors, _, _ = read_model(path)
    weight, bias = find_last_layer(tensors, MEMBERS)
    classifier = load_classifier(path, "torch")
    found = classifier.predict(IMAGES)
    assert np.abs(found.embedding @ weight.T + bias - found.logits).max() < 1e-4
    train, held = (data.take(data.split == part) for part in ("train", "valid"))
    for method in ("laplace", "mc-dropout"):
        fitted = fit_posterior(path, train, [Trained(path, train, held)], tmp_path, method=method)
        judged = find_estimator("trial", classifier.hash, method, given=fitted).judge(found.embedding)
        assert judged.calibrated.shape == (12, 2)
        assert np.abs(judged.uncertainty.probabilities - found.probabilities).max() < 0.3


def test_a_network_by_itself_is_no_committee():
    with pytest.raises(ConfigError, match="cannot be 3 members"):
        AttentionNetwork(Architecture(2, members=(View(144, 2),) * 3))


def test_dropout_thins_the_last_layer_of_each_member(path):
    network = build_network(read_model(path)[1])
    assert list_dropped(network) == [f"members.{k}.heads.joint.weight" for k in range(MEMBERS)]


def test_heads_that_are_not_linear_are_averaged_but_have_no_posterior(data, tmp_path):
    several = {**SEVERAL, "members": VIEWS[:2], "aggregation": "fine"}
    path = fit_model(data, make_fitting(architecture=several, recipe={"epochs": 1}), tmp_path)
    assert load_classifier(path).predict(IMAGES).probabilities.sum(axis=1) == pytest.approx(1.0)
    train = data.take(data.split == "train")
    with pytest.raises(ConfigError, match="not one linear layer"):
        fit_posterior(path, train, [Trained(path, train, train)], tmp_path)


def test_plain_networks_have_members_too(data, tmp_path):
    several = {"side": 64, "members": [{"side": 64, "reduce": 2}, {"side": 64, "reduce": 1}]}
    path = fit_model(data, make_fitting(model="lenet", architecture=several, recipe={"epochs": 1}), tmp_path)
    assert find_last_layer(read_model(path)[0], 2)[0].shape == (2, 2 * 84)
    assert find_last_layer(read_model(path)[0], 0) is None
    assert load_classifier(path).predict(IMAGES).attention is None


class StoppedError(Exception):
    pass


def test_an_interrupted_training_goes_on_with_its_member(data, path, tmp_path):
    seen = []

    def stop(entry, epochs):
        seen.append(entry["epoch"])
        if len(seen) == 4:
            raise StoppedError

    fitting = make_fitting(architecture=SEVERAL)
    with pytest.raises(StoppedError):
        fit_model(data, fitting, tmp_path, progress=stop)
    assert (tmp_path / f"{CHECKPOINT}.1").is_file()
    # Of another training: said before the first member is trained again.
    (tmp_path / CHECKPOINT).rename(tmp_path / "aside")
    with pytest.raises(ConfigError, match=r"checkpoint\.pt\.1 is of a training with other"):
        fit_model(data, make_fitting(architecture=SEVERAL, seed=5), tmp_path, progress=stop)
    assert not (tmp_path / CHECKPOINT).exists()
    (tmp_path / "aside").rename(tmp_path / CHECKPOINT)
    again = []
    whole = fit_model(data, fitting, tmp_path, progress=lambda entry, epochs: again.append(entry["epoch"]))
    assert again == [2, 3, 1, 2, 3]
    assert whole.read_bytes() == path.read_bytes()
    assert not list(tmp_path.glob(f"{CHECKPOINT}*"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": {**SEVERAL, "members": 2}}, "architecture.members is wrong"),
        ({"architecture": {**SEVERAL, "members": [{"side": 32}]}}, r"architecture.members.0.reduce is wrong"),
        (
            {"architecture": {**SEVERAL, "members": [{**VIEWS[0], "group": "C4"}]}},
            "unknown key group in .*members.0",
        ),
        ({"architecture": {**SEVERAL, "members": [[32, 1]]}}, r"architecture.members.0"),
        ({"architecture": {**SEVERAL, "members": [{"side": 32, "reduce": 0}]}}, r"members.0.reduce is 0"),
        ({"architecture": {**SEVERAL, "members": [{"side": 40, "reduce": 1}]}}, "at most 32 px"),
        ({"architecture": {**SEVERAL, "members": [{"side": 24, "reduce": 2}]}}, "fourth scale"),
        ({"architecture": {**SEVERAL, "reduce": 64, "members": VIEWS[:1]}}, "whole blocks of 64 px"),
        ({"architecture": {**SEVERAL, "reduce": 2, "members": VIEWS[:1] * 65}}, "members are 65"),
        ({"architecture": SEVERAL, "posterior": {"method": "deep-ensemble"}}, "give one of them"),
    ],
)
def test_members_that_cannot_be_are_refused(data, settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        fit_model(data, make_fitting(**settings), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_without_one_of_its_members_is_refused(path, tmp_path):
    tensors, card, _ = read_model(path)
    fewer = {name: values for name, values in tensors.items() if not name.startswith("members.2.")}
    with pytest.raises(ConfigError, match=r"members\.2\.\S+.*missing"):
        save_model(tmp_path / "fewer.safetensors", fewer, card)
    claimed = card.model_copy(update={"architecture": {**card.architecture, "members": list(VIEWS[:2])}})
    data = save(fewer, metadata={"card": card.to_json()})
    save_model(tmp_path / "two.safetensors", fewer, claimed)
    assert load_classifier(tmp_path / "two.safetensors").predict(IMAGES).logits.shape == (12, 2)
    (tmp_path / "lying.safetensors").write_bytes(data)
    with pytest.raises(InputError, match="does not hold what its card says"):
        load_classifier(tmp_path / "lying.safetensors")
