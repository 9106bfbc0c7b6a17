"""What a shift monitor is told of a set of sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Sources:
    """What is known of a set of n sources.

    Attributes
    ----------
    embedding : (n, d) ndarray
    probabilities : (n, n_classes) ndarray
    labels : (n,) ndarray of int, or None
        True classes.
    covariates : mapping
        `survey_ml.learning.covariates`, (n,) each.
    """

    embedding: NDArray[np.floating]
    probabilities: NDArray[np.floating]
    labels: NDArray[np.integer] | None = None
    covariates: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.embedding)

    def take(self, chosen: NDArray) -> Sources:
        """Return the sources of an index or a mask (n,)."""
        return Sources(
            self.embedding[chosen],
            self.probabilities[chosen],
            None if self.labels is None else self.labels[chosen],
            {name: values[chosen] for name, values in self.covariates.items()},
        )


def join_sources(parts: Sequence[Sources]) -> Sources:
    """Return the sources of several sets behind each other; what not all know is not known."""
    names = [name for name in parts[0].covariates if all(name in part.covariates for part in parts)]
    labels = [part.labels for part in parts if part.labels is not None]
    return Sources(
        np.concatenate([part.embedding for part in parts]),
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate(labels) if len(labels) == len(parts) else None,
        {name: np.concatenate([part.covariates[name] for part in parts]) for name in names},
    )
