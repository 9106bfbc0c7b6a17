"""The built-in models, light; kept apart from what reads them."""

from __future__ import annotations

from survey_ml.hookspecs import ModelSpec

_FACTORY = "survey_ml.models.weights:find_weights"

MODELS: tuple[ModelSpec, ...] = (
    ModelSpec("mirabest-attention", _FACTORY, summary="FRI or FRII: attention gates"),
    ModelSpec("mirabest-d4", _FACTORY, summary="FRI or FRII: the same in eight orientations"),
    ModelSpec("firstgalaxy-attention", _FACTORY, summary="FRI, FRII, compact or bent: attention gates"),
    ModelSpec("firstgalaxy-forest", _FACTORY, summary="FRI, FRII, compact or bent: a forest on measurements"),
)

DEFAULT = "mirabest-d4"
"""The model that is used when none is named."""
