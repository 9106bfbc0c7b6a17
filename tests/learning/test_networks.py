"""Networks: what turning an image changes, what the neighbours in a batch change, and all the choices."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from survey_ml.errors import ConfigError
from survey_ml.learning.attention import Aggregation, Normalisation, normalise_map
from survey_ml.learning.baselines import make_lenet, make_tang
from survey_ml.learning.convolution import (
    FeatureStandard,
    FieldNorm,
    GroupConvolution,
    PooledNorm,
    freeze_network,
    plan_blocks,
)
from survey_ml.learning.groups import parse_group
from survey_ml.learning.networks import Architecture, AttentionNetwork, turn_images

SMALL = {"fields": (2, 4, 4, 6), "side": 48}


def draw_images(n=4, side=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((n, 1, side, side), generator=generator)
    return images * (torch.rand(images.shape, generator=generator) > 0.9)


def make_network(seed=0, **settings):
    torch.manual_seed(seed)
    network = AttentionNetwork(Architecture(2, **{**SMALL, **settings})).eval()
    for module in network.modules():  # as after training: neither zero nor one
        if isinstance(module, FeatureStandard):
            module.mean.normal_()
            module.variance.uniform_(0.5, 2.0)
    return network


def move(images, number):
    turned = torch.rot90(images, number % 4, (2, 3))
    return turned.flip(3) if number >= 4 else turned


def measure_change(network, images, numbers=range(8)):
    with torch.inference_mode():
        before = network(images)[0].softmax(1)
        return max(float((network(move(images, k))[0].softmax(1) - before).abs().max()) for k in numbers)


@pytest.mark.parametrize(("group", "size"), [("D4", 3), ("D4", 5), ("D8", 5), ("D16", 5)])
def test_turns_and_reflections_change_nothing(group, size):
    assert measure_change(make_network(group=group, size=size), draw_images()) < 1e-5


@pytest.mark.parametrize("group", ["C4", "C8", "C16"])
def test_turns_change_nothing_but_reflections_do(group):
    network = make_network(group=group, size=5)
    assert measure_change(network, draw_images(), range(4)) < 1e-5
    assert measure_change(network, draw_images(), [4]) > 1e-4


def test_an_image_is_turned_about_its_middle():
    # An ellipse along a diagonal lies along an axis afterwards.
    y, x = torch.meshgrid(torch.arange(60.0) - 29.5, torch.arange(80.0) - 39.5, indexing="ij")
    along, across = (x + y) / math.sqrt(2.0), (y - x) / math.sqrt(2.0)
    tilted = torch.exp(-0.5 * ((along / 8.0) ** 2 + (across / 4.0) ** 2))[None, None]
    y, x = torch.meshgrid(torch.arange(48.0) - 23.5, torch.arange(48.0) - 23.5, indexing="ij")
    found = turn_images(tilted, 48)[0, 0]
    either = [torch.exp(-0.5 * ((x / a) ** 2 + (y / b) ** 2)) for a, b in ((8.0, 4.0), (4.0, 8.0))]
    assert min(float((found - one).abs().max()) for one in either) < 0.02


@pytest.mark.parametrize(("group", "numbers"), [("D4", range(8)), ("C4", range(4))])
def test_looking_at_the_turned_image_as_well_keeps_the_symmetries(group, numbers):
    network, images = make_network(group=group, turned=True), draw_images(side=60)
    assert measure_change(network, images, numbers) < 1e-5
    once = make_network(group=group)
    with torch.inference_mode():
        turned = turn_images(images, SMALL["side"])
        assert float((network(images)[0] - network(turned)[0]).abs().max()) > 1e-4
        seen = [torch.cat(once.look(one)[0], dim=1) for one in (images, turned)]
        assert torch.allclose(network(images)[1], 0.5 * (seen[0] + seen[1]), atol=1e-5)
        frozen = freeze_network(network)
        assert torch.allclose(frozen(images)[0], network(images)[0], atol=1e-4)


def test_while_it_is_trained_a_network_looks_once():
    images = draw_images()
    one, other = (make_network(group="C4", dropout=0.0, turned=turned) for turned in (True, False))
    assert torch.equal(one.train()(images)[0], other.train()(images)[0])


@pytest.mark.parametrize("aggregation", Aggregation)
def test_the_coarsest_scale_is_seen_as_well_where_it_is_pooled(aggregation):
    settings = {"group": "D4", "aggregation": aggregation}
    network, images = make_network(pooled=True, **settings), draw_images()
    assert measure_change(network, images) < 1e-5
    features, fewer = network(images)[1], make_network(**settings)(images)[1]
    assert features.shape == (4, 10 + 2 * 6) and fewer.shape == (4, 10)
    seen = []
    network.invariant.register_forward_hook(lambda module, given, made: seen.append(made))
    network.look(images)
    means, largest = seen[3].mean((2, 3)), seen[3].amax((2, 3))
    standard = network.standards[3]
    assert torch.allclose(features[:, 10:], standard(torch.cat([means, largest], 1)), atol=1e-6)
    network.train()(images)[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().any() for p in network.scales[3].parameters())


def test_a_stretch_is_that_of_the_brightness():
    images = draw_images()
    stretched, plain = make_network(stretch=0.5), make_network()
    with torch.inference_mode():
        assert torch.allclose(stretched(images)[0], plain(images.sqrt())[0], atol=1e-6)
        assert not torch.allclose(stretched(images)[0], plain(images)[0], atol=1e-3)
        # A little below zero, as resampling leaves it, is empty sky.
        assert torch.isfinite(stretched(images - 0.01)[0]).all()


@pytest.mark.parametrize("stretch", [0.0, -1.0, 11.0, math.nan, math.inf])
def test_a_stretch_that_shows_nothing_is_refused(stretch):
    with pytest.raises(ConfigError, match="shows nothing"):
        make_network(stretch=stretch)


def test_what_is_scaled_is_not_made_faint_by_a_neighbour():
    images = draw_images(side=60)
    scaled, plain = make_network(scaled=True), make_network()
    looked_at = images[:, :, 6:-6, 6:-6]
    faint = 0.1 * images
    faint[:, :, 1, 1] = 1.0  # beyond the 48 px that are looked at
    with torch.inference_mode():
        found = scaled(faint)[0]
        assert torch.allclose(found, scaled(images)[0], atol=1e-5)
        assert torch.allclose(
            found, plain(looked_at / looked_at.amax(dim=(1, 2, 3), keepdim=True))[0], atol=1e-5
        )
        assert not torch.allclose(plain(faint)[0], plain(images)[0], atol=1e-3)
        # An empty image has no largest brightness.
        assert torch.equal(scaled(torch.zeros(1, 1, 48, 48))[0], plain(torch.zeros(1, 1, 48, 48))[0])


def test_a_plain_network_sees_turns():
    assert measure_change(make_network(), draw_images()) > 1e-4


@pytest.mark.parametrize("side", [47, 50, 60])
def test_padded_and_cut_images_of_even_difference_are_exact(side):
    change = measure_change(make_network(group="D4"), draw_images(side=side))
    # An odd difference cannot be split alike on both sides.
    assert change < 1e-5 if side % 2 == 0 else change > 1e-6


def test_a_side_that_a_pooling_would_cut_is_refused():
    with pytest.raises(ConfigError, match="halved three times"):
        AttentionNetwork(Architecture(2, side=50))


@pytest.mark.parametrize(
    "how", list(itertools.product(Normalisation, Aggregation)), ids=lambda h: f"{h[0]}-{h[1]}"
)
def test_all_sixteen_choices_run_and_learn_from_every_weight(how):
    network = make_network(normalisation=how[0], aggregation=how[1])
    logits, features, attention = network(draw_images())
    assert logits.shape == (4, 2) and features.shape == (4, 10) and attention.shape == (4, 24, 24)
    assert float(attention.detach().max()) <= 1.0 + 1e-6
    logits.square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().any()]
    # A softmax does not see a constant, and weights of zero mean take away that of the map.
    assert set(still) <= {f"gates.{k}.psi.bias" for k in range(3)}


@pytest.mark.parametrize("how", Normalisation)
def test_no_image_depends_on_its_neighbours(how):
    network, images = make_network(normalisation=how, group="D4"), draw_images(7)
    with torch.inference_mode():
        together = network(images)[0].softmax(1)
        alone = torch.cat([network(image[None])[0] for image in images]).softmax(1)
    assert torch.allclose(together, alone, atol=1e-6)


def test_maps_are_normalised_as_they_say():
    values = torch.randn((3, 1, 5, 6), generator=torch.Generator().manual_seed(1)) * 4.0
    assert torch.allclose(normalise_map(values, Normalisation.SOFTMAX).sum((2, 3)), torch.ones(3, 1))
    ranged = normalise_map(values, Normalisation.RANGE).flatten(1)
    assert torch.allclose(ranged.amin(1), torch.zeros(3)) and torch.allclose(ranged.amax(1), torch.ones(3))
    standard = normalise_map(values, Normalisation.STANDARD).flatten(1)
    assert torch.allclose(standard.mean(1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(standard.var(1, unbiased=False), torch.ones(3), atol=1e-4)
    for how in Normalisation:
        assert torch.isfinite(normalise_map(torch.full((2, 1, 4, 4), 3.0), how)).all()


def test_the_published_width_has_the_published_number_of_weights():
    # 101,429 with one norm of two numbers a channel; ours standardises 54 features besides.
    network = AttentionNetwork(Architecture(2))
    assert sum(p.numel() for p in network.parameters()) == 101_429 + 2 * 54


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("group", ["C1", "D4", "C8"])
def test_frozen_networks_do_the_same(group, pooled):
    network, images = make_network(group=group, size=5), draw_images()
    for module in network.modules():
        if isinstance(module, FieldNorm):
            torch.nn.init.normal_(module.scale, 1.0, 0.2)
            torch.nn.init.normal_(module.offset, 0.0, 0.2)
    with torch.inference_mode():
        before = network(images)
    frozen = freeze_network(network, pooled=pooled)
    assert not any(isinstance(module, GroupConvolution) for module in frozen.modules())
    assert any(isinstance(module, FieldNorm) for module in frozen.modules()) is not pooled
    with torch.inference_mode():
        for one, two in zip(before, frozen(images), strict=True):
            assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("size", [(56, 56), (22, 44), (13, 1), (1, 1)])
def test_means_of_blocks_normalise_as_double_precision_does(size):
    plan = plan_blocks(*size)
    assert math.prod([rows for rows, _ in plan]) == size[0]
    assert math.prod([columns for _, columns in plan]) == size[1]
    images = 100.0 + torch.randn(2, 4, *size)
    norm = PooledNorm(torch.ones(4), torch.zeros(4), 2)
    exact = torch.nn.functional.group_norm(images.double(), 2)
    assert torch.allclose(norm(images).double(), exact, atol=1e-4)


def test_turning_the_input_turns_and_permutes_the_fields():
    group = parse_group("C4")
    layer = GroupConvolution(1, 2, 3, group, lifts=True)
    image = draw_images(1, 9)
    with torch.inference_mode():
        before, after = layer(image), layer(torch.rot90(image, 1, (2, 3)))
    moved = torch.rot90(before, 1, (2, 3)).reshape(1, 2, 4, 9, 9)
    after = after.reshape(1, 2, 4, 9, 9)
    shifts = [k for k in range(4) if torch.allclose(moved.roll(k, 2), after, atol=1e-6)]
    assert shifts in ([1], [3])


@pytest.mark.parametrize("make", [make_tang, make_lenet])
def test_baselines_classify(make):
    logits, features, attention = make(Architecture(4, side=144))(draw_images(2, 150))
    assert logits.shape == (2, 4) and len(features) == 2 and bool((attention == 1).all())
