"""Classes of sources against the kinds that a truth gives, matched by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from survey_ml.morphology_flags import UNRESOLVED
from survey_ml.validation.completeness import Share, measure_share
from survey_ml.validation.match import ARCSEC, make_vectors

COMPACT = "compact"
"""Class of sources that are not resolved, in lower case; not every model has it."""


@dataclass(frozen=True)
class Confusion:
    """How often a kind was given a class.

    Attributes
    ----------
    kinds, classes : tuple of str
        Those of the truth, classes of the model first; those that were given.
    counts : (n_kinds, n_classes + 1) array of int64
        The last column is of sources without a class.
    """

    kinds: tuple[str, ...]
    classes: tuple[str, ...]
    counts: NDArray[np.int64]

    @property
    def accuracy(self) -> Share:
        """Share of the right class among all whose kind is a class of the model."""
        rows = self._comparable()
        right = sum(int(self.counts[i, j]) for i, j in rows)
        total = sum(int(self.counts[i].sum()) for i, _ in rows)
        return measure_share(np.arange(total) < right)

    def recall(self, kind: str) -> Share:
        """Share of the right class among those of one kind; empty where it is no class."""
        for i, j in self._comparable():
            if self.kinds[i] == kind:
                return measure_share(np.arange(int(self.counts[i].sum())) < self.counts[i, j])
        return measure_share([])

    def _comparable(self) -> list[tuple[int, int]]:
        names = [name.casefold() for name in self.classes]
        return [(i, names.index(k.casefold())) for i, k in enumerate(self.kinds) if k.casefold() in names]


def match_objects(
    catalogue: Mapping[str, Any], truth: Mapping[str, Any], *, radius: float | NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find for each true object the source that stands for it.

    That is the brightest within its extent, since a large object may break into several sources. The
    true objects choose in the order of their brightness, and each source is chosen once.

    Parameters
    ----------
    catalogue : mapping
        ``ra``, ``dec`` (deg) and ``total_flux``.
    truth : mapping
        ``ra``, ``dec``; optionally ``total_flux``, and ``extent``, a radius in arcsec.
    radius : float or (n_true,) array
        arcsec, for objects without an extent or with a smaller one.

    Returns
    -------
    rows, objects : (n,) array of int64
        Rows of the catalogue and of the truth that belong together, in the order of the truth.
    """
    ra, dec = np.asarray(truth["ra"], np.float64), np.asarray(truth["dec"], np.float64)
    reach = np.broadcast_to(np.asarray(radius, np.float64), len(ra))
    if "extent" in truth:
        reach = np.fmax(reach, np.asarray(truth["extent"], np.float64))
    flux = np.asarray(catalogue["total_flux"], np.float64)
    if not len(ra) or not len(flux):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    tree = cKDTree(make_vectors(catalogue["ra"], catalogue["dec"]))
    near = tree.query_ball_point(make_vectors(ra, dec), 2.0 * np.sin(0.5 * reach / ARCSEC))
    bright = np.asarray(truth.get("total_flux", np.zeros(len(ra))), np.float64)
    taken: set[int] = set()
    pairs = []
    for k in np.argsort(-np.nan_to_num(bright), kind="stable"):
        free = [row for row in near[k] if row not in taken]
        if free:
            row = max(free, key=lambda i: (np.nan_to_num(flux[i]), -i))
            taken.add(row)
            pairs.append((int(k), row))
    objects, rows = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    return rows, objects


def count_labels(labels: ArrayLike, kinds: ArrayLike, classes: Sequence[str]) -> Confusion:
    """Count classes by kind.

    Parameters
    ----------
    labels : (n,) array of str
        Class given to each; empty where there is none.
    kinds : (n,) array of str
        What each is; upper and lower case are the same.
    classes : sequence of str
        Of the model.
    """
    given, true = np.asarray(labels, dtype=np.str_), np.asarray(kinds, dtype=np.str_)
    names = {name.casefold(): name for name in classes}
    true = np.array([names.get(kind.casefold(), kind) for kind in true.tolist()], dtype=np.str_)
    found = set(true.tolist())
    shown = [name for name in classes if name in found] + sorted(found - set(classes))
    counts = [[int(((true == kind) & (given == name)).sum()) for name in (*classes, "")] for kind in shown]
    table = np.array(counts, np.int64).reshape(len(shown), len(classes) + 1)
    return Confusion(tuple(shown), tuple(classes), table)


def find_doubtful(found: NDArray[np.integer], labels: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Tell which classes an image cannot vouch for.

    Those with any flag; but an unresolved source that is called compact is what it is called.

    Parameters
    ----------
    found : (n,) array of int
        ``morph_flags``.
    labels : (n,) array of str
        ``morph_class``.
    """
    compact = np.char.lower(np.asarray(labels, np.str_)) == COMPACT
    return np.where(compact, np.asarray(found) & ~UNRESOLVED, found) != 0
