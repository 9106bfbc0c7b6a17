"""Random changes of training images that leave their class as it is. Test images are never changed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def augment_images(
    images: Tensor,
    generator: torch.Generator,
    *,
    scales: tuple[float, float] = (0.9, 1.1),
    shift: float = 2.0,
) -> Tensor:
    """Turn by any angle, reflect, scale and shift each image at random.

    Parameters
    ----------
    images : Tensor
        Shape (n, 1, y, x), zero where the sky is empty.
    generator : torch.Generator
        Of the random numbers; they are drawn on the CPU, so that every device sees the same.
    scales : tuple of float
        Range of the magnification.
    shift : float
        Largest shift along each axis in pixels.

    Returns
    -------
    Tensor
        Of the same shape, interpolated bilinearly; zero from beyond the edge.
    """
    n, _, height, width = images.shape
    draw = torch.rand((5, n), generator=generator)
    angle = draw[0] * (2.0 * torch.pi)
    sign = torch.where(draw[1] < 0.5, -1.0, 1.0)
    size = scales[0] + draw[2] * (scales[1] - scales[0])
    cosine, sine = torch.cos(angle) / size, torch.sin(angle) / size
    move_x, move_y = ((2.0 * draw[k] - 1.0) * (2.0 * shift / side) for k, side in ((3, width), (4, height)))
    rows = [torch.stack([sign * cosine, -sine, move_x], 1), torch.stack([sign * sine, cosine, move_y], 1)]
    matrix = torch.stack(rows, 1).to(images.device, images.dtype)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
