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


def write_posterior(base: Path, *, method="laplace", n=160) -> Path:
    """Write a posterior over the last layer of a model of 50 px beside it, and return its path.

    The labels are what the model says, but for a sixth of them.
    """
    import numpy as np

    from survey_ml.labelled import LabelledImages
    from survey_ml.models.classifier import load_classifier
    from survey_ml.models.posterior_fitting import Trained, fit_posterior
    from survey_ml.models.trial import make_images

    classifier = load_classifier(base, "torch")
    images = np.round(make_images(2 * n, 50, 3) * 255).astype(np.uint8)
    labels = classifier.predict(images.astype(np.float32) / 255).logits.argmax(axis=1)
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(2 * n) < 1 / 6, rng.integers(len(classifier.classes), size=2 * n), labels)
    # Each class often enough to calibrate with.
    labels[: 8 * len(classifier.classes)] = np.arange(8 * len(classifier.classes)) % len(classifier.classes)
    labels[n : n + 8 * len(classifier.classes)] = labels[: 8 * len(classifier.classes)]
    nowhere = np.full(2 * n, np.nan)
    data = LabelledImages(
        images, labels.astype(np.int64), classifier.classes, np.arange(2 * n).astype(np.str_), nowhere,
        nowhere, np.full(2 * n, ""),
    )  # fmt: skip
    train, held = data.take(slice(0, n)), data.take(slice(n, 2 * n))
    return fit_posterior(base, train, [Trained(base, train, held)], base.parent, method=method, held="drawn")
