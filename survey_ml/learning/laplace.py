"""A Gaussian posterior over the last layer of a network, found after its training: Laplace's approximation.

Source: MacKay 1992, Neural Comp. 4, 448 and 415; for last layers Kristiadi et al. 2020, Daxberger et al.
2021. For a linear model with Gaussian noise it is the exact posterior, and the evidence is exact as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, optimize

from survey_ml.errors import SurveyMLError

LOG_SCALES = (-7.0, 5.0)
"""Range of the logarithm of the prior's standard deviation that the evidence chooses from."""


@dataclass(frozen=True, eq=False)
class HeadPosterior:
    """A Gaussian posterior over the weights of a linear layer.

    Attributes
    ----------
    mean : (n_out, width + 1) ndarray of float64
        Weights of each output, and its bias last.
    factor : (d, d) ndarray of float64
        Lower triangle with covariance ``factor @ factor.T``; d = n_out * (width + 1), one output after
        another.
    prior_scale : float
        Standard deviation of the prior.
    log_evidence : float
        Logarithm of the marginal likelihood in nats, for the prior and a temperature of 1.
    """

    mean: NDArray[np.float64]
    factor: NDArray[np.float64]
    prior_scale: float
    log_evidence: float


def measure_curvature(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return the second derivatives of the loss by the logits, (n, n_classes, n_classes)."""
    values = np.asarray(probabilities, np.float64)
    return values[:, :, None] * np.eye(values.shape[1]) - values[:, :, None] * values[:, None, :]


def fit_laplace(
    features: ArrayLike,
    curvature: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike,
    log_likelihood: float,
    *,
    prior_scale: float | None = None,
    temperature: float = 1.0,
) -> HeadPosterior:
    """Fit the posterior over a linear layer at the weights that it was trained to.

    Parameters
    ----------
    features : (n, width) array
        What the layer reads, for every training image.
    curvature : (n, n_out, n_out) array
        Second derivatives of the negative log likelihood of each image by the outputs:
        `measure_curvature`, or the inverse of the variance of Gaussian noise.
    weight, bias : (n_out, width) and (n_out,) array
        As trained; the mean of the posterior.
    log_likelihood : float
        Of all training images, in nats.
    prior_scale : float, optional
        Standard deviation of the Gaussian prior; the one with the largest evidence when not given.
    temperature : float
        Multiplies the covariance.

    Raises
    ------
    SurveyMLError
        When the arrays do not belong together or are not finite.

    Notes
    -----
    Outputs are linear in the weights of the layer, so that the generalised Gauss-Newton matrix is the
    Hessian.
    """
    values, second = np.asarray(features, np.float64), np.asarray(curvature, np.float64)
    mean = np.column_stack([np.asarray(weight, np.float64), np.asarray(bias, np.float64)])
    n_out, wide = mean.shape
    if values.shape != (len(second), wide - 1) or second.shape[1:] != (n_out, n_out):
        raise SurveyMLError(
            f"features {values.shape}, curvature {second.shape} and weights {mean.shape} do not fit",
            "give one row and one matrix an image",
        )
    extended = np.column_stack([values, np.ones(len(values))])
    hessian = np.zeros((n_out, wide, n_out, wide))
    for one in range(n_out):
        for two in range(one + 1):
            part = (extended * second[:, one, two, None]).T @ extended
            hessian[one, :, two, :] = part
            hessian[two, :, one, :] = part.T
    matrix = hessian.reshape(mean.size, mean.size)
    if not (np.isfinite(matrix).all() and np.isfinite(mean).all()):
        raise SurveyMLError("the posterior of the layer is not finite", "check features and weights")
    spread, vectors = linalg.eigh(0.5 * (matrix + matrix.T))
    spread = np.maximum(spread, 0.0)
    length = float((mean**2).sum())
    if prior_scale is None:
        found = optimize.minimize_scalar(
            lambda log: -measure_evidence(log_likelihood, spread, length, math.exp(log)),
            bounds=LOG_SCALES, method="bounded", options={"xatol": 1e-6},
        )  # fmt: skip
        prior_scale = math.exp(float(found.x))
    covariance = (vectors * (temperature / (spread + prior_scale**-2))) @ vectors.T
    return HeadPosterior(
        mean=mean,
        factor=linalg.cholesky(0.5 * (covariance + covariance.T), lower=True),
        prior_scale=prior_scale,
        log_evidence=measure_evidence(log_likelihood, spread, length, prior_scale),
    )


def measure_evidence(
    log_likelihood: float, spread: NDArray[np.float64], length: float, prior_scale: float
) -> float:
    """Return the logarithm of the marginal likelihood in nats (MacKay 1992, equation 2.5).

    Parameters
    ----------
    log_likelihood : float
        At the mean.
    spread : (d,) ndarray of float64
        Eigenvalues of the Hessian of the negative log likelihood.
    length : float
        Sum of the squares of the mean.
    prior_scale : float
        Standard deviation of the prior.
    """
    precision = prior_scale**-2
    return float(
        log_likelihood - 0.5 * precision * length - 0.5 * np.log1p(np.asarray(spread) / precision).sum()
    )
