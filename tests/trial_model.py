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


def write_bayesian(path: Path, *, seed: int = 0, classes=("FRI", "FRII", "compact", "bent")) -> Path:
    """Write a small LeNet with Gaussians over its weights, untrained, that sees 50 px; return its path."""
    import torch

    from survey_ml.learning.baselines import make_lenet
    from survey_ml.learning.networks import Architecture
    from survey_ml.learning.preprocessing import Preprocessing
    from survey_ml.learning.variational import VariationalNetwork
    from survey_ml.models.card import Card, Posterior
    from survey_ml.models.format import save_model
    from survey_ml.models.posterior_fitting import Trained
    from survey_ml.models.trial import make_images
    from survey_ml.models.weight_fitting import calibrate_posterior, collect_arrays

    architecture = Architecture(len(classes), side=48, dropout=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make_lenet(architecture).eval()
        with torch.no_grad():
            logits = network(torch.from_numpy(make_images(40, 50, seed))[:, None])[0]
            network.head.weight *= 3.0 / logits.std(dim=0)[:, None]
            network.head.bias -= network(torch.from_numpy(make_images(40, 50, seed))[:, None])[0].mean(dim=0)
        wide = VariationalNetwork(network)
        with torch.no_grad():
            for log in wide.log_scales:
                log -= 3.0  # what is made of a source stays near what the means make of it
        arrays = collect_arrays([wide])
    card = Card(
        name="bayes",
        classes=classes,
        kind="lenet",
        architecture=asdict(architecture),
        preprocessing=Preprocessing(side=50),
        posterior=Posterior(method="bayes-by-backprop", prior_scale=0.1),
    )
    save_model(path, arrays, card)
    data = draw_labelled(path, 160)
    train, held = data.take(slice(0, 80)), data.take(slice(80, 160))
    calibration, known = calibrate_posterior(path, train, [Trained(path, train, held)], "drawn")
    save_model(path, arrays | known, card.model_copy(update={"calibration": calibration}))
    return path


def draw_labelled(base: Path, n: int):
    """Return n images of 50 px with the labels that a model gives them, but for a sixth of them."""
    import numpy as np

    from survey_ml.labelled import LabelledImages
    from survey_ml.models.classifier import load_classifier
    from survey_ml.models.trial import make_images

    classifier = load_classifier(base, "torch")
    images = np.round(make_images(n, 50, 3) * 255).astype(np.uint8)
    labels = classifier.predict(images.astype(np.float32) / 255).logits.argmax(axis=1)
    rng = np.random.default_rng(0)
    n_classes = len(classifier.classes)
    labels = np.where(rng.random(n) < 1 / 6, rng.integers(n_classes, size=n), labels)
    # Each class often enough to calibrate with, in either half.
    for start in (0, n // 2):
        labels[start : start + 8 * n_classes] = np.arange(8 * n_classes) % n_classes
    nowhere = np.full(n, np.nan)
    return LabelledImages(
        images, labels.astype(np.int64), classifier.classes, np.arange(n).astype(np.str_), nowhere, nowhere,
        np.full(n, ""),
    )  # fmt: skip


def write_posterior(base: Path, *, method="laplace", n=160) -> Path:
    """Write a posterior over the last layer of a model of 50 px beside it, and return its path."""
    from survey_ml.models.posterior_fitting import Trained, fit_posterior

    data = draw_labelled(base, 2 * n)
    train, held = data.take(slice(0, n)), data.take(slice(n, 2 * n))
    return fit_posterior(base, train, [Trained(base, train, held)], base.parent, method=method, held="drawn")


def write_reference(base: Path, *, n=160, seed=5, only: int | None = None) -> Path:
    """Write the reference summary of a model of 50 px beside it, of one class or all, and return its path."""
    import numpy as np

    from survey_ml.models.card import Base
    from survey_ml.models.classifier import load_classifier
    from survey_ml.models.reference import SUFFIX, make_reference, save_reference
    from survey_ml.models.shift import describe_images
    from survey_ml.models.trial import make_images

    classifier = load_classifier(base, "torch")
    images = make_images(n, 50, seed)
    labels = classifier.predict(images).probabilities.argmax(axis=1)
    labels = np.where(np.random.default_rng(0).random(n) < 1 / 6, np.arange(n) % 4, labels)
    if only is not None:
        labels = np.full(n, only)
    sources = describe_images(classifier, images, labels=labels)
    model = Base(name=classifier.card.name, hash=classifier.hash)
    made = make_reference(model, sources, classifier.classes, beam=3.0, data="made")
    path = base.with_suffix(SUFFIX)
    save_reference(made, path)
    return path
