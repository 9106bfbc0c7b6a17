"""Training images as another survey would show them: a wider beam, another depth.

What sets surveys apart is first of all the beam: images of FIRST smoothed to the beam of NVSS fool a
classifier of FIRST as NVSS itself does. A network that is trained on images of many beams and depths need
not be fooled. Test images are never changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from survey_ml.errors import ConfigError
from survey_ml.learning.preparation import FWHM

CLIP = 3.0
"""Times the noise below which an image counts as empty sky, as in the training images themselves."""


@dataclass(frozen=True)
class Observation:
    """What surveys training images are made to look like.

    Parameters
    ----------
    share : float
        Of the training images that are changed; 0 for none.
    beam_px : float
        Full width at half maximum of the beam that the images have, in pixels.
    widest_px : float
        Of the widest one that they are smoothed to; all widths between are equally likely.
    peak_snr : tuple of float
        Range of the peak over the noise of the images made, equally likely in the logarithm.

    Raises
    ------
    ConfigError
        When a number makes no sense.
    """

    share: float = 0.0
    beam_px: float = 3.0
    widest_px: float = 25.0
    peak_snr: tuple[float, float] = (20.0, 500.0)

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ConfigError(f"share is {self.share:g}", "give a share of the images from 0 to 1")
        if not 0.0 < self.beam_px <= self.widest_px:
            raise ConfigError(
                f"beam_px is {self.beam_px:g} and widest_px {self.widest_px:g}",
                "images can only be smoothed: give a widest beam of at least that of the images",
            )
        if not CLIP < self.peak_snr[0] <= self.peak_snr[1]:
            raise ConfigError(
                f"peak_snr is {self.peak_snr[0]:g} to {self.peak_snr[1]:g}",
                f"give a range that begins above {CLIP:g}: all else is empty sky",
            )


def observe_images(images: Tensor, generator: torch.Generator, observation: Observation) -> Tensor:
    """Give a random share of images another beam and depth.

    Each is smoothed to a beam drawn at random, gets noise correlated like that beam, is clipped at three
    times the noise and scaled to its maximum again.

    Parameters
    ----------
    images : Tensor
        Shape (n, 1, y, x), from 0 to 1, zero where the sky is empty.
    generator : torch.Generator
        Of the random numbers; they are drawn on the CPU, so that every device sees the same.
    observation : Observation

    Returns
    -------
    Tensor
        Of the same shape. An image without anything in it stays as it is.
    """
    n = len(images)
    draw = torch.rand((3, n), generator=generator)
    seeds = torch.randint(2**31, (n,), generator=generator)
    chosen = torch.nonzero(draw[0] < observation.share)[:, 0]
    if not len(chosen):
        return images
    beam = observation.beam_px + draw[1, chosen] * (observation.widest_px - observation.beam_px)
    low, high = (math.log(value) for value in observation.peak_snr)
    depth = torch.exp(low + draw[2, chosen] * (high - low))
    # A generator for each image: how many are changed beside it changes nothing.
    noise = torch.stack(
        [
            torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(int(seed)))
            for seed in seeds[chosen]
        ]
    )
    made = images.clone()
    device = images.device
    made[chosen.to(device)] = _observe(
        images[chosen.to(device)], beam.to(device), depth.to(device), noise.to(device), observation.beam_px
    )
    return made


def _observe(images: Tensor, beam: Tensor, depth: Tensor, noise: Tensor, own: float) -> Tensor:
    smooth = smooth_images(images, torch.sqrt((beam**2 - own**2).clamp_min(0.0)))
    peak = smooth.amax(dim=(1, 2, 3), keepdim=True)
    correlated = correlate_noise(noise, beam)
    rms = peak / depth[:, None, None, None]
    deep = smooth + rms * correlated
    clipped = torch.where(deep < CLIP * rms, 0.0, deep)
    top = clipped.amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(top > 0, clipped / top.clamp_min(1e-12), images)


def correlate_noise(noise: Tensor, width: Tensor) -> Tensor:
    """Return noise (n, c, y, x) smoothed to beams of these FWHM (n,) in pixels, of standard deviation 1."""
    smooth = smooth_images(noise, width)
    return smooth / smooth.std(dim=(1, 2, 3), keepdim=True)


def smooth_images(images: Tensor, width: Tensor) -> Tensor:
    """Smooth each image with a round Gaussian of its own, without wrapping around its edges.

    Parameters
    ----------
    images : Tensor
        Shape (n, c, y, x).
    width : Tensor
        Shape (n,): full widths at half maximum in pixels; 0 leaves an image as it is.

    Returns
    -------
    Tensor
        Of the same shape and sum, but for what leaves the image.
    """
    sides = images.shape[-2:]
    sigma = width / FWHM
    # Beyond four sigma a Gaussian is below 4e-4 of its peak.
    margin = math.ceil(4.0 * float(sigma.max()))
    padded = [side + margin for side in sides]
    # Of the sampled Gaussian: one that is cut off in frequency rings around sharp edges.
    rows, columns = (_transform_gaussian(sigma, side) for side in padded)
    transfer = rows[:, :, None] * columns[:, None, : padded[1] // 2 + 1]
    spectrum = torch.fft.rfft2(images.float(), s=padded) * transfer[:, None]
    smooth = torch.fft.irfft2(spectrum, s=padded)[..., : sides[0], : sides[1]]
    return smooth.to(images.dtype)


def _transform_gaussian(sigma: Tensor, side: int) -> Tensor:
    """Return the transforms (n, side) of Gaussians of unit sum about the first of so many samples."""
    place = torch.arange(side, device=sigma.device)
    distance = torch.minimum(place, side - place)
    kernel = torch.exp(-0.5 * (distance / sigma.clamp_min(1e-3)[:, None]) ** 2)
    return torch.fft.fft(kernel / kernel.sum(dim=1, keepdim=True)).real
