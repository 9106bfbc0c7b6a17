"""A card holds what it should, and nothing else gets through."""

from __future__ import annotations

import json

import pytest
from model_files import make_card
from pydantic import ValidationError

from survey_ml.errors import InputError
from survey_ml.learning.preprocessing import Preprocessing
from survey_ml.models.card import Card, Metric, Training, parse_card


def test_a_card_comes_back_from_json_as_it_was():
    card = make_card(
        metrics=(Metric(quantity="accuracy", value=0.95, low=0.9, high=0.99, n=104, data="MiraBest"),),
        training=Training(data="MiraBest", n=729, seeds=(1, 2), recipe={"epochs": 60, "scales": [0.9, 1.1]}),
        preprocessing=Preprocessing(pixel_arcsec=2.5, side=64),
        temperature=1.4,
        invariant_under="D4",
    )
    again = parse_card(card.to_json(), "here")
    assert again == card
    assert isinstance(again.preprocessing, Preprocessing)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("classes", ["FRI"], "classes"),
        ("classes", ["FRI", "FRII", "fri"], "one name"),
        ("classes", ["FRI", "x; drop"], "letters"),
        ("name", "Not A Name", "name"),
        ("kind", "pickle", "kind"),
        ("temperature", 0.0, "temperature"),
        ("temperature", float("inf"), "temperature"),
        ("invariant_under", "E2", "no group"),
        ("preprocessing", {"side": 0}, "side is 0"),
        ("preprocessing", {"pixels": 3}, "preprocessing"),
        ("surprise", 1, "surprise"),
        ("metrics", [{"quantity": "accuracy", "value": float("nan")}], "metrics.0.value"),
    ],
)
def test_a_card_that_is_wrong_names_the_key(key, value, said):
    content = {**json.loads(make_card().to_json()), key: value}
    with pytest.raises(InputError, match=said) as caught:
        parse_card(json.dumps(content), "model.safetensors")
    assert caught.value.message.startswith("model.safetensors")


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"a":' * 5000, " " * (1 << 21)])
def test_what_is_no_card_is_an_error(text):
    with pytest.raises(InputError, match="card"):
        parse_card(text, "x")


def test_a_card_cannot_be_changed():
    with pytest.raises(ValidationError):
        make_card().version = "2"
    assert isinstance(make_card(), Card)
