"""The built-in models, light; kept apart from what reads them."""

from __future__ import annotations

from survey_ml.hookspecs import ModelSpec

_FACTORY = "survey_ml.models.weights:find_weights"

MODELS: tuple[ModelSpec, ...] = (
    ModelSpec("mirabest-attention", _FACTORY, summary="FRI or FRII: attention gates"),
    ModelSpec("mirabest-d4", _FACTORY, summary="FRI or FRII: the same in eight orientations"),
    ModelSpec(
        "mirabest-bayes", _FACTORY, summary="FRI or FRII, with a posterior over all weights: how sure it is"
    ),
    ModelSpec("firstgalaxy-attention", _FACTORY, summary="FRI, FRII, compact or bent: attention gates"),
    ModelSpec("firstgalaxy-d4", _FACTORY, summary="FRI, FRII, compact or bent: four networks at two scales"),
    ModelSpec("firstgalaxy-forest", _FACTORY, summary="FRI, FRII, compact or bent: a forest on measurements"),
    *(
        ModelSpec(
            f"{name}-bayes-by-backprop", _FACTORY, summary=f"How far the classes by {name} can be trusted"
        )
        for name in ("mirabest-attention", "mirabest-d4", "firstgalaxy-attention", "firstgalaxy-d4")
    ),
)

DEFAULT = "mirabest-d4"
"""The model that is used when none is named."""
