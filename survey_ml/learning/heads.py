"""Posteriors over the last layer of a network, on what it makes of its images.

The rest of the network stays as it was trained, so that samples cost no more than small matrix products. Last
layers are most of what full posteriors give (Kristiadi et al. 2020; Sharma et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from survey_ml.errors import SurveyMLError
from survey_ml.learning.laplace import HeadPosterior, fit_laplace, measure_curvature

STEPS = 1500
"""Of the optimiser."""
DRAWS = 8
"""Samples of the logits of each image a step."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """What a network made of labelled images.

    Attributes
    ----------
    copies : (k, n, d) ndarray
        Embeddings of the images as they are, and of k - 1 changed copies of them, as in training.
    labels : (n,) ndarray of int
    """

    copies: NDArray[np.floating]
    labels: NDArray[np.int64]


def fit_by_backprop(
    data: Embedded, n_classes: int, *, prior_scale: float = 1.0, seed: int = 0
) -> HeadPosterior:
    """Fit independent Gaussians to the weights of a last layer by variational inference.

    Parameters
    ----------
    data : Embedded
        A step sees one copy of all images.
    n_classes : int
    prior_scale : float
        Standard deviation of the Gaussian prior, for embeddings of unit scatter.
    seed : int

    Returns
    -------
    HeadPosterior
        For the embeddings as they are; its evidence is an estimate of the bound that is maximised.

    Notes
    -----
    Bayes by backprop (Blundell et al. 2015). The logits of a linear layer under independent Gaussian weights
    are Gaussian: they are drawn rather than the weights, which scatters less (Kingma, Salimans & Welling
    2015). The divergence is exact.
    """
    import torch
    from torch.nn import functional

    copies, labels, middle, width = _standardise(data)
    x = torch.from_numpy(np.concatenate([copies, np.ones((*copies.shape[:2], 1))], axis=2))
    y = torch.from_numpy(np.asarray(labels, np.int64))
    generator = torch.Generator().manual_seed(seed)
    mean = torch.zeros(n_classes, x.shape[2], dtype=x.dtype, requires_grad=True)
    log_scale = torch.full_like(mean, np.log(0.1), requires_grad=True)
    optimizer = torch.optim.Adam([mean, log_scale], lr=0.05)
    bound = 0.0
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 1e-4 + 0.025 * (1.0 + np.cos(np.pi * step / STEPS))
        part = x[step % len(x)]
        spread = (part.square() @ torch.exp(2.0 * log_scale).T).sqrt()
        noise = torch.randn((DRAWS, *spread.shape), generator=generator, dtype=x.dtype)
        logits = part @ mean.T + spread * noise
        loss = functional.cross_entropy(logits.reshape(-1, n_classes), y.repeat(DRAWS), reduction="sum")
        apart = log_scale - np.log(prior_scale)
        far = (0.5 * (torch.exp(2.0 * apart) + (mean / prior_scale).square() - 1.0) - apart).sum()
        cost = loss / DRAWS + far
        optimizer.zero_grad(set_to_none=True)
        cost.backward()
        optimizer.step()
        bound = -float(cost.detach())
    scales = np.exp(log_scale.detach().numpy())
    return _restore(mean.detach().numpy(), np.diag(scales.ravel()), middle, width, prior_scale, bound)


def fit_by_laplace(
    data: Embedded, weight: ArrayLike, bias: ArrayLike, *, prior_scale: float | None = None
) -> HeadPosterior:
    """Fit a Gaussian about the last layer as the network was trained.

    Parameters
    ----------
    data : Embedded
        Only the images as they are count.
    weight, bias : (n_classes, d) and (n_classes,) array
        Of the last layer.
    prior_scale : float, optional
        The one with the largest evidence when not given.
    """
    embedding = np.asarray(data.copies[0], np.float64)
    logits = embedding @ np.asarray(weight, np.float64).T + np.asarray(bias, np.float64)
    logs = special.log_softmax(logits, axis=1)
    likelihood = float(logs[np.arange(len(logs)), data.labels].sum())
    return fit_laplace(
        embedding, measure_curvature(np.exp(logs)), weight, bias, likelihood, prior_scale=prior_scale
    )


def draw_gaussian(mean: ArrayLike, factor: ArrayLike, samples: int, seed: int) -> NDArray[np.float64]:
    """Draw last layers (samples, n_classes, d + 1) from a posterior; the bias is last."""
    middle, spread = np.asarray(mean, np.float64), np.asarray(factor, np.float64)
    noise = np.random.default_rng(seed).standard_normal((samples, middle.size))
    return middle + (noise @ spread.T).reshape(samples, *middle.shape)


def draw_masks(mean: ArrayLike, rate: float, samples: int, seed: int) -> NDArray[np.float64]:
    """Draw last layers (samples, n_classes, d + 1) with features dropped (Gal & Ghahramani 2016)."""
    middle = np.asarray(mean, np.float64)
    kept = np.random.default_rng(seed).random((samples, middle.shape[1] - 1)) >= rate
    drawn = np.repeat(middle[None], samples, axis=0)
    drawn[:, :, :-1] *= kept[:, None, :] / (1.0 - rate)
    return drawn


def evaluate_heads(heads: ArrayLike, embedding: ArrayLike) -> NDArray[np.float64]:
    """Return probabilities (samples, n, n_classes) of embeddings (n, d) by last layers.

    Products are added up source by source, so that no row depends on how many others there are.
    """
    layers, values = np.asarray(heads, np.float64), np.asarray(embedding, np.float64)
    if values.ndim != 2 or values.shape[1] != layers.shape[2] - 1:
        raise SurveyMLError(
            f"embeddings have the shape {values.shape}, the last layer reads {layers.shape[2] - 1} numbers",
            "use the posterior of the model that made them",
        )
    logits = np.einsum("nd,scd->snc", values, layers[:, :, :-1], optimize=False) + layers[:, None, :, -1]
    return np.asarray(special.softmax(logits, axis=2))


def _standardise(
    data: Embedded,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    copies = np.asarray(data.copies, np.float64)
    middle, width = copies[0].mean(axis=0), copies[0].std(axis=0)
    width = np.where(width > 0.0, width, 1.0)
    return (copies - middle) / width, data.labels, middle, width


def _restore(
    mean: NDArray[np.float64],
    factor: NDArray[np.float64],
    middle: NDArray[np.float64],
    width: NDArray[np.float64],
    prior_scale: float,
    bound: float,
) -> HeadPosterior:
    """Return a posterior for embeddings as they are from one for standardised embeddings.

    w' = w / width and b' = b - sum(w middle / width), one linear map for each class.
    """
    d = len(middle)
    one = np.diag(np.append(1.0 / width, 1.0))
    one[d, :d] = -middle / width
    whole = np.kron(np.eye(len(mean)), one)
    return HeadPosterior((whole @ mean.ravel()).reshape(mean.shape), whole @ factor, prior_scale, bound)
