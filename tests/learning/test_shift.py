"""The verdict: on made shifts of each kind, on none, and on what cannot be judged."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from survey_ml.errors import ConfigError, InputError
from survey_ml.learning.shift import judge_shift, name_classes
from survey_ml.learning.shift_features import fit_scale
from survey_ml.learning.shift_matching import choose_mix
from survey_ml.learning.shift_sources import Sources, join_sources

CENTRES = np.array([[-1.2, 0.0, 0.0, 0.0], [1.2, 0.0, 0.0, 0.0]])


def draw(n, fri=0.5, move=0.0, seed=0, known=True, beam=3.0):
    """Return sources of two classes, a share of the first, whose looks are moved aside."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) >= round(fri * n)).astype(np.int64)
    embedding = CENTRES[labels] + rng.normal(size=(n, 4))
    embedding[:, 1] += move
    probabilities = softmax(embedding[:, :1] * [-1.2, 1.2], axis=1)
    covariates = {"beam": rng.normal(beam, 0.1, n)}
    return Sources(embedding, probabilities, labels if known else None, covariates)


def judge(sample, n=300, **options):
    return judge_shift(draw(n, seed=99), sample, **options)


def test_sources_of_one_kind_are_green():
    levels = [judge(draw(100, seed=s), permutations=100).level for s in range(40)]
    assert levels.count("green") >= 38


def test_another_mix_is_amber_and_corrected():
    found = judge(draw(200, fri=0.1))
    assert (found.level, found.cause) == ("amber", "prior")
    assert found.conditional.level == "green" and found.conditional.matched
    assert found.statistics["mmd"].p_value <= 0.01
    shares = name_classes(found.prior, ("FRI", "FRII"))
    assert shares["FRI"]["low"] < 0.1 < shares["FRI"]["high"]
    assert shares["FRI"]["estimate"] == pytest.approx(0.1, abs=0.06)


def test_other_looks_are_red_and_the_mix_is_refused():
    found = judge(draw(100, fri=0.3, move=3.0))
    assert (found.level, found.cause) == ("red", "appearance")
    assert "look different" in found.prior.refused
    assert name_classes(found.prior, ("FRI", "FRII")) == {}
    assert found.score > 0.15


def test_the_score_is_louder_where_the_answers_move():
    aside, along = draw(300, move=1.5), draw(300)
    along.embedding[:, 0] += 1.5
    moved = softmax(along.embedding[:, :1] * [-1.2, 1.2], axis=1)
    along = Sources(along.embedding, moved, along.labels, along.covariates)
    one, other = judge(aside), judge(along)
    assert other.conditional.statistics["answers"].value > one.conditional.statistics["answers"].value
    assert other.score > 1.5 * one.score
    for found in (one, other):
        assert bool(found.prior.refused) == (found.conditional.level != "green")
        answers = (found.statistics if found.prior.refused else found.conditional.statistics)["answers"]
        expected = 0.9 * max(0.0, answers.value) ** 0.5 + 0.1 * found.conditional.effect
        assert found.score == pytest.approx(expected)


def test_another_mix_is_no_alarm_but_other_images_are_one_however_they_move_the_answers():
    mix = judge(draw(200, fri=0.1))
    # The same answers, and the beam says why: that the mix is another one can no longer be told.
    blurred = judge(draw(200, fri=0.1, beam=25.0))
    assert (mix.cause, blurred.cause) == ("prior", "beam")
    assert mix.score < 0.1 < 0.3 < blurred.score
    assert mix.prior.refused == "" and "beam" in blurred.prior.refused
    assert blurred.conditional.level == "green"


def test_a_model_that_always_says_the_same_has_no_answers_to_compare():
    sides = [Sources(draw(60, seed=s).embedding, np.full((60, 2), 0.5), None) for s in (1, 2)]
    assert judge_shift(*sides).conditional.statistics["answers"].p_value == 1.0


def test_shifts_that_cancel_in_the_total_are_found_once_the_mix_is_matched():
    # Both classes move towards FRII, and there are more FRI: the mean stays where it was.
    sample = draw(300, fri=0.75, known=True)
    sample.embedding[:, 0] += 0.6
    found = judge(sample, calibration=draw(300, seed=98))
    assert found.conditional.p_value <= 0.01 or found.prior.p_value <= 0.01


def test_the_part_of_the_mix_is_that_of_the_mixes_themselves():
    # Without another shift all of the total is from the mix; without another mix, nothing of it.
    found = judge_shift(draw(1500, seed=1), draw(1500, fri=0.1, seed=2))
    total = found.statistics["mmd"]
    assert found.conditional.prior_only == pytest.approx(
        total.value, abs=4.0 * (total.high - total.low) / 4.0
    )
    same = judge_shift(draw(1500, seed=1), draw(1500, move=1.0, seed=2), permutations=100)
    assert abs(same.conditional.prior_only) < 0.1 * same.statistics["mmd"].value


def test_another_beam_is_named():
    found = judge(draw(100, move=3.0, beam=25.0))
    assert (found.level, found.cause) == ("red", "beam")
    assert found.covariates["beam"].shifted
    alone = judge(draw(100, beam=25.0))
    assert (alone.level, alone.cause) == ("amber", "beam")


def test_a_reference_without_labels_is_matched_by_what_the_model_says():
    reference, sample = draw(300, known=False, seed=1), draw(150, fri=0.1, seed=2)
    found = judge_shift(reference, sample, draw(300, seed=3))
    assert found.level == "amber" and found.cause == "prior"
    assert found.conditional.matched and found.conditional.level == "green"
    unknown = judge_shift(reference, sample)
    assert "no labelled images" in unknown.prior.refused


def test_statistics_are_never_bare():
    found = judge(draw(60))
    assert set(found.statistics) == {
        "mmd", "energy", "separation", "frechet", "frechet_ledoit_wolf", "frechet_debiased", "answers",
    }  # fmt: skip
    for name, one in found.statistics.items():
        assert one.low <= one.value <= one.high and one.null_std > 0.0
        assert 0.0 < one.p_value <= 1.0 and one.n == 60 and one.d == (2 if name == "answers" else 4)


def test_the_seed_decides():
    one, again, other = (judge(draw(60), seed=seed) for seed in (1, 1, 2))
    assert one.statistics == again.statistics and one.conditional == again.conditional
    assert one.statistics["mmd"].null_mean != other.statistics["mmd"].null_mean


def test_large_sets_are_thinned(monkeypatch):
    monkeypatch.setattr("survey_ml.learning.shift.MOST_SOURCES", 50)
    found = judge(draw(400))
    assert found.statistics["mmd"].n == 50


def test_one_class_in_the_sample_or_the_reference():
    found = judge(draw(80, fri=1.0))
    assert found.cause == "prior" and found.level == "amber"
    single = judge_shift(draw(100, fri=1.0), draw(100, fri=1.0, seed=1))
    assert "some class" in single.prior.refused and single.level == "green"


@pytest.mark.parametrize("n", [0, 1, 19])
def test_few_sources_say_so(n):
    with pytest.raises(InputError, match="too few"):
        judge(draw(n))
    with pytest.raises(InputError, match="too few"):
        judge_shift(draw(n), draw(100))


def test_values_that_are_none_are_refused():
    sample = draw(50)
    sample.embedding[3] = np.nan
    with pytest.raises(InputError, match="1 of 50"):
        judge(sample)


def test_another_models_embeddings_are_refused():
    with pytest.raises(InputError, match="numbers"):
        judge(draw(50), scale=fit_scale(np.random.default_rng(0).normal(size=(50, 7))))


def test_a_level_that_cannot_be_reached_is_refused():
    with pytest.raises(ConfigError, match="50 permutations"):
        judge(draw(50), permutations=50)


def test_a_mix_is_chosen_by_leaving_out():
    labels = np.array([0] * 60 + [1] * 40)
    rows = choose_mix(labels, [0.2, 0.8], np.random.default_rng(0))
    assert rows is not None and len(set(rows.tolist())) == len(rows) == 50
    assert (labels[rows] == 0).sum() == 10
    same = choose_mix(labels, [0.6, 0.4], np.random.default_rng(0))
    assert same is not None and len(same) == 100
    assert choose_mix(labels, [0.0, 0.1, 0.9], np.random.default_rng(0)) is None
    assert choose_mix(labels[:61], [0.05, 0.95], np.random.default_rng(0)) is None


def test_sources_are_taken_and_joined():
    one, other = draw(5), draw(4, known=False)
    assert len(one.take(np.array([0, 2]))) == 2
    joined = join_sources([one, other])
    assert len(joined) == 9 and joined.labels is None and len(joined.covariates["beam"]) == 9
    assert join_sources([one, one]).labels.tolist() == one.labels.tolist() * 2


def test_a_class_that_few_sources_lack_is_no_other_mix():
    # By chance the share of a class may come out as nothing, which has no scatter of its own.
    mixes = [judge(draw(20, fri=0.3, seed=s), permutations=100).prior for s in range(8)]
    assert all(one.p_value > 1e-4 for one in mixes)
    few = judge(draw(40, fri=0.0, seed=1), permutations=100).prior
    assert few.found is not None and few.found.shares[0] < 0.05
    # Without any of a class that half should be of it is another mix, and by no more than chance allows.
    assert 1e-12 < few.p_value < 0.01
