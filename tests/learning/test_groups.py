"""Groups against their laws, and filters against what turning a picture does."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.errors import ConfigError
from survey_ml.learning.groups import make_basis, parse_group

NAMES = ("C1", "C4", "C8", "C16", "D1", "D4", "D8", "D16")


@pytest.mark.parametrize("name", NAMES)
def test_quotients_are_those_of_the_matrices(name):
    group = parse_group(name)
    assert group.name == name
    assert group.order == int(name[1:]) * (2 if name[0] == "D" else 1)
    assert np.allclose(group.matrices[0], np.eye(2))
    for g in range(group.order):
        found = group.matrices[g] @ group.matrices[group.quotients[g]]
        assert np.allclose(found, group.matrices, atol=1e-12)
        assert sorted(group.quotients[g]) == list(range(group.order))


@pytest.mark.parametrize("name", ["", "C", "C0", "E4", "D99", "C4 ", "c4"])
def test_what_is_no_group(name):
    with pytest.raises(ConfigError, match="there is no group"):
        parse_group(name)


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("name", NAMES)
def test_turns_by_90_degrees_move_pixels_onto_pixels(name, size):
    group = parse_group(name)
    basis = make_basis(group, size)
    assert basis.shape[0] == group.order and basis.shape[2:] == (size, size)
    for g, matrix in enumerate(group.matrices):
        if np.abs(matrix - np.rint(matrix)).max() > 1e-9:
            continue
        turned = basis[0]
        if np.linalg.det(matrix) < 0:
            turned, matrix = turned[..., ::-1], matrix @ np.diag([-1.0, 1.0])
        # Rows grow along y: a turn from x to y is one from columns to rows.
        quarter = round(np.arctan2(matrix[1, 0], matrix[0, 0]) / (0.5 * np.pi)) % 4
        assert np.allclose(np.rot90(turned, -quarter, (1, 2)), basis[g], atol=1e-12)


def test_circular_harmonics_turn_into_each_other():
    # A turned cos(m phi) is a sum of the cos and the sin that were not turned, at every pixel.
    group = parse_group("C8")
    basis = make_basis(group, 5)
    flat = basis[0].reshape(len(basis[0]), -1).T
    for g in range(group.order):
        target = basis[g].reshape(len(basis[g]), -1).T
        weights = np.linalg.lstsq(flat, target, rcond=None)[0]
        assert np.abs(flat @ weights - target).max() < 1e-9


def test_an_even_filter_has_no_middle():
    with pytest.raises(ConfigError, match="no middle"):
        make_basis(parse_group("C4"), 4)
