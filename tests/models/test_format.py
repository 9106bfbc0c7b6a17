"""A model file comes back as it was, or is refused with the reason: nothing of unknown origin is trusted."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from model_files import make_card, make_network, write_forest, write_model
from safetensors.numpy import save

from survey_ml.errors import ConfigError, InputError
from survey_ml.models import format as model_format
from survey_ml.models.format import read_card, read_model, save_model


def split(path) -> tuple[dict, bytes]:
    """Return the header and the data of a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(path, header: dict, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.fixture
def path(tmp_path):
    return write_model(tmp_path / "trial.safetensors")


@pytest.mark.parametrize("group", ["C1", "D4", "C8"])
def test_a_network_comes_back_as_it_was(tmp_path, group):
    network = make_network(group=group)
    card = make_card(network.architecture)
    digest = save_model(tmp_path / "m.safetensors", network, card)
    tensors, again, found = read_model(tmp_path / "m.safetensors")
    assert again == card
    assert found == digest == hashlib.sha256((tmp_path / "m.safetensors").read_bytes()).hexdigest()
    state = network.state_dict()
    assert tensors.keys() == state.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, state[name].numpy())
    assert read_card(tmp_path / "m.safetensors") == (card, digest)


def test_one_model_is_always_the_same_bytes(tmp_path):
    one, two = (write_model(tmp_path / f"{name}.safetensors") for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_a_forest_comes_back_as_it_was(tmp_path):
    tensors, card, _ = read_model(write_forest(tmp_path / "f.safetensors"))
    assert card.kind == "forest"
    assert set(tensors) == {"start", "feature", "threshold", "left", "right", "value"}


def test_reading_changes_no_random_state(path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    read_model(path)
    assert torch.equal(before, torch.get_rng_state())


def test_another_hash_than_expected_is_an_error(path):
    _, _, digest = read_model(path)
    assert read_model(path, expected_hash=digest)[2] == digest
    assert read_model(path, expected_hash=digest[:12].upper())[2] == digest
    with pytest.raises(InputError, match=f"has the hash {digest[:12]}, not 000000000000"):
        read_model(path, expected_hash="0" * 12)


def test_a_changed_byte_changes_the_hash(path):
    _, _, digest = read_model(path)
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    assert read_model(path)[2] != digest
    with pytest.raises(InputError, match="was changed"):
        read_model(path, expected_hash=digest)


def rewrite(path, change) -> None:
    """Write the arrays of a model again, changed, under its card."""
    tensors, card, _ = read_model(path)
    change(tensors)
    path.write_bytes(save(tensors, metadata={"card": card.to_json()}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("heads.joint.bias"), "heads.joint.bias is missing"),
        (lambda t: t.update(extra=np.zeros(3, np.float32)), "extra is not part of it"),
        (lambda t: t.update({"heads.joint.bias": np.zeros(3, np.float32)}), r"has the shape \(3,\)"),
        (lambda t: t.update({"heads.joint.bias": np.zeros(2, np.float64)}), "has the dtype float64"),
        (lambda t: t.update({"heads.joint.bias": np.full(2, np.nan, np.float32)}), "not finite"),
    ],
)
def test_arrays_that_are_not_those_of_the_card_are_refused(path, change, said):
    rewrite(path, change)
    with pytest.raises(InputError, match=said):
        read_model(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_classes": 3}, "2 classes, its architecture 3"),
        ({"group": "Q8"}, "no group"),
        ({"side": 50}, "halved"),
        ({"side": 10**9}, "side"),
        ({"fields": [2, 3, 4]}, "fields"),
        ({"fields": [2, 3, 4, 10**9]}, "fields"),
        ({"size": 1001}, "size"),
        ({"size": 4}, "middle pixel"),
        ({"reduce": 0}, "reduce"),
        ({"std": 0.0}, "std"),
        ({"stretch": 0.0}, "stretch"),
        ({"normalisation": "magic"}, "magic"),
        ({"aggregation": "deep"}, "missing"),
        ({"nonsense": 1}, "unknown key nonsense"),
        ({"side": "many"}, "side"),
    ],
)
def test_an_impossible_architecture_is_refused_before_it_is_built(path, change, said):
    header, data = split(path)
    card = json.loads(header["__metadata__"]["card"])
    card["architecture"] |= change
    header["__metadata__"]["card"] = json.dumps(card)
    join(path, header, data)
    with pytest.raises(InputError, match=said):
        read_model(path)


def test_a_pickle_by_another_name_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="a pickle, which could run code"):
        read_model(path)
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="a ZIP archive"):
        read_model(path)
    assert not (tmp_path / "harm").exists()


def test_what_is_no_model_is_named(tmp_path, path):
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    bare = tmp_path / "bare.safetensors"
    bare.write_bytes(save({"a": np.zeros(2, np.float32)}))
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(b"")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-7])
    text = tmp_path / "text.safetensors"
    text.write_text("SIMPLE  =                    T")
    for wrong, said in (
        (folder, "is a folder"),
        (bare, "has no card"),
        (empty, "it is empty"),
        (cut, "damaged"),
        (text, "something else"),
        (tmp_path / "absent.safetensors", "is not there"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            read_model(wrong)
        assert caught.value.hint


@pytest.mark.parametrize(
    "header",
    [{"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 8]}}, {"a": 3}, {"__metadata__": []}],
)
def test_a_damaged_header_is_an_error(tmp_path, header):
    path = tmp_path / "m.safetensors"
    join(path, header, b"12345678")
    with pytest.raises(InputError, match=r"damaged|no card"):
        read_model(path)


def test_a_header_that_is_too_large_is_not_parsed(path, monkeypatch):
    path.write_bytes((1 << 60).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(InputError, match="cut off"):
        read_model(path)
    header, data = split(write_model(path))
    header["__metadata__"]["more"] = "x" * 2000
    join(path, header, data)
    monkeypatch.setattr(model_format, "LARGEST_HEADER", 2000)
    with pytest.raises(InputError, match="at most 2000"):
        read_model(path)


def test_sizes_are_limited(path, monkeypatch):
    monkeypatch.setattr(model_format, "MOST_TENSORS", 5)
    with pytest.raises(InputError, match="at most 5"):
        read_model(path)
    monkeypatch.setattr(model_format, "LARGEST_FILE", 100)
    with pytest.raises(InputError, match="at most 100"):
        read_model(path)


def test_what_the_documentation_writes_is_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    [source] = [block.split("```")[0] for block in text.split("```python\n") if "save_model(" in block]
    exec(source, {})
    _, card, _ = read_model("my-model.safetensors")
    assert (card.name, card.invariant_under) == ("my-model", "D4")


def test_only_what_fits_its_card_is_written(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(ConfigError, match="not those of the card"):
        save_model(path, make_network(group="C4"), make_card())
    with pytest.raises(ConfigError, match=r"m\.bin does not end in \.safetensors"):
        save_model(tmp_path / "m.bin", make_network(), make_card())
    assert list(tmp_path.iterdir()) == []
