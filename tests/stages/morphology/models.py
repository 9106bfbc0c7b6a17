"""Untrained models, made from a seed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path


def write_model(path: Path, *, seed: int = 0, classes=("FRI", "FRII", "compact", "bent"), name="trial"):
    """Write a small attention network over D4 that sees 50 px of 1.8 arcsec; return its path."""
    import torch

    from survey_ml.learning.networks import Architecture, AttentionNetwork
    from survey_ml.learning.preprocessing import Preprocessing
    from survey_ml.models.card import Card
    from survey_ml.models.format import save_model

    architecture = Architecture(len(classes), "D4", (2, 3, 4, 4), side=48)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AttentionNetwork(architecture).eval()
        with torch.no_grad():
            for key, value in network.named_parameters():
                value += 0.3 * torch.randn_like(value)
                if key.startswith("heads"):
                    value *= 4.0
    card = Card(
        name=name,
        classes=classes,
        kind="attention",
        architecture=asdict(architecture),
        preprocessing=Preprocessing(side=50),
        invariant_under="D4",
    )
    save_model(path, network, card)
    return path
