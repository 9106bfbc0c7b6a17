"""The stage: columns, flags, and independence of tiling, batch and neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_morphology_cutouts import make_field
from trial_model import write_model

from survey_ml import morphology_flags as flags
from survey_ml.engine.keys import describe_field, describe_stage, explain_change, hash_json
from survey_ml.engine.outputs import check_outputs
from survey_ml.errors import ConfigError
from survey_ml.field import Beam, Tile, Window
from survey_ml.graph import Graph
from survey_ml.plugins import get_manager
from survey_ml.stage import Inputs
from survey_ml.stages.morphology.spec import SPEC
from survey_ml.stages.morphology.stage import Morphology, MorphologyOptions
from survey_ml.validation.labels import find_doubtful

pytest.importorskip("torch", reason="survey-ml[learning] is not installed")


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "trial.safetensors")


@pytest.fixture(scope="session")
def stage(model):
    return set_up(model)


def set_up(model, **options):
    made = Morphology(MorphologyOptions(model=str(model), **options))
    made.setup()
    return made


def make_sources(x, y, **columns):
    n = len(x)
    table = {
        "source_id": np.arange(n) * 10,
        "island_id": np.arange(n) * 10,
        "n_components": np.ones(n, np.int32),
        "x": np.asarray(x, np.float64),
        "y": np.asarray(y, np.float64),
        "local_rms": np.full(n, 0.01),
        "resolved": np.ones(n, bool),
    }
    return table | {name: np.asarray(values) for name, values in columns.items()}


def make_islands(sources, reach=4):
    box = {
        f"{axis}_{end}": np.nan_to_num(sources[axis]).astype(np.int64) + sign * np.asarray(reach)
        for axis in "xy"
        for end, sign in (("min", -1), ("max", 1))
    }
    return {"island_id": sources["island_id"], **box}


def run(stage, image, sources, islands=None, field=None):
    field = field or make_field(image.shape)
    window = Window(0, image.shape[0], 0, image.shape[1])
    tile = Tile("0_0", window, window)
    tables = {"sources": sources, "islands": islands or make_islands(sources)}
    outputs = stage.run(Inputs(field, tile, {"image": image}, tables))
    _, found, summaries = check_outputs("morphology", SPEC.writes, outputs, tile)
    return found["morphology"][0], found["morphology_features"][0], summaries["morphology_model"]


MILLI = 1e-3
"""Sources of some mJy are not linked to those next to them."""


def make_image(shape=(300, 400), seed=0, n=30, unit=1.0):
    """Noise with doubles and points; returns the positions as well."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 0.01, shape)
    x, y = rng.uniform(30, shape[1] - 30, n), rng.uniform(30, shape[0] - 30, n)
    v, u = np.mgrid[: shape[0], : shape[1]]
    for cx, cy, apart, angle in zip(x, y, rng.uniform(0, 8, n), rng.uniform(0, 6.28, n), strict=True):
        for side in (-1, 1):
            dx, dy = u - cx - side * apart * np.cos(angle), v - cy - side * apart * np.sin(angle)
            image += np.exp(-(dx * dx + dy * dy) / 4.0)
    return (unit * image).astype(np.float32), x, y


def test_columns_are_those_of_the_classes(stage, model):
    image, x, y = make_image(unit=MILLI)
    rows, features, summary = run(stage, image, make_sources(x, y))
    p = np.stack([rows[f"morph_p_{name}"] for name in ("fri", "frii", "compact", "bent")], axis=1)
    assert p.dtype == np.float32 and np.ptp(p, axis=0).max() > 0.02
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-6)
    classes = np.array(["FRI", "FRII", "compact", "bent"])
    assert (rows["morph_class"] == classes[p.argmax(axis=1)]).all()
    assert (rows["source_id"] == np.arange(30) * 10).all()
    assert not (rows["morph_flags"] & ~flags.OUTSHONE).any()
    assert set(rows["morph_model"]) == {stage.classifier.label}
    assert stage.classifier.label.startswith("trial 1 ")
    powers = np.exp(features["morph_logits"])
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), p, atol=1e-5)
    assert features["morph_embedding"].shape == (30, 9)
    assert summary["classes"] == list(classes) and len(summary["hash"]) == 64


def share(stage, **options):
    """A stage with other options and the model that is loaded already."""
    made = Morphology(stage.options.model_copy(update=options))
    made.classifier = stage.classifier
    return made


def test_a_source_does_not_depend_on_tile_batch_or_neighbours(stage):
    image, x, y = make_image(seed=1, unit=MILLI)
    sources = make_sources(x, y)
    whole, features, _ = run(stage, image, sources)
    for part in (np.arange(30)[::-1], np.arange(0, 30, 7), np.array([11])):
        for batch in (1, 7, 64):
            some = {name: values[part] for name, values in sources.items()}
            rows, seen, _ = run(share(stage, batch_size=batch), image, some)
            assert (rows["morph_class"] == whole["morph_class"][part]).all()
            for name in ("morph_p_fri", "morph_p_bent"):
                np.testing.assert_allclose(rows[name], whole[name][part], atol=1e-6)
            np.testing.assert_allclose(seen["morph_embedding"], features["morph_embedding"][part], atol=1e-5)


def test_a_tile_without_sources_has_the_same_columns(stage):
    image, x, y = make_image(seed=2)
    full = run(stage, image, make_sources(x, y))
    empty = run(stage, image, make_sources(x[:0], y[:0]))
    assert empty[2] == full[2]
    for one, other in zip(full[:2], empty[:2], strict=True):
        assert list(one) == list(other) and all(len(values) == 0 for values in other.values())
        assert all(one[name].shape[1:] == other[name].shape[1:] for name in one)
        assert all(one[n].dtype == other[n].dtype for n in one if one[n].dtype.kind != "U")


def test_flags_of_bad_input(stage):
    image, _, _ = make_image((300, 400), seed=3, n=0)
    image[100:200, 200:300] = np.nan
    image[148:153, 340:345] += 1.0
    sources = make_sources(
        # fine, corner, in the blank, by the blank, no position, far off, large
        x=[342, 3, 250, 305, np.nan, 5000, 342],
        y=[150, 296, 150, 150, 20, 150, 150],
        resolved=[True, True, True, True, False, True, True],
    )
    image[294:299, 1:6] += 1.0
    image[147:153, 302:308] += 1.0
    image *= np.float32(MILLI)
    rows, features, _ = run(stage, image, sources, make_islands(sources, [4, 4, 4, 4, 4, 4, 26]))
    assert rows["morph_flags"].tolist() == [
        0,
        flags.EDGE,
        flags.NO_DATA,
        flags.BLANK,
        flags.NO_DATA,
        flags.NO_DATA | flags.EDGE,
        flags.TOO_LARGE,
    ]
    known = np.array([True, True, False, True, False, False, True])
    assert ((rows["morph_class"] != "") == known).all()
    assert (np.isfinite(rows["morph_p_fri"]) == known).all()
    assert (np.isfinite(features["morph_logits"]).all(axis=1) == known).all()
    assert rows["morph_class"][6] == rows["morph_class"][0]


def test_flags_of_what_is_seen(stage):
    image, _, _ = make_image((200, 200), seed=4, n=0)
    image[:] = np.clip(image, -0.02, 0.02)
    points = make_sources([100, 100], [100, 100], resolved=[False, False], n_components=[1, 2])
    rows, _, _ = run(stage, image, points)
    assert rows["morph_flags"].tolist() == [flags.EMPTY | flags.UNRESOLVED, flags.EMPTY]
    for field in (make_field((200, 200), beam=Beam(9.0, 8.0, 0.0)), make_field((200, 200), (3.7, 3.7))):
        rows, _, _ = run(stage, image, make_sources([100], [100]), field=field)
        assert rows["morph_flags"][0] & flags.COARSE


def draw(image, x, y, peak):
    v, u = np.mgrid[: image.shape[0], : image.shape[1]]
    image += (peak * np.exp(-((u - x) ** 2 + (v - y) ** 2) / 4.0)).astype(np.float32)


def test_a_double_is_shown_about_its_middle_from_either_lobe(stage):
    """Lobes of 0.6 and 0.4 Jy, 27 arcsec apart, and a neighbour of a tenth of that."""
    image = make_image((200, 200), seed=6, n=0)[0]
    for x, y, peak in ((95, 100, 0.6), (110, 100, 0.4), (100, 116, 0.05)):
        draw(image, x, y, peak)
    lobes = make_sources([95, 110], [100, 100], resolved=[False, False])
    field = make_field((200, 200))
    (views,) = stage.show(image, field, lobes, make_islands(lobes))
    np.testing.assert_array_equal(views.images[0], views.images[1])
    across = np.flatnonzero((views.images[0] > 0.2).any(axis=0))
    assert abs(across[0] + across[-1] - 2 * 25) <= 1  # the trial model's images have 50 px
    assert not (views.flags & (flags.UNRESOLVED | flags.OUTSHONE | flags.FAINT)).any()
    (views,) = share(stage, centre="position").show(image, field, lobes, make_islands(lobes))
    assert [np.unravel_index(view.argmax(), view.shape) for view in views.pixels] == [(25, 25), (25, 10)]
    third = make_sources([100], [116], resolved=[False])
    rows, _, _ = run(stage, image, third)
    assert rows["morph_flags"].tolist() == [flags.UNRESOLVED | flags.FAINT | flags.OUTSHONE]


def test_noise_peaks_and_neighbours_can_be_left_out(stage):
    image = np.zeros((200, 200), np.float32)
    image[:] = np.clip(make_image((200, 200), seed=7, n=0)[0], -0.025, 0.025)
    image[90, 90] = 0.04
    for x, y, peak in ((100, 100, 0.9), (112, 100, 0.1)):
        draw(image, x, y, peak)
    sources = make_sources([100], [100])
    shown = {}
    for what in ("all", "islands", "source"):
        made = share(stage, shown=what)
        (views,) = made.show(image, make_field((200, 200)), sources, make_islands(sources))
        shown[what] = views.images[0]
    for what, seen in (("all", (True, True)), ("islands", (False, True)), ("source", (False, False))):
        assert (bool(shown[what][15, 15]), bool(shown[what][25, 37])) == seen
        assert shown[what][25, 25] == 1.0


def test_a_class_is_in_doubt_by_its_flags_unless_it_says_the_same():
    found = np.array([0, flags.UNRESOLVED, flags.UNRESOLVED, flags.UNRESOLVED | flags.FAINT, flags.EDGE])
    labels = np.array(["FRI", "FRI", "Compact", "compact", "compact"])
    assert find_doubtful(found, labels).tolist() == [False, True, False, True, True]


def test_an_image_without_data_has_no_classes(stage):
    image = np.full((100, 100), np.nan, np.float32)
    rows, _, _ = run(stage, image, make_sources([50, 2], [50, 2]))
    assert rows["morph_flags"].tolist() == [flags.NO_DATA, flags.NO_DATA | flags.EDGE]
    assert rows["morph_class"].tolist() == ["", ""]


def test_noise_that_cannot_be_measured_is_the_source_s_own(stage):
    """Few pixels with data, or an image without noise: the local rms stands in."""
    image = np.full((200, 200), np.nan, np.float32)
    image[95:106, 95:106] = 0.005
    image[100, 100] = 1.0
    field = make_field((200, 200))
    sources = make_sources([100], [100])
    (views,) = stage.show(image, field, sources, make_islands(sources))
    assert (views.images > 0).sum() == 1
    (views,) = stage.show(np.nan_to_num(image), field, sources, make_islands(sources))
    assert (views.images > 0).sum() == 1


def test_a_smaller_cutout_is_empty_around(stage, model):
    image, _, _ = make_image((200, 200), seed=5, n=0)
    image += 1.0
    small = share(stage, cutout_arcsec=36.0)
    sources = make_sources([100], [100])
    (views,) = small.show(image, make_field((200, 200)), sources, make_islands(sources))
    assert views.pixels.shape == (1, 20, 20) and views.images.shape == (1, 50, 50)
    assert (views.images[0, 15:35, 15:35] > 0).all() and views.images[0, 15:35, 15:35].size == 400
    assert (views.images > 0).sum() == 400
    with pytest.raises(ConfigError, match="cutout_arcsec is 120, model trial looks at 90 arcsec"):
        set_up(model, cutout_arcsec=120.0)


def test_a_path_is_told_from_a_name():
    assert MorphologyOptions(model="firstgalaxy-d4").model == "firstgalaxy-d4"
    for text in ("weights/x", "x.safetensors"):
        assert MorphologyOptions(model=text).model == Path(text)


def build(options, base):
    return Graph.build({"morphology": options}, get_manager(), base=base)


def test_a_model_is_looked_for_before_any_work(model, monkeypatch):
    graph = build({"model": "trial.safetensors"}, model.parent)
    assert graph.options["morphology"].model == model
    assert {"noise", "extraction"} <= graph.needs("morphology")
    with pytest.raises(ConfigError, match=r"there is no model mirabest-d5.*did you mean mirabest-d4"):
        build({"model": "mirabest-d5"}, model.parent)
    with pytest.raises(ConfigError, match="no-such"):
        build({"model": "no-such.safetensors"}, model.parent)


def test_libraries_that_are_missing_are_said_before_any_work(model, monkeypatch):
    from survey_ml.stages.morphology import stage as module

    module.require_libraries.cache_clear()
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "torch" else name)
    with pytest.raises(ConfigError, match="needs torch, which is not installed") as caught:
        build({"model": "trial.safetensors"}, model.parent)
    assert "pip install 'survey-ml[learning]'" in caught.value.hint


def test_weights_are_part_of_the_key_and_their_place_is_not(model, tmp_path):
    def describe(path):
        options = MorphologyOptions(model=str(path))
        field = describe_field(make_field((9, 9)))
        return describe_stage(SPEC, options, field=field, reads={}, core=64, seed=0)

    copied = tmp_path / "trial.safetensors"
    copied.write_bytes(model.read_bytes())
    assert hash_json(describe(model)) == hash_json(describe(copied))
    write_model(copied, seed=1)
    assert explain_change(describe(model), describe(copied)) == "input changed: trial"
