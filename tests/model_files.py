"""Untrained models, made from a seed."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from survey_ml.learning.preprocessing import Preprocessing
from survey_ml.models.card import Card
from survey_ml.models.format import save_model

SMALL = {"fields": (2, 3, 4, 4), "side": 48, "reduce": 2}
"""A network small enough to be run often; three fields have one group of normalisation."""


def make_architecture(**changes: Any):
    from survey_ml.learning.networks import Architecture

    return replace(Architecture(2), **{**SMALL, **changes})


def make_network(seed: int = 0, **changes: Any):
    """Return a network whose biases and scales are not those that it begins with, either."""
    import torch

    from survey_ml.learning.networks import AttentionNetwork

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AttentionNetwork(make_architecture(**changes)).eval()
        with torch.no_grad():
            for name, value in network.named_parameters():
                if name.endswith(("bias", "scale", "offset")):
                    value += 0.3 * torch.randn_like(value)
                if name.startswith("heads"):
                    value *= 3.0
    return network


def make_card(architecture: Any = None, **changes: Any) -> Card:
    values: dict[str, Any] = {
        "name": "trial",
        "classes": ("FRI", "FRII"),
        "kind": "attention",
        "architecture": asdict(architecture or make_architecture()),
        "preprocessing": Preprocessing(side=50),
    }
    return Card(**{**values, **changes})


def write_model(
    path: Path, *, group: str = "C1", seed: int = 0, card: dict[str, Any] | None = None, **changes
):
    """Write an untrained model and return its path."""
    network = make_network(seed, group=group, **changes)
    claim = group if group != "C1" else ""
    save_model(path, network, make_card(network.architecture, invariant_under=claim, **(card or {})))
    return path


def write_forest(path: Path, seed: int = 0) -> Path:
    """Write a forest grown on images of random labels and return its path."""
    from survey_ml.learning.forest import grow_forest
    from survey_ml.learning.measurements import NAMES, measure_images
    from survey_ml.models.trial import make_images

    features = measure_images(make_images(60, 50, seed))
    labels = (features[:, NAMES.index("n_peaks")] > 1).astype(np.int64)
    labels ^= np.random.default_rng(seed).random(60) < 0.1
    forest = grow_forest(features, labels, seed=seed, n_trees=15)
    architecture = {
        "n_classes": 2,
        "measurements": list(NAMES),
        "n_trees": len(forest.start),
        "n_nodes": len(forest.feature),
    }
    card = make_card(name="forest", kind="forest", invariant_under="D4").model_copy(
        update={"architecture": architecture}
    )
    save_model(path, forest, card)
    return path
