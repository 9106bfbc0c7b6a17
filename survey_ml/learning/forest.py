"""A random forest as arrays: grown by scikit-learn, kept and evaluated without it.

Source: Breiman 2001. A pickled forest runs code and breaks with the next version of its library; these
arrays do neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import InputError, SurveyMLError


@dataclass(frozen=True)
class Forest:
    """The nodes of all trees, one tree after the other, each from its root on.

    Attributes
    ----------
    start : (n_trees,) ndarray of int32
        Node that is the root of each tree.
    feature : (n_nodes,) ndarray of int32
        Number of the measurement that a node looks at; -1 for a leaf.
    threshold : (n_nodes,) ndarray of float64
        A value of at most this goes left.
    left, right : (n_nodes,) ndarray of int32
        Nodes that follow, with larger numbers than this; -1 for a leaf.
    value : (n_nodes, n_classes) ndarray of float64
        Share of each class among the training images of a node.
    """

    start: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float64]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], n_features: int) -> Forest:
        """Take arrays of unknown origin, of the right dtypes and shapes, as a forest.

        Raises
        ------
        InputError
            When a node leads nowhere, back, or out of its tree, or shares are none.
        """
        forest = cls(**{item.name: arrays[item.name] for item in fields(cls)})
        fault = _find_fault(forest, n_features)
        if fault:
            raise InputError(f"the forest is damaged: {fault}", "get the file again")
        return forest


def grow_forest(
    features: NDArray[np.float32], labels: NDArray[np.int64], *, seed: int, n_trees: int = 300, **options: Any
) -> Forest:
    """Grow a forest on measurements.

    Parameters
    ----------
    features : (n, n_features) ndarray
    labels : (n,) ndarray
        Numbers of classes from 0 on; each class must be there.
    seed : int
    n_trees : int
    **options
        Of scikit-learn's ``RandomForestClassifier``.

    Raises
    ------
    SurveyMLError
        When a class has no image.
    """
    from sklearn.ensemble import RandomForestClassifier

    found = np.unique(labels)
    if len(found) < 2 or not np.array_equal(found, np.arange(len(found))):
        raise SurveyMLError(
            f"a forest needs images of every class, from 0 on; there are {found.tolist()}",
            "leave classes without images out",
        )
    grown = RandomForestClassifier(n_estimators=n_trees, random_state=seed, **options)
    grown.fit(features, labels)
    return export_forest(grown)


def export_forest(grown: Any) -> Forest:
    """Return the arrays of a fitted scikit-learn ``RandomForestClassifier``."""
    trees = [estimator.tree_ for estimator in grown.estimators_]
    counts = np.array([tree.node_count for tree in trees])
    start = np.concatenate([[0], np.cumsum(counts)[:-1]])

    def join(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree, name) for tree in trees])

    leaf = join("children_left") < 0
    move = np.repeat(start, counts)
    value = np.concatenate([tree.value[:, 0, :] for tree in trees]).astype(np.float64)
    return Forest(
        start=start.astype(np.int32),
        feature=np.where(leaf, -1, join("feature")).astype(np.int32),
        threshold=np.where(leaf, 0.0, join("threshold")),
        left=np.where(leaf, -1, join("children_left") + move).astype(np.int32),
        right=np.where(leaf, -1, join("children_right") + move).astype(np.int32),
        value=value / value.sum(axis=1, keepdims=True),
    )


def evaluate_forest(forest: Forest, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probability of every class: the mean over the trees of the shares in the leaf reached.

    Parameters
    ----------
    forest : Forest
    features : (n, n_features) ndarray of float32

    Returns
    -------
    (n, n_classes) ndarray
        The same as scikit-learn's to rounding; a row does not depend on the others.
    """
    values = np.asarray(features, np.float32)
    node = np.repeat(forest.start[None, :], len(values), axis=0)
    row = np.arange(len(values))[:, None]
    while True:
        feature = forest.feature[node]
        inner = feature >= 0
        if not inner.any():
            break
        goes_left = values[row, np.maximum(feature, 0)] <= forest.threshold[node]
        node = np.where(inner, np.where(goes_left, forest.left[node], forest.right[node]), node)
    total = np.zeros((len(values), forest.value.shape[1]))
    for tree in range(node.shape[1]):  # one after the other, so that the order of the sum is fixed
        total += forest.value[node[:, tree]]
    return total / max(node.shape[1], 1)


def _find_fault(forest: Forest, n_features: int) -> str:
    n_nodes, number = len(forest.feature), np.arange(len(forest.feature))
    inner = forest.feature >= 0
    start = forest.start
    if not len(start) or start[0] != 0 or (np.diff(start) <= 0).any() or start[-1] >= n_nodes:
        return "its trees do not follow one another"
    end = np.append(start[1:], n_nodes)[np.searchsorted(start, number, side="right") - 1]
    for name, follow in (("left", forest.left), ("right", forest.right)):
        # What follows has a larger number, so that every way ends.
        if (inner & ((follow <= number) | (follow >= end))).any():
            return f"a node leads {name} to one that is not below it"
    if (forest.feature >= n_features).any() or (forest.feature < -1).any():
        return "a node looks at a measurement that there is not"
    if not np.isfinite(forest.threshold).all() or not np.isfinite(forest.value).all():
        return "it holds values that are not finite"
    if (forest.value < 0.0).any() or (np.abs(forest.value.sum(axis=1) - 1.0) > 1e-6).any():
        return "the shares of a node do not add up to one"
    return ""
