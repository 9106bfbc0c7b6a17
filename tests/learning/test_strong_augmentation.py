"""Strong changes are what they say, each image has its own, and a seed gives them again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from survey_ml.learning.strong_augmentation import (
    OPERATIONS,
    add_noise,
    augment_strongly,
    crop_circle,
    widen_beam,
)


@pytest.fixture
def images():
    rng = np.random.default_rng(3)
    values = np.rint(255 * rng.random((3, 1, 12, 12)) ** 3) / 255
    values[:, :, :5] = 0.0
    return torch.from_numpy(values)


def apply(name, images, part):
    return OPERATIONS[name](images, torch.full((len(images),), part, dtype=images.dtype)).numpy()


def test_brightness_and_contrast_against_arithmetic(images):
    x = images.numpy()
    assert apply("Brightness", images, 0.3) == pytest.approx(x * 0.32)
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    assert apply("Contrast", images, 0.5) == pytest.approx(mean + 0.5 * (x - mean))
    low, high = x.min(axis=(1, 2, 3), keepdims=True), x.max(axis=(1, 2, 3), keepdims=True)
    assert apply("AutoContrast", 0.2 + 0.3 * images, 0.1) == pytest.approx((x - low) / (high - low))
    flat = torch.full((1, 1, 4, 4), 0.25)
    assert torch.equal(OPERATIONS["AutoContrast"](flat, torch.ones(1)), flat)
    assert torch.equal(OPERATIONS["Identity"](images, torch.ones(3)), images)


@pytest.mark.parametrize(("part", "bits"), [(0.1, 4), (0.3, 5), (0.5, 6), (0.9, 7)])
def test_posterise_leaves_the_highest_bits(images, part, bits):
    bytes_ = np.rint(images.numpy() * 255).astype(np.uint8)
    mask = (0xFF << (8 - bits)) & 0xFF
    assert apply("Posterize", images, part) == pytest.approx((bytes_ & mask) / 255.0)


def test_equalise_against_a_histogram(images):
    found = apply("Equalize", images.repeat(1, 1, 8, 8), 0.1)
    for image, got in zip(images.repeat(1, 1, 8, 8).numpy(), found, strict=True):
        levels = np.rint(image * 255).astype(int).ravel()
        counts = np.bincount(levels, minlength=256)
        size = (counts.sum() - counts[levels.max()]) // 255
        below = np.concatenate([[0], counts.cumsum()[:-1]])
        table = np.clip((size // 2 + below) // size, 0, 255)
        assert got.ravel() == pytest.approx(table[levels] / 255.0)
    empty = torch.zeros((1, 1, 8, 8))
    assert torch.equal(OPERATIONS["Equalize"](empty, torch.ones(1)), empty)


def test_sharpness_smooths_inside_and_leaves_the_edge(images):
    x, found = images.numpy(), apply("Sharpness", images, 0.5)
    inside = x[0, 0, 5:8, 6:9]
    smooth = (inside.sum() + 4 * inside[1, 1]) / 13
    assert found[0, 0, 6, 7] == pytest.approx(0.5 * smooth + 0.5 * inside[1, 1])
    assert np.array_equal(found[:, :, 0], x[:, :, 0]) and found[:, :, -1] == pytest.approx(x[:, :, -1])


def test_shears_and_shifts_move_pixels_where_they_should():
    image = torch.zeros((1, 1, 20, 20))
    image[0, 0, 12, 5] = 1.0
    right = OPERATIONS["TranslateX"](image, torch.tensor([0.5])).numpy()  # 0.15 of 20 px
    assert right[0, 0, 12, 8] == pytest.approx(1.0, abs=1e-5) and right.sum() == pytest.approx(1.0, abs=1e-5)
    down = OPERATIONS["TranslateY"](image, torch.tensor([-0.5])).numpy()
    assert down[0, 0, 9, 5] == pytest.approx(1.0, abs=1e-5)
    sheared = OPERATIONS["ShearX"](image, torch.tensor([1.0])).numpy()
    x = (sheared[0, 0].sum(axis=0) * np.arange(20)).sum() / sheared.sum()
    # The row lies 2.5 px from the middle, so that it moves by 0.75 px.
    assert abs(x - 5.0) == pytest.approx(0.75, abs=0.01) and sheared[0, 0, 12].sum() == pytest.approx(
        1.0, abs=0.01
    )


def test_a_wider_beam_is_a_gaussian_with_the_same_peak():
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    x = np.zeros((2, 1, 31, 31), np.float32)
    x[:, 0, 10:20, 12:18] = rng.random((2, 10, 6))
    sigma = torch.tensor([1.0, 2.5])
    found = widen_beam(torch.from_numpy(x), sigma).numpy()
    for image, got, width in zip(x[:, 0], found[:, 0], sigma.tolist(), strict=True):
        wide = gaussian_filter(image, width, mode="constant", radius=30)
        assert got == pytest.approx(wide * image.max() / wide.max(), abs=2e-5)


def test_noise_is_clipped_again_and_faint_sky_stays_empty():
    images = torch.zeros((200, 1, 20, 20))
    images[:, 0, 10, 10] = 1.0
    found = add_noise(images, torch.full((200,), 0.05), torch.Generator().manual_seed(0))
    assert found.max() <= 1.0 and found.min() == 0.0
    share = float((found[:, 0, :5] > 0).float().mean())
    assert share == pytest.approx(0.00135, abs=0.0007)  # above three sigma on one side
    assert float(found[found > 0].min()) >= 0.13


def test_noise_is_correlated_by_the_beam():
    images = torch.full((100, 1, 64, 64), 0.5)
    sigma, width = torch.full((100,), 0.02), 4.0
    drawn = (torch.Generator().manual_seed(seed) for seed in (1, 1))
    white = add_noise(images, sigma, next(drawn))[:, 0] - 0.5
    like = add_noise(images, sigma, next(drawn), beam_px=width)[:, 0] - 0.5
    assert float(white.std()) == pytest.approx(0.02, rel=0.02)
    assert float(like.std()) == pytest.approx(0.02, rel=0.02)
    inner = like[:, 16:-16, 16:-16]
    for lag in (1, 2, 3):
        product = (inner[:, :, lag:] * inner[:, :, :-lag]).mean() / (inner**2).mean()
        # Of white noise smoothed by a Gaussian: a Gaussian wider by the root of two.
        assert float(product) == pytest.approx(np.exp(-2.0 * np.log(2.0) * (lag / width) ** 2), abs=0.05)
    assert abs(float((white[:, :, 1:] * white[:, :, :-1]).mean())) < 0.02 * float((white**2).mean())


def test_every_image_has_changes_of_its_own_and_a_seed_gives_them_again():
    rng = np.random.default_rng(1)
    one = torch.from_numpy(rng.random((1, 1, 16, 16)).astype(np.float32)).repeat(64, 1, 1, 1)
    first, second = (
        augment_strongly(one, torch.Generator().manual_seed(5), beam=2.0, noise=0.1) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert len(torch.unique(first.flatten(1), dim=0)) > 50
    assert first.min() >= 0.0 and first.max() <= 1.0
    other = augment_strongly(one, torch.Generator().manual_seed(6), beam=2.0, noise=0.1)
    assert not torch.equal(first, other)
    assert torch.equal(augment_strongly(one, torch.Generator(), operations=0), one)


def test_the_circle_is_the_largest_that_fits():
    kept = crop_circle(torch.ones((1, 1, 50, 50)))[0, 0]
    assert kept[25, 0] == 1.0 and kept[0, 25] == 1.0 and kept[0, 0] == 0.0
    assert float(kept.mean()) == pytest.approx(np.pi / 4, abs=0.006)
    assert torch.equal(kept, torch.rot90(kept))
