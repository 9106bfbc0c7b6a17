"""What trained Bayesian networks lose when weights are taken out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from survey_ml.labelled import LabelledImages
from survey_ml.learning.networks import Architecture
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.papers.posterior_trials import PosteriorTrial, sample_logits
from survey_ml.papers.trials import SIDE

SHARES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Of the weights of fully connected layers that are taken out."""
ALLOWED = 0.005
"""Rise of the error that counts as none: one image in two hundred."""


@dataclass(frozen=True)
class Curves:
    """Errors of networks after pruning by one ranking.

    Attributes
    ----------
    valid : mapping
        Share to the validation error of each network.
    trials : tuple of PosteriorTrial
        Before pruning.
    pruned : mapping
        Share to the networks after it.
    """

    valid: Mapping[float, list[float]]
    trials: tuple[PosteriorTrial, ...]
    pruned: Mapping[float, list[PosteriorTrial]]


def prune_trials(
    architecture: Architecture,
    trials: list[PosteriorTrial],
    train: LabelledImages,
    sets: Mapping[str, LabelledImages],
    shares: Sequence[float] = SHARES,
) -> dict[str, Curves]:
    """Take weights out of all networks by each ranking, and look at validation and test images again.

    Parameters
    ----------
    architecture : Architecture
    trials : list of PosteriorTrial
    train : LabelledImages
        What the Fisher information is measured on.
    sets : mapping
        Of which ``valid`` and ``Confident`` are looked at.
    shares : sequence of float
        That are taken out; the first is 0.
    """
    import torch

    from survey_ml.learning.baselines import make_lenet
    from survey_ml.learning.pruning import (
        list_dense,
        measure_information,
        prune_weights,
        rank_by_information,
    )
    from survey_ml.learning.variational import measure_signal

    looked = {name: sets[name] for name in ("valid", "Confident")}
    images = prepare_images(train, SIDE)
    found: dict[str, Curves] = {}
    for by in ("snr", "fisher"):
        pruned: dict[float, list[PosteriorTrial]] = {share: [] for share in shares}
        for trial in trials:
            means = {name: torch.from_numpy(value) for name, value in trial.means.items()}
            scales = {name: torch.from_numpy(value) for name, value in trial.scales.items()}
            network = make_lenet(architecture)
            network.load_state_dict(means)
            dense = list_dense(network)
            if by == "snr":
                ranks = measure_signal(means, {name: scales[name] for name in dense})
            else:
                ranks = rank_by_information(measure_information(network, images, train.labels, dense), means)
            for share in shares:
                new_means, new_scales, _ = prune_weights(means, scales, ranks, share)
                size = len(trial.samples["valid"])
                samples = {
                    name: sample_logits(architecture, new_means, new_scales, data, size)
                    for name, data in looked.items()
                }
                pruned[share].append(replace(trial, samples={**trial.samples, **samples}))
        valid = {
            share: [float(one.find_errors("valid", sets["valid"].labels).mean()) for one in each]
            for share, each in pruned.items()
        }
        found[by] = Curves(valid, tuple(trials), pruned)
    return found


def find_most(curves: Curves) -> float:
    """Return the largest share without which the mean validation error rises by at most `ALLOWED`."""
    before = np.mean(curves.valid[0.0])
    return max(share for share, errors in curves.valid.items() if np.mean(errors) <= before + ALLOWED)
