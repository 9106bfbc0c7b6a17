"""Split labelled images so that no source, seen twice, is on both sides; and find what leaks.

Sources within a radius of each other, directly or through others, are one group (friends of friends)
and are never parted: two surveys or two catalogues give the same galaxy positions that differ by arcseconds,
and the components of one galaxy lie within its extent.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from survey_ml.errors import SurveyMLError

RADIUS = 30.0
"""arcsec; sources nearer than this are taken for one. The median MiraBest source is 37 arcsec large."""

_ARCSEC = np.pi / 180.0 / 3600.0
_CHUNK = 192
"""Images whose products are formed at once: 192 of 300 x 300 pixels take 70 MB."""


def find_neighbours(
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    ra2: NDArray[np.float64],
    dec2: NDArray[np.float64],
    arcsec: float = RADIUS,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the pairs of two lists that lie within a radius on the sky.

    Parameters
    ----------
    ra, dec : (n,) array of float64
        deg; NaN has no neighbours.
    ra2, dec2 : (m,) array of float64
        The other list.
    arcsec : float
        Radius, inclusive.

    Returns
    -------
    pairs : (k, 2) array of int64
        Numbers in the first and in the second list, in that order.
    separations : (k,) array of float64
        arcsec.
    """
    known, known2 = _find_known(ra, dec), _find_known(ra2, dec2)
    none = np.empty((0, 2), np.int64), np.empty(0)
    if not (known.size and known2.size):
        return none
    here, there = _point(ra[known], dec[known]), _point(ra2[known2], dec2[known2])
    found = cKDTree(here).query_ball_tree(cKDTree(there), _find_chord(arcsec))
    first = np.repeat(np.arange(len(found)), [len(row) for row in found])
    second = np.array([j for row in found for j in sorted(row)], np.int64)
    if not second.size:
        return none
    chords = np.linalg.norm(here[first] - there[second], axis=1)
    pairs = np.stack([known[first], known2[second]], axis=1)
    return pairs, 2.0 * np.arcsin(0.5 * chords) / _ARCSEC


def group_by_sky(
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    radius_arcsec: float = RADIUS,
    names: NDArray[np.str_] | None = None,
) -> NDArray[np.int64]:
    """Find the groups of sources that hang together within a radius.

    Parameters
    ----------
    ra, dec : (n,) array of float64
        deg; a source without a position is grouped by its name.
    radius_arcsec : float
        Friends are at most this far apart.
    names : (n,) array of str, optional
        Sources without a position and of the same name are one group; without names each is its own.

    Returns
    -------
    (n,) array of int64
        From 0, without gaps.
    """
    n = len(ra)
    if not n:
        return np.empty(0, np.int64)
    known = _find_known(ra, dec)
    links = np.empty((0, 2), np.int64)
    if known.size:
        tree = cKDTree(_point(ra[known], dec[known]))
        links = known[tree.query_pairs(_find_chord(radius_arcsec), output_type="ndarray")]
    if names is not None:
        lost = np.setdiff1d(np.arange(n), known)
        _, first, same = np.unique(names[lost], return_index=True, return_inverse=True)
        links = np.concatenate([links, np.stack([lost, lost[first[same]]], axis=1)])
    graph = coo_array((np.ones(len(links), np.int8), (links[:, 0], links[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def split_by_sky(
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    shares: Mapping[str, float],
    seed: int,
    radius_arcsec: float = RADIUS,
    *,
    labels: NDArray[np.int64] | None = None,
    names: NDArray[np.str_] | None = None,
) -> NDArray[np.str_]:
    """Split sources by position, with every class shared out alike.

    Parameters
    ----------
    ra, dec : (n,) array of float64
        deg; NaN where not known.
    shares : mapping
        Name of each part to its share; the shares sum to one. Such as ``{"train": 0.8, "valid": 0.2}``.
    seed : int
        Another seed gives another split.
    radius_arcsec : float
        Sources nearer than this, directly or through others, are never parted.
    labels : (n,) array of int64, optional
        Classes to share out alike; groups are not divided for it.
    names : (n,) array of str, optional
        Groups sources without a position.

    Returns
    -------
    (n,) array of str
        Name of the part of each source.

    Raises
    ------
    SurveyMLError
        When the shares are not, or a part would be empty.
    """
    parts, values = tuple(shares), np.array(list(shares.values()), np.float64)
    if not parts or not np.isfinite(values).all() or (values <= 0).any() or abs(values.sum() - 1.0) > 1e-6:
        raise SurveyMLError(
            f"the shares {dict(shares)} are not positive numbers that sum to one",
            "give such as train 0.8, valid 0.2",
        )
    groups = group_by_sky(ra, dec, radius_arcsec, names)
    chosen = _share_out(groups, labels, values, seed)
    empty = [part for k, part in enumerate(parts) if not (chosen == k).any()]
    if empty:
        raise SurveyMLError(
            f"{len(groups)} sources in {len(np.unique(groups))} places on the sky leave none for {empty[0]}",
            "give more images, a larger share, or a smaller radius",
        )
    return np.array(parts, dtype=np.str_)[chosen]


def fold_by_sky(
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    k: int,
    seed: int,
    radius_arcsec: float = RADIUS,
    *,
    labels: NDArray[np.int64] | None = None,
    names: NDArray[np.str_] | None = None,
) -> NDArray[np.int64]:
    """Divide sources into the folds of a cross-validation, by position as `split_by_sky` does.

    Returns
    -------
    (n,) array of int64
        From 0 to ``k - 1``: the fold in which a source is held out.

    Raises
    ------
    SurveyMLError
        When there are fewer than two folds, or fewer groups of sources than folds.
    """
    if k < 2:
        raise SurveyMLError(f"{k} folds leave nothing to train on", "give two or more")
    parts = {str(fold): 1.0 / k for fold in range(k)}
    found = split_by_sky(ra, dec, parts, seed, radius_arcsec, labels=labels, names=names)
    return found.astype(np.int64)


def find_near_duplicates(
    images: NDArray, others: NDArray | None = None, correlation: float = 0.98
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the pairs of images whose pixels correlate.

    Parameters
    ----------
    images : (n, y, x) array
        Without NaN; an image of one value correlates with nothing.
    others : (m, y, x) array, optional
        The same size; the images themselves, each pair once, when not given.
    correlation : float
        Least Pearson correlation of the pixels.

    Returns
    -------
    pairs : (k, 2) array of int64
        Numbers in the first and in the second set.
    correlations : (k,) array of float32

    Raises
    ------
    SurveyMLError
        When the two sets have images of different sizes.
    """
    second = images if others is None else others
    _check_sizes(images, second)
    pairs: list[NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    values: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
    for start in range(0, len(images), _CHUNK):
        here = _normalise(images[start : start + _CHUNK])
        for start2 in range(0 if others is not None else start, len(second), _CHUNK):
            same = others is None and start2 == start
            product = here @ (here if same else _normalise(second[start2 : start2 + _CHUNK])).T
            near = product >= correlation
            found = np.argwhere(np.triu(near, 1) if same else near)
            pairs.append(found + np.array([start, start2]))
            values.append(product[found[:, 0], found[:, 1]])
    joined = np.concatenate(pairs)
    order = np.lexsort(joined.T[::-1])
    return joined[order], np.concatenate(values)[order]


def find_most_similar(
    images: NDArray, references: NDArray, smoothing: float = 1.5
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the reference that looks most like each image: the same source, where there is one.

    For images without a position. Smoothing forgives shifts by a fraction of a pixel and other clips.
    Measured between MiraBest and firstgalaxydata, whose positions tell the truth: of 814 sources that both
    have, 723 are found.

    Parameters
    ----------
    images : (n, y, x) array
        Without NaN.
    references : (m, y, x) array
        The same pixels on the sky; at least one.
    smoothing : float
        Standard deviation of the Gaussian in pixels.

    Returns
    -------
    indices : (n,) array of int64
        Of the references.
    correlations : (n,) array of float32
        Pearson's, of the smoothed pixels.

    Raises
    ------
    SurveyMLError
        When the two sets have images of different sizes, or there is no reference.
    """
    _check_sizes(images, references)
    if not len(references):
        raise SurveyMLError("there is no reference to compare images with", "give at least one")
    best = np.full(len(images), -np.inf, np.float32)
    indices = np.zeros(len(images), np.int64)
    for start2 in range(0, len(references), _CHUNK):
        there = _normalise(_smooth(references[start2 : start2 + _CHUNK], smoothing))
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            product = _normalise(_smooth(images[part], smoothing)) @ there.T
            nearest = product.argmax(axis=1)
            value = product[np.arange(len(nearest)), nearest]
            indices[part] = np.where(value > best[part], nearest + start2, indices[part])
            best[part] = np.maximum(best[part], value)
    return indices, best


def _smooth(images: NDArray, sigma: float) -> NDArray[np.float32]:
    return np.asarray(gaussian_filter(images.astype(np.float32), (0.0, sigma, sigma)))


def _check_sizes(images: NDArray, others: NDArray) -> None:
    if images.shape[1:] != others.shape[1:]:
        raise SurveyMLError(
            f"images of {images.shape[1:]} and {others.shape[1:]} pixels cannot be compared",
            "cut or resample them to one size",
        )


def _find_known(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))


def _point(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return unit vectors (n, 3): distances between them have no seam at 0 h and no poles."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)


def _find_chord(arcsec: float) -> float:
    return float(2.0 * np.sin(0.5 * min(arcsec * _ARCSEC, np.pi)))


def _normalise(images: NDArray) -> NDArray[np.float32]:
    """Return rows (n, pixels) of mean zero and length one, or zero where an image is constant."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows /= np.where(length > 0, length, 1.0)[:, None].astype(np.float32)
    return rows


def _share_out(
    groups: NDArray[np.int64], labels: NDArray[np.int64] | None, shares: NDArray[np.float64], seed: int
) -> NDArray[np.int64]:
    """Hand out groups, the largest first, to the part that is farthest from its share.

    What counts is how full a part is of each class in the group and of sources altogether, after half of the
    group is added: for groups of one this is the rule of Sainte-Lague, which keeps all parts in proportion.
    """
    n_groups = int(groups.max(initial=-1)) + 1
    kinds = np.zeros(len(groups), np.int64) if labels is None else np.unique(labels, return_inverse=True)[1]
    members = np.zeros((n_groups, int(kinds.max(initial=-1)) + 2))
    np.add.at(members, (groups, kinds), 1.0)
    members[:, -1] = members.sum(axis=1)
    wanted = shares[:, None] * members.sum(axis=0)
    filled = np.zeros_like(wanted)
    chosen = np.zeros(n_groups, np.int64)
    order = np.random.default_rng(seed).permutation(n_groups)
    for group in order[np.argsort(-members[order, -1], kind="stable")]:
        row = members[group]
        part = int(np.argmin(((filled + 0.5 * row) / wanted) @ row))
        filled[part] += row
        chosen[group] = part
    return chosen[groups]
