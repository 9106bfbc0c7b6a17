"""Finite groups of rotations and reflections of the plane, and filters that they move about.

A group convolution (Cohen & Welling 2016) holds one filter for each element of the group. Here a
filter is a sum of basis functions, and moving it means moving these: pixels for turns by 90 degrees,
which are exact; circular harmonics (Weiler et al. 2018) for finer ones, which the pixel grid can
only sample.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import ConfigError

_NAME = re.compile(r"([CD])([1-9]\d?)")
MOST_TURNS = 32
RING_WIDTH = 0.6
"""Standard deviation in pixels of the rings that circular harmonics live on."""


@dataclass(frozen=True)
class Group:
    """A cyclic group ``C<n>`` of turns, or a dihedral one ``D<n>`` with reflections too.

    Parameters
    ----------
    turns : int
        Turns by 360 / ``turns`` degrees.
    reflected : bool
        Whether each turn comes with a reflection as well.
    """

    turns: int
    reflected: bool = False

    @property
    def order(self) -> int:
        """Number of elements; element ``m * turns + r`` reflects x if m is 1, then turns r times."""
        return self.turns * (2 if self.reflected else 1)

    @property
    def name(self) -> str:
        """Such as ``C4`` or ``D8``."""
        return f"{'D' if self.reflected else 'C'}{self.turns}"

    @property
    def exact(self) -> bool:
        """Whether every element moves pixels onto pixels."""
        return 4 % self.turns == 0

    @cached_property
    def matrices(self) -> NDArray[np.float64]:
        """Each element as a matrix on (x, y); shape (order, 2, 2)."""
        angle = 2.0 * np.pi * np.arange(self.turns) / self.turns
        cosine, sine = np.cos(angle), np.sin(angle)
        turns = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], 1)
        if self.exact:
            turns = np.rint(turns)
        return np.concatenate([turns, turns @ np.diag([-1.0, 1.0])]) if self.reflected else turns

    @cached_property
    def quotients(self) -> NDArray[np.int64]:
        """Number of the element ``g^-1 h`` for every g and h; shape (order, order)."""
        inverse = np.swapaxes(self.matrices, 1, 2)
        product = inverse[:, None] @ self.matrices[None, :]
        distance = np.abs(product[:, :, None] - self.matrices[None, None]).sum(axis=(3, 4))
        return np.asarray(distance.argmin(axis=2))


def parse_group(name: str) -> Group:
    """Return the group of a name such as ``C1``, ``C8`` or ``D4``.

    Raises
    ------
    ConfigError
        For any other name.
    """
    match = _NAME.fullmatch(name)
    if match is None or int(match[2]) > MOST_TURNS:
        raise ConfigError(
            f"there is no group {name!r}", f"use C or D and a number of turns to {MOST_TURNS}, such as D4"
        )
    return Group(int(match[2]), match[1] == "D")


def make_basis(group: Group, size: int) -> NDArray[np.float64]:
    """Return the functions that filters are made of, moved by every element of a group.

    Parameters
    ----------
    group : Group
        Moves the functions.
    size : int
        Odd side of a filter in pixels.

    Returns
    -------
    ndarray
        Shape (order, n, size, size): function n as seen after element g, ``f(g^-1 x)``. Each has
        unit norm before it is moved.

    Notes
    -----
    Circular harmonics: rings of radius 0, 1, ... with a Gaussian profile, times cos and sin of m times
    the angle, m up to what a ring of that many pixels can carry (Weiler, Hamprecht & Storath 2018).
    """
    if size % 2 == 0 or size < 1:
        raise ConfigError(f"a filter of {size} px has no middle pixel", "use an odd size")
    half = size // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    points = np.stack([x, y], -1)
    # The functions are looked up where the inverse takes each pixel.
    moved = np.einsum("gji,yxj->gyxi", group.matrices, points)
    if group.exact:
        column, row = (np.rint(moved[..., k]).astype(int) + half for k in (0, 1))
        number = row * size + column
        return np.stack([(number == n).astype(np.float64) for n in range(size * size)], 1)
    radius, angle = np.hypot(moved[..., 0], moved[..., 1]), np.arctan2(moved[..., 1], moved[..., 0])
    away = radius > 0.5  # the middle pixel has no angle
    functions = []
    for ring in range(half + 1):
        profile = np.exp(-0.5 * ((radius - ring) / RING_WIDTH) ** 2)
        for frequency in range(2 * ring + 1 if ring else 1):
            wave = profile * away if frequency else profile
            functions.append(wave * np.cos(frequency * angle))
            if frequency:
                functions.append(wave * np.sin(frequency * angle))
    basis = np.stack(functions, 1)
    return basis / np.sqrt((basis[:1] ** 2).sum(axis=(2, 3), keepdims=True))
