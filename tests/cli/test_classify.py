"""`survey-ml classify`: a row an image, in the order given, and nothing lost of what can be read."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from astropy.io import fits
from model_files import write_forest, write_model
from PIL import Image
from trial_model import write_model as write_trial
from trial_model import write_posterior

from survey_ml.models.trial import make_images

IMAGES = make_images(6, 50, seed=8)
BYTES = np.round(IMAGES * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "trial.safetensors", group="D4")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A forest, which is ready at once, for what is alike for all models."""
    return write_forest(tmp_path_factory.mktemp("model") / "forest.safetensors")


def write_fits(path, image, pixel_arcsec=None, beam_arcsec=None):
    header = fits.Header()
    if pixel_arcsec:
        for axis, kind, sign in ((1, "RA---SIN", -1), (2, "DEC--SIN", 1)):
            header[f"CTYPE{axis}"] = kind
            header[f"CDELT{axis}"] = sign * pixel_arcsec / 3600
            header[f"CRPIX{axis}"] = image.shape[0] / 2
            header[f"CRVAL{axis}"] = 30.0
            header[f"CUNIT{axis}"] = "deg"
    if beam_arcsec:
        header["BMAJ"] = header["BMIN"] = beam_arcsec / 3600
        header["BPA"] = 0.0
    fits.writeto(path, image.astype(np.float32), header)
    return path


def test_the_json_is_as_promised(call, network, tmp_path):
    np.save(tmp_path / "stack.npy", BYTES)
    answer = call("classify", tmp_path / "stack.npy", "--model", network, "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert list(found) == ["model", "hash", "classes", "rows"]
    assert (found["model"], found["classes"]) == ("trial", ["FRI", "FRII"])
    assert len(found["hash"]) == 64
    assert [row["index"] for row in found["rows"]] == list(range(6))
    for row in found["rows"]:
        assert list(row) == ["input", "index", "class", "p", "flags"]
        assert list(row["p"]) == ["FRI", "FRII"]
        assert row["class"] == max(row["p"], key=row["p"].get)
        assert sum(row["p"].values()) == pytest.approx(1.0, abs=1e-6)
        assert set(row["flags"]) <= {"too_large"}
    text = call("classify", tmp_path / "stack.npy", "--model", network)
    assert "p(FRII)" in text.out
    assert f"6 images by trial 1 {found['hash'][:12]}" in text.out


def test_batches_and_formats_do_not_matter(call, model, tmp_path):
    np.save(tmp_path / "stack.npy", BYTES)
    folder = tmp_path / "pngs"
    folder.mkdir()
    for number, image in enumerate(BYTES):
        Image.fromarray(image).save(folder / f"{number}.png")

    def classify(*inputs, size=64):
        rows = call("classify", *inputs, "--model", model, "--json", "--batch-size", size).json["rows"]
        return [(row["class"], row["p"]["FRI"]) for row in rows]

    whole = classify(tmp_path / "stack.npy")
    assert len({p for _, p in whole}) > 2
    for size in (1, 4):
        assert classify(tmp_path / "stack.npy", size=size) == whole
    assert classify(folder) == whole
    backwards = [folder / f"{number}.png" for number in range(5, -1, -1)]
    assert classify(*backwards) == whole[::-1]
    assert classify(folder / "3.png") == whole[3:4]


def test_float_images_are_clipped_by_their_noise(call, network, tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.004, IMAGES.shape)
    np.save(tmp_path / "a.npy", (0.03 * (IMAGES + noise)).astype(np.float32))
    np.save(tmp_path / "b.npy", IMAGES)
    both = (tmp_path / "a.npy", tmp_path / "b.npy")
    rows = call("classify", *both, "--model", network, "--json").json["rows"]
    one, two = rows[:6], rows[6:]
    assert len(one) == len(two) == 6
    for a, b in zip(one, two, strict=True):
        assert a["p"]["FRI"] == pytest.approx(b["p"]["FRI"], abs=0.1)


def test_flags_and_rows_of_images_with_little_in_them(call, model, tmp_path):
    image = np.zeros((5, 50, 50), np.float32)
    image[0] = np.nan
    image[2] = IMAGES[0]
    image[2, :9, :9] = np.nan
    image[3] = np.inf
    image[4] = IMAGES[1]
    np.save(tmp_path / "odd.npy", image)
    np.save(tmp_path / "small.npy", BYTES[:1, 10:40, 10:40])
    write_fits(tmp_path / "coarse.fits", IMAGES[0], pixel_arcsec=5.0, beam_arcsec=15.0)
    names = ["odd.npy", "small.npy", "coarse.fits"]
    answer = call("classify", *(tmp_path / name for name in names), "--model", model, "--json")
    assert answer.code == 0, answer.err
    rows = answer.json["rows"]
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4, 0, 0]
    assert rows[0]["flags"] == rows[3]["flags"] == ["no_data"]
    assert rows[0]["class"] == ""
    assert rows[0]["p"] == {"FRI": None, "FRII": None}
    assert rows[1]["flags"] == ["empty"]
    assert "blank" in rows[2]["flags"]
    assert set(rows[4]["flags"]) <= {"too_large"}
    assert "edge" in rows[5]["flags"]
    assert "coarse" in rows[6]["flags"]
    assert "no_data" in call("classify", tmp_path / "odd.npy", "--model", model).out


def test_pixels_are_matched_only_where_the_header_tells_them(call, network, tmp_path):
    large = np.kron(IMAGES[2], np.ones((2, 2), np.float32))
    write_fits(tmp_path / "known.fits", large, pixel_arcsec=0.9)
    write_fits(tmp_path / "unknown.fits", large)
    write_fits(tmp_path / "own.fits", IMAGES[2], pixel_arcsec=1.8)
    rows = call(
        "classify",
        *(tmp_path / f"{name}.fits" for name in ("known", "unknown", "own")),
        "--model",
        network,
        "--json",
    ).json["rows"]
    known, unknown, own = (row["p"]["FRI"] for row in rows)
    assert abs(known - own) < abs(unknown - own)


def test_a_name_cannot_part_a_row_or_steer_a_terminal(call, model, tmp_path):
    np.save(tmp_path / "one\nline\x1b[31mred.npy", BYTES[:2])
    shown = call("classify", tmp_path, "--model", model)
    assert shown.code == 0
    assert shown.out.count("one\\x0aline\\x1b[31mred.npy") == 2 and "\x1b" not in shown.out


def test_pixels_that_cannot_be_set_no_other_image_aside(call, model, tmp_path):
    write_fits(tmp_path / "tiny.fits", IMAGES[0], pixel_arcsec=4e-12)
    np.save(tmp_path / "whole.npy", BYTES[:2])
    found = call("classify", tmp_path, "--model", model, "--json")
    assert found.code == 0 and len(found.json["rows"]) == 3


def test_a_bad_file_is_named_and_the_rest_is_classified(call, model, tmp_path):
    np.save(tmp_path / "good.npy", BYTES[:2])
    (tmp_path / "bad.png").write_text("no image")
    inputs = [tmp_path / name for name in ("bad.png", "good.npy", "absent.fits")]
    answer = call("classify", *inputs, "--model", model, "--json")
    assert answer.code == 1
    assert len(answer.json["rows"]) == 2
    assert [fault["input"] for fault in answer.json["failed"]] == [str(inputs[0]), str(inputs[2])]
    assert "bad.png" in answer.err
    assert "absent.fits" in answer.err


def test_nothing_readable_is_nothing_done(call, model, tmp_path):
    answer = call("classify", tmp_path, "--model", model)
    assert answer.code == 2
    assert "no image could be read" in answer.err
    found = call("classify", tmp_path / "absent.fits", "--model", model, "--json")
    assert found.code == 2
    assert json.loads(found.out)["exit_code"] == 2
    assert call("classify", "--model", model).code == 2
    assert call("classify", tmp_path, "--model", tmp_path / "none.safetensors").code == 2


@pytest.mark.parametrize("name", ["x.fits", "x.fits.gz", "x.png", "x.npy", "x.npz"])
def test_a_pipe_among_images_is_named_and_not_waited_for(call, model, tmp_path, name):
    np.save(tmp_path / "stack.npy", BYTES)
    os.mkfifo(tmp_path / name)
    for inputs in ([tmp_path], [tmp_path / "stack.npy", tmp_path / name]):
        answer = call("classify", *inputs, "--model", model, "--json")
        assert answer.code == 1 and len(answer.json["rows"]) == 6
        assert answer.json["failed"][0]["cause"] == f"{tmp_path / name} is a named pipe, not a regular file"


def test_uncertainty_adds_to_every_row(call, tmp_path):
    images = np.concatenate([IMAGES, np.full((1, 50, 50), np.nan, np.float32)])
    np.save(tmp_path / "stack.npy", images)
    model = write_trial(tmp_path / "trial.safetensors", classes=("FRI", "FRII"))
    posterior = write_posterior(model)
    answer = call(
        "classify", tmp_path / "stack.npy", "--model", model, "--uncertainty", "--posterior", posterior,
        "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    plain = call("classify", tmp_path / "stack.npy", "--model", model, "--json").json["rows"]
    added = ["entropy", "expected_entropy", "mutual_information", "overlap", "margin", "calibrated", "set"]
    for row, other in zip(answer.json["rows"], plain, strict=True):
        assert list(row) == [*other, *added]
        assert {key: row[key] for key in other if key != "flags"} == {
            k: other[k] for k in other if k != "flags"
        }
    *known, empty = answer.json["rows"]
    for row in known:
        assert row["entropy"] == pytest.approx(row["expected_entropy"] + row["mutual_information"], abs=1e-6)
        assert set(row["set"]) <= set(row["calibrated"]) == {"FRI", "FRII"}
        assert (len(row["set"]) == 1 and row["margin"] >= 0.2) or "doubtful" in row["flags"]
    assert (
        empty["entropy"] is None and empty["set"] == [] and empty["calibrated"] == {"FRI": None, "FRII": None}
    )
    assert "too_far_from_training" not in empty["flags"]
    shown = call(
        "classify", tmp_path / "stack.npy", "--model", model, "--uncertainty", "--posterior", posterior
    )
    assert "mutual_information" in shown.out and "calibrated" in shown.out
    alone = call("classify", tmp_path / "stack.npy", "--model", model, "--posterior", posterior)
    assert alone.code == 2 and "--uncertainty" in alone.err
    refused = call("classify", tmp_path / "stack.npy", "--model", model, "--uncertainty")
    assert refused.code == 2 and "nothing is known of the uncertainty of model trial" in refused.err


@pytest.mark.parametrize(
    "name", ["mirabest-d4", "mirabest-attention", "firstgalaxy-attention", "firstgalaxy-d4"]
)
def test_every_built_in_network_has_its_posterior(name):
    from survey_ml.models.estimator import METHOD, find_estimator
    from survey_ml.models.format import read_card
    from survey_ml.models.registry import find_model

    _, digest = read_card(find_model(name).path)
    estimator = find_estimator(name, digest)
    assert estimator.describe()["method"] == METHOD
    held = estimator.describe()["held_out"]
    assert held["n"] >= 200 and held["ece"]["value"] < 0.05
