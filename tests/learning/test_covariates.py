"""Quantities of images against made ones, and which is named as the cause."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml.learning.covariates import (
    NAMES,
    adjust_holm,
    compare_covariates,
    measure_beam,
    measure_covariates,
    name_cause,
)


def make_image(fwhm, places=((30.0, 30.0),), side=64):
    y, x = np.mgrid[:side, :side]
    sigma = fwhm / 2.3548
    return sum(np.exp(-0.5 * ((y - a) ** 2 + (x - b) ** 2) / sigma**2) for a, b in places)


@pytest.mark.parametrize("fwhm", [2.5, 4.0, 10.0, 25.0])
@pytest.mark.parametrize("place", [(30.0, 30.0), (30.4, 30.3)])
def test_the_beam_of_a_point_is_its_width(fwhm, place):
    assert measure_beam(make_image(fwhm, [place])) == pytest.approx(fwhm, rel=0.02)


def test_the_beam_is_that_of_the_sharpest_peak():
    image = make_image(12.0, [(20.0, 20.0)]) + 0.5 * make_image(3.0, [(48.0, 48.0)])
    assert measure_beam(image) == pytest.approx(3.0, rel=0.05)


def test_images_are_measured():
    image = make_image(4.0)
    image[image < 0.06] = 0.0
    image[3, 60] = 0.07
    found = measure_covariates(np.stack([image, np.zeros_like(image)]).astype(np.float32), 3.0)
    assert found["beam"][0] == pytest.approx(4.0, rel=0.02)
    assert found["signal_to_noise"][0] == pytest.approx(3.0 / image[image > 0].min(), rel=1e-5)
    assert found["size"][0] == pytest.approx(np.hypot(*(np.ptp(np.nonzero(image >= 0.2), axis=1) + 1)))
    assert all(np.isnan(found[name][1]) for name in found)
    subtracted = measure_covariates(image[None].astype(np.float32), 3.0, subtracted=True)
    assert np.isnan(subtracted["signal_to_noise"]).all()


def test_another_beam_is_named_before_what_follows_from_it():
    rng = np.random.default_rng(0)
    one = {"beam": rng.normal(3, 0.2, 80), "size": rng.normal(30, 8, 80)}
    other = {"beam": rng.normal(25, 2.0, 60), "size": rng.normal(70, 8, 60)}
    found = compare_covariates(one, other, 0.01)
    assert list(found) == ["beam", "size"]
    assert found["beam"].shifted and found["size"].shifted and found["beam"].n == 60
    assert found["beam"].reference == pytest.approx(3.0, abs=0.1)
    assert name_cause(found) == "beam"
    only = compare_covariates({"size": one["size"]}, {"size": other["size"]}, 0.01)
    assert name_cause(only) == "size"


def test_alike_is_not_named_and_small_is_no_cause():
    rng = np.random.default_rng(0)
    named = 0
    for _ in range(200):
        one, other = ({name: rng.lognormal(1.0, 0.5, 60) for name in NAMES} for _ in range(2))
        named += name_cause(compare_covariates(one, other, 0.05)) != ""
    assert named <= 200 * 0.05 + 4.0 * np.sqrt(200 * 0.05)
    wide = compare_covariates(
        {"beam": rng.normal(3.0, 0.01, 500)}, {"beam": rng.normal(3.1, 0.01, 500)}, 0.01
    )
    assert wide["beam"].p_value < 1e-6 and not wide["beam"].shifted


def test_a_beam_that_is_the_same_for_all_images():
    three, six = np.full(30, 3.0), np.full(30, 6.0)
    assert not compare_covariates({"beam": three}, {"beam": three}, 0.01)["beam"].shifted
    assert compare_covariates({"beam": three}, {"beam": six}, 0.01)["beam"].shifted


def test_what_is_not_known_is_left_out():
    values = np.r_[np.full(20, np.nan), np.ones(5)]
    assert compare_covariates({"beam": values}, {"beam": values}, 0.01) == {}
    assert compare_covariates({"beam": np.ones(9)}, {"rms": np.ones(9)}, 0.01) == {}


def test_holm_by_hand():
    found = adjust_holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})


def test_sizes_are_compared_in_the_same_mix_of_classes_and_beams_as_they_are():
    rng = np.random.default_rng(3)
    # Half of the reference is small, most of the sample.
    large = np.arange(200) >= 100
    reference = {"size": np.where(large, 40.0, 8.0) + rng.normal(size=200), "beam": np.where(large, 4.0, 3.0)}
    small = rng.random(80) < 0.85
    sample = {"size": np.where(small, 8.0, 40.0) + rng.normal(size=80), "beam": np.full(80, 6.0)}
    plain = compare_covariates(reference, sample, 0.01)
    assert plain["size"].shifted and plain["beam"].shifted
    matched = np.concatenate([np.arange(100), np.arange(100, 118)])
    found = compare_covariates(reference, sample, 0.01, matched)
    assert not found["size"].shifted and found["size"].p_value > 0.05
    assert found["beam"].shifted and found["beam"].reference == pytest.approx(plain["beam"].reference)
    larger = compare_covariates(reference, {"size": sample["size"] * 1.6}, 0.01, matched)
    assert larger["size"].shifted
