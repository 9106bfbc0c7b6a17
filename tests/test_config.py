"""The configuration's models, the YAML that `init` writes from them, and its documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from survey_ml.cli.init import find_options
from survey_ml.cli.reference import MARK, STAGES
from survey_ml.config import Engine, FieldOverride, ReleaseConfig, Section
from survey_ml.describe import list_entries, render_reference, render_template
from survey_ml.document import parse_yaml
from survey_ml.stage import Options

DOCS = Path(__file__).parents[1] / "docs" / "configuration.md"


class Knobs(Options):
    seed_snr: float = 5.0
    """Peak over local rms."""
    names: tuple[str, ...] = ("a", "b: c")
    """A list
    over two lines."""
    limit: float | None = None


def models(model: type[BaseModel] = ReleaseConfig) -> list[type[BaseModel]]:
    return [model, *(inner for e in list_entries(model) if e.section for inner in models(e.section))]


@pytest.mark.parametrize("model", [*models(), FieldOverride])
def test_sections_are_frozen_closed_and_explained(model):
    assert issubclass(model, Section)
    assert model.model_config["frozen"] is True
    assert model.model_config["extra"] == "forbid"
    assert model.__doc__
    assert [entry.key for entry in list_entries(model) if not entry.help] == []


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Engine().kind = "local"


def test_the_template_is_valid_and_means_the_defaults():
    text = render_template({"knobs": Knobs})
    document, _ = parse_yaml(text, "template")
    given = {key: value for key, value in document.items() if value is not None}
    given["stages"] = {"knobs": {}}
    made = ReleaseConfig.model_validate(given)
    plain = ReleaseConfig(name=made.name, fields=made.fields, out=made.out, stages={"knobs": {}})
    assert made == plain


def test_every_line_of_the_template_can_be_taken_into_use():
    text = render_template({"knobs": Knobs, "other": Knobs})
    used = re.sub(r"^( *)#(\w+:)", r"\1\2", text, flags=re.MULTILINE)
    document, _ = parse_yaml(used, "template")
    made = ReleaseConfig.model_validate(document)
    assert made.engine == Engine()
    assert Knobs.model_validate(made.stages["other"]) == Knobs()
    shown = set(re.findall(r"^ *(\w+):", used, flags=re.MULTILINE))
    for model in [*models(), Knobs]:
        assert set(model.model_fields) <= shown


def test_the_template_explains_every_key_in_the_models_words():
    text = " ".join(re.sub(r"^ *# ", "", line) for line in render_template({"k": Knobs}).splitlines())
    for model in [*models(), Knobs]:
        for entry in list_entries(model):
            assert " ".join(entry.help.split()) in text


def test_the_documentation_is_what_the_models_say():
    text = DOCS.read_text(encoding="utf-8")
    assert MARK in text
    stages = find_options(STAGES)
    assert text.partition(MARK)[2].strip() == render_reference(stages).strip(), (
        "run: python -m survey_ml.cli.reference docs/configuration.md"
    )


def test_the_examples_in_the_documentation_are_valid():
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    whole = [block for block in blocks if block.startswith("name:")]
    assert whole
    for block in whole:
        ReleaseConfig.model_validate(parse_yaml(block, "example")[0])
    for block in blocks:
        assert isinstance(yaml.safe_load(block), dict)
