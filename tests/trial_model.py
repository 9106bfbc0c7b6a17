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
    from survey_ml.models.trial import make_images

    architecture = Architecture(len(classes), "D4", (2, 3, 4, 4), side=48)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AttentionNetwork(architecture).eval()
        with torch.no_grad():
            for value in network.parameters():
                value += 0.3 * torch.randn_like(value)
            # Classes that differ between sources: logits of zero mean and a scatter of two.
            head = network.heads.joint
            logits = network(torch.from_numpy(make_images(40, 50, seed))[:, None])[0]
            head.weight *= 2.0 / logits.std(dim=0)[:, None]
            head.bias -= network(torch.from_numpy(make_images(40, 50, seed))[:, None])[0].mean(dim=0)
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
