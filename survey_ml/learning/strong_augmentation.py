"""Strong random changes of images, of which a network is to say the same as of the unchanged ones.

RandAugment (Cubuk et al. 2020) with the operations that Slijepcevic et al. 2022 took, which leave radio
galaxies of their class; and two that change what differs between surveys: beam and noise. Whole batches are
changed at a time, every image by operations of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from survey_ml.learning.observation import CLIP, correlate_noise, smooth_images
from survey_ml.learning.preparation import FWHM

LEVELS = 255.0
"""Steps of brightness where images are taken as 8-bit ones."""
STRONGEST = 10
"""A strength is a whole number from 1 to one less, of so many parts of the largest change."""


def stretch(images: Tensor, part: Tensor) -> Tensor:
    """Scale each image (n, 1, y, x) from its least and largest value to 0 and 1; a flat one is left."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp_min(1e-12), images)


def dim(images: Tensor, part: Tensor) -> Tensor:
    """Multiply each image by 0.05 + 0.9 ``part`` (n,)."""
    return images * _spread(0.05 + 0.9 * part)


def flatten(images: Tensor, part: Tensor) -> Tensor:
    """Bring each image nearer to its mean: 0.05 + 0.9 ``part`` of the difference are left."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + _spread(0.05 + 0.9 * part) * (images - mean)


def equalise(images: Tensor, part: Tensor) -> Tensor:
    """Spread the brightness of each image evenly over 256 levels.

    A level becomes the share of pixels that are fainter, rounded as in 8-bit images: with n pixels, of which
    m are of the brightest level, s = (n - m) // 255, and level k becomes (s // 2 + pixels below k) // s. An
    image with s = 0, of one level and little else, is left.
    """
    levels = (images.clamp(0.0, 1.0) * LEVELS).round().long().flatten(1)
    counts = torch.zeros((len(levels), 256), dtype=torch.long, device=images.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    last = counts.gather(1, levels.amax(1, keepdim=True))
    size = (levels.shape[1] - last) // 255
    below = counts.cumsum(1) - counts
    table = ((size // 2 + below) // size.clamp_min(1)).clamp(0, 255)
    spread = (table.gather(1, levels).to(images.dtype) / LEVELS).view_as(images)
    return torch.where((size > 0)[:, :, None, None], spread, images)


def keep(images: Tensor, part: Tensor) -> Tensor:
    """Leave images as they are."""
    return images


def posterise(images: Tensor, part: Tensor) -> Tensor:
    """Leave the 4 + floor(4 ``part``) highest of the 8 bits of each pixel."""
    step = 2.0 ** (4.0 - _spread(torch.floor(4.0 * part + 1e-6)))
    return torch.floor((images.clamp(0.0, 1.0) * LEVELS).round() / step) * step / LEVELS


def blur(images: Tensor, part: Tensor) -> Tensor:
    """Bring each image nearer to a smoothed one: 0.05 + 0.9 ``part`` of the difference are left.

    The smoothing is by a 3 x 3 kernel with 5 / 13 in the middle and 1 / 13 else; the edge is left.
    """
    kernel = torch.ones((1, 1, 3, 3), dtype=images.dtype, device=images.device)
    kernel[0, 0, 1, 1] = 5.0
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = functional.conv2d(images, kernel / 13.0)
    return smooth + _spread(0.05 + 0.9 * part) * (images - smooth)


def shear_x(images: Tensor, part: Tensor) -> Tensor:
    """Move rows along x by 0.3 ``part`` times their distance from the middle; ``part`` has a sign."""
    return _transform(images, shear=(0.3 * part, torch.zeros_like(part)))


def shear_y(images: Tensor, part: Tensor) -> Tensor:
    """Move columns along y by 0.3 ``part`` times their distance from the middle."""
    return _transform(images, shear=(torch.zeros_like(part), 0.3 * part))


def shift_x(images: Tensor, part: Tensor) -> Tensor:
    """Move each image along x by 0.3 ``part`` of its side."""
    return _transform(images, shift=(0.3 * part, torch.zeros_like(part)))


def shift_y(images: Tensor, part: Tensor) -> Tensor:
    """Move each image along y by 0.3 ``part`` of its side."""
    return _transform(images, shift=(torch.zeros_like(part), 0.3 * part))


Operation = Callable[[Tensor, Tensor], Tensor]
OPERATIONS: dict[str, Operation] = {
    "AutoContrast": stretch,
    "Brightness": dim,
    "Contrast": flatten,
    "Equalize": equalise,
    "Identity": keep,
    "Posterize": posterise,
    "Sharpness": blur,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": shift_x,
    "TranslateY": shift_y,
}
"""Name in RandAugment to what it does with images (n, 1, y, x) from 0 to 1 and strengths (n,)."""
SIGNED = frozenset({"ShearX", "ShearY", "TranslateX", "TranslateY"})
"""Operations whose strength has a random sign."""


def widen_beam(images: Tensor, sigma: Tensor) -> Tensor:
    """Smooth each image (n, 1, y, x) by a Gaussian of its own, and scale it to its former maximum.

    Parameters
    ----------
    images : Tensor
    sigma : Tensor
        Standard deviations (n,) in pixels.
    """
    wide = smooth_images(images, FWHM * sigma)
    peaks = [side.amax((1, 2, 3), keepdim=True) for side in (images, wide)]
    return wide * (peaks[0] / peaks[1].clamp_min(1e-12))


def add_noise(images: Tensor, sigma: Tensor, generator: torch.Generator, *, beam_px: float = 0.0) -> Tensor:
    """Add noise to each image, and empty the sky below three times of it again.

    Parameters
    ----------
    images : Tensor
        Shape (n, 1, y, x), from 0 to 1, of which the noise was clipped.
    sigma : Tensor
        Of the noise (n,), in the unit of the images.
    generator : torch.Generator
    beam_px : float
        FWHM of the beam in pixels, which noise is correlated by; 0 for white noise.
    """
    noise = torch.randn(images.shape, generator=generator).to(images.device, images.dtype)
    if beam_px > 0.0:
        noise = correlate_noise(noise, torch.full((len(noise),), beam_px, device=noise.device))
    noisy = images + _spread(sigma) * noise
    noisy = torch.where(noisy >= _spread(CLIP * sigma), noisy, 0.0)
    return noisy / noisy.amax((1, 2, 3), keepdim=True).clamp_min(1.0)


def augment_strongly(
    images: Tensor,
    generator: torch.Generator,
    *,
    operations: int = 2,
    beam: float = 0.0,
    noise: float = 0.0,
    beam_px: float = 0.0,
) -> Tensor:
    """Change each image by some operations, drawn for it alone.

    Parameters
    ----------
    images : Tensor
        Shape (n, 1, y, x), from 0 to 1.
    generator : torch.Generator
        Of the random numbers, on the CPU.
    operations : int
        Drawn for each image, one after the other; the same may be drawn twice.
    beam : float
        Largest standard deviation in pixels of a Gaussian that smooths an image; above 0 this is one more
        operation.
    noise : float
        Largest noise that is added, as share of the peak; above 0 this is one more operation.
    beam_px : float
        FWHM of the beam in pixels, which that noise is correlated by; 0 for white noise.

    Returns
    -------
    Tensor
        Of the same shape, from 0 to 1.
    """
    pool: list[tuple[str, Operation]] = list(OPERATIONS.items())
    if beam > 0.0:
        pool.append(("Beam", lambda part, strength: widen_beam(part, beam * strength)))
    if noise > 0.0:
        pool.append(
            ("Noise", lambda part, strength: add_noise(part, noise * strength, generator, beam_px=beam_px))
        )
    n = len(images)
    for _ in range(operations):
        which = torch.randint(len(pool), (n,), generator=generator)
        strength = torch.randint(1, STRONGEST, (n,), generator=generator).float() / STRONGEST
        sign = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
        changed = images.clone()
        for number, (name, change) in enumerate(pool):
            rows = torch.nonzero(which == number)[:, 0]
            if name == "Identity" or not len(rows):
                continue
            part = strength[rows] * sign[rows] if name in SIGNED else strength[rows]
            rows = rows.to(images.device)
            changed[rows] = change(images[rows], part.to(images.device, images.dtype))
        images = changed.clamp(0.0, 1.0)
    return images


def crop_circle(images: Tensor) -> Tensor:
    """Empty what is outside of the largest circle that fits into images (n, 1, y, x).

    A turned image has empty corners, by which its angle could be told; in a circle every angle looks alike.
    """
    y, x = (
        torch.arange(side, dtype=images.dtype, device=images.device) - 0.5 * (side - 1)
        for side in images.shape[2:]
    )
    radius = 0.5 * min(images.shape[2:])
    return torch.where(y[:, None] ** 2 + x**2 <= radius**2, images, 0.0)


def _spread(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _transform(
    images: Tensor,
    *,
    shear: tuple[Tensor, Tensor] | None = None,
    shift: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Shear or shift images, in shares of distances and of sides; zero from beyond the edge."""
    matrix = torch.zeros((len(images), 2, 3), dtype=images.dtype, device=images.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1.0
    if shear is not None:
        matrix[:, 0, 1], matrix[:, 1, 0] = shear
    if shift is not None:
        # The grid spans two from edge to edge.
        matrix[:, 0, 2], matrix[:, 1, 2] = (-2.0 * one for one in shift)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
