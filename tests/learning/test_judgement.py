"""What is said of a source follows from its own samples, and from the held-out images."""

from __future__ import annotations

import numpy as np
import pytest

from survey_ml import uncertainty_flags as flags
from survey_ml.errors import SurveyMLError
from survey_ml.learning.calibration import Calibrator
from survey_ml.learning.judgement import HeldOut, Standard, describe_judgement, judge_samples, name_sets
from survey_ml.learning.outliers import fit_gaussians, measure_distances

SAME = Calibrator("temperature", (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def make_held_out(n=300, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    own = rng.uniform(0.4, 1.0, n)
    p = np.repeat(((1.0 - own) / 2)[:, None], 3, axis=1)
    p[np.arange(n), labels] = own
    embedding = rng.standard_normal((n, 2)) + 5.0 * np.eye(3)[labels][:, :2]
    gaussians = fit_gaussians(embedding, labels, 3)
    return HeldOut(SAME, p, labels, gaussians, measure_distances(gaussians, embedding))


HELD = make_held_out()


def make_samples(*rows):
    return np.repeat(np.array(rows)[None], 8, axis=0)


def test_sets_and_flags():
    embedding = np.array([[5.0, 0.0], [0.0, 5.0], [0.0, 0.0], [60.0, 60.0]])
    samples = make_samples([0.97, 0.02, 0.01], [0.1, 0.46, 0.44], [0.4, 0.35, 0.25], [0.01, 0.02, 0.97])
    found = judge_samples(samples, embedding, HELD, Standard(coverage=0.9, margin=0.1))
    # Nine tenths of the held-out images have a probability above 0.46 for their own class.
    assert name_sets(found, ("a", "b", "c"))[0] == ("a",)
    assert name_sets(found, ("a", "b", "c"))[3] == ("c",)
    assert found.flags.tolist() == [0, flags.DOUBTFUL, flags.DOUBTFUL, flags.TOO_FAR]
    wide = judge_samples(samples, embedding, HELD, Standard(coverage=0.99, margin=0.0))
    assert name_sets(wide, ("a", "b", "c"))[1] == ("b", "c")
    assert wide.sets.sum() > found.sets.sum()


def test_the_calibrator_is_applied_to_the_mean_and_to_the_sets():
    hot = HeldOut(Calibrator("temperature", (0.5,) * 3, (0.0,) * 3), HELD.probabilities, HELD.labels)
    samples = make_samples([0.9, 0.06, 0.04])
    found = judge_samples(samples, None, hot, Standard())
    raised = np.sqrt([0.9, 0.06, 0.04])
    np.testing.assert_allclose(found.calibrated[0], raised / raised.sum())
    np.testing.assert_allclose(found.uncertainty.probabilities[0], [0.9, 0.06, 0.04])
    plain = judge_samples(samples, None, HELD, Standard())
    assert plain.sets[0, 0] and found.calibrated[0, 0] < 0.7


def test_rows_are_judged_by_themselves_and_described():
    rng = np.random.default_rng(1)
    samples = rng.dirichlet(np.ones(3), (20, 40))
    embedding = rng.standard_normal((40, 2))
    whole = judge_samples(samples, embedding, HELD, Standard())
    some = judge_samples(samples[:, [7, 3]], embedding[[7, 3]], HELD, Standard())
    assert np.array_equal(some.calibrated, whole.calibrated[[7, 3]])
    assert np.array_equal(some.flags, whole.flags[[7, 3]])
    for row in describe_judgement(whole, ("a", "b", "c")):
        assert row["entropy"] == pytest.approx(row["expected_entropy"] + row["mutual_information"], abs=1e-9)
        assert sum(row["calibrated"].values()) == pytest.approx(1.0)
        order = [row["calibrated"][name] for name in row["set"]]
        assert order == sorted(order, reverse=True)


def test_classes_must_be_the_same():
    with pytest.raises(SurveyMLError, match="2 classes, but held-out images of 3"):
        judge_samples(np.full((4, 1, 2), 0.5), None, HELD, Standard())
