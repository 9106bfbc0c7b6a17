"""The card of a model: what it is, what it was made from, how well it does, and what it is not for.

After Mitchell et al. 2019, "Model cards for model reporting". It lies inside the model file, so that
weights and card cannot part.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from survey_ml.errors import InputError, SurveyMLError
from survey_ml.explain import first_problem
from survey_ml.learning.groups import parse_group
from survey_ml.learning.preprocessing import Preprocessing

CLASS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""Class names become column names, in lower case."""
MODEL_NAME = r"^[a-z][a-z0-9-]*$"
LARGEST_TEXT = 1 << 20
"""Characters of a card; more is no card."""

Number = Annotated[float, Field(allow_inf_nan=False)]
Bounded = Annotated[float, Field(ge=-1e6, le=1e6)]
Plain = Annotated[dict[str, Any], AfterValidator(lambda value: json.loads(json.dumps(value)))]
"""What JSON can hold, as JSON holds it: a tuple is a list."""


class Part(BaseModel):
    """Base of a card and its parts: frozen, unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )


class Training(Part):
    """What a model was made from."""

    data: str = ""
    """Images: name, version and where they are published."""
    split: str = ""
    """How training, validation and test images were told apart."""
    n: int = Field(0, ge=0)
    """Training images."""
    unlabelled: str = ""
    """Images that were learnt from without labels, and why they were doubted, if so; empty for none."""
    n_unlabelled: int = Field(0, ge=0)
    """How many."""
    seeds: tuple[int, ...] = ()
    """Seeds of all trainings that the metrics are about; the first made this file."""
    recipe: Plain = {}
    """How it was trained: `survey_ml.learning.training.Recipe` or the options of the forest."""
    commit: str = ""
    """Revision of the code."""
    date: str = ""
    """Day of the training, as 2026-01-31."""


class Metric(Part):
    """One figure of how well a model does."""

    quantity: str
    """What was measured, such as accuracy."""
    value: Number
    low: Number | None = None
    """Lower end of the 95 % interval."""
    high: Number | None = None
    """Upper end of the 95 % interval."""
    n: int = Field(0, ge=0)
    """Images, or trainings, that it is from."""
    data: str = ""
    """Images that it was measured on."""


PLAIN = ("cnn", "tang", "lenet")
"""Kinds of networks without attention."""
_OF = {"head": "laplace"} | dict.fromkeys(("attention", *PLAIN), "deep-ensemble")
"""Which of the two methods that are not for all a kind of model may have."""


class Base(Part):
    """The model that a posterior over a last layer belongs to."""

    name: str = Field(pattern=MODEL_NAME, max_length=64)
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of its file."""


class Posterior(Part):
    """What is known of the weights beyond their best values: of a last layer, or of a whole network."""

    method: Literal["bayes-by-backprop", "mc-dropout", "laplace", "deep-ensemble"]
    prior: Literal["gaussian", "gaussian-mixture", "laplace", "laplace-mixture"] = "gaussian"
    """See `survey_ml.learning.priors.Prior`."""
    prior_scale: Number = Field(0.0, ge=0.0)
    """Of the prior, of its wide part in a mixture; 0 where there is none."""
    prior_narrow: Number = Field(0.0, ge=0.0)
    """Scale of the narrow part of a mixture."""
    prior_share: Number = Field(1.0, ge=0.0, le=1.0)
    """Of the wide part of a mixture."""
    temperature: Number = Field(1.0, ge=0.0)
    """Factor of the divergence from the prior: 1 for Bayes' rule, less for a cold posterior."""
    misspecified: bool = False
    """Whether the variance of the likelihood was taken off."""
    rate: Number = Field(0.0, ge=0.0, lt=1.0)
    """Share of features that dropout drops."""
    pruned: Number = Field(0.0, ge=0.0, lt=1.0)
    """Share of the weights of fully connected layers that were taken out."""
    pruned_by: Literal["", "snr", "fisher"] = ""
    """What they were ranked by."""
    members: int = Field(0, ge=0, le=100)
    """Networks of an ensemble."""


class Calibration(Part):
    """What was learnt from images that the model was not trained on."""

    data: str = ""
    """Images, and how they were held out."""
    n: int = Field(ge=1, le=1_000_000)
    """How many."""
    width: int = Field(ge=1, le=4096)
    """Numbers of an embedding."""
    method: Literal["temperature", "vector", "isotonic"] = "temperature"
    """See `survey_ml.learning.calibration.Calibrator`, also for what follows."""
    scale: tuple[Bounded, ...] = ()
    shift: tuple[Bounded, ...] = ()
    knots: tuple[tuple[tuple[Number, ...], tuple[Number, ...]], ...] = ()


class Card(Part):
    """All that users of a model should know, and all that is needed to run it beside the weights."""

    name: str = Field(pattern=MODEL_NAME, max_length=64)
    """Lower-case letters, digits and hyphens."""
    version: str = Field("1", min_length=1, max_length=32)
    """Changes whenever the weights do."""
    classes: tuple[str, ...] = Field(min_length=2, max_length=1000)
    """Classes in the order of the logits, as shown."""
    kind: Literal["attention", "cnn", "tang", "lenet", "forest", "head"]
    """`attention`: a network of `survey_ml.learning.networks`; `cnn`: after Tang et al. 2019; `tang`: theirs
    as published; `lenet`: that of Mohan et al. 2022; `forest`: trees on measurements; `head`: a posterior
    over the last layer of another model."""
    architecture: Plain
    """What the network or the forest is built from, beside its arrays."""
    preprocessing: Preprocessing = Preprocessing()
    """How images are made that the model wants to see."""
    training: Training = Training()
    metrics: tuple[Metric, ...] = ()
    base: Base | None = None
    """Of a `head`: the model that it belongs to."""
    posterior: Posterior | None = None
    calibration: Calibration | None = None
    temperature: float = Field(1.0, gt=0.0, allow_inf_nan=False)
    """The logits are divided by it (Guo et al. 2017); 1 where they are not calibrated."""
    licence: str = ""
    """Of the weights, and the terms of the images that they were trained on."""
    intended_use: str = ""
    limits: str = ""
    """Where it fails, or was never tried."""
    invariant_under: str = ""
    """Group of turns and reflections that do not change the probabilities, such as D4; empty for none."""

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not CLASS_NAME.fullmatch(name):
                raise ValueError(f"the class {name!r} is not a letter followed by letters, digits and '_'")
        if len({name.lower() for name in names}) < len(names):
            raise ValueError("two classes have one name, but for capitals")
        return names

    @field_validator("invariant_under")
    @classmethod
    def _check_group(cls, name: str) -> str:
        if name:
            try:
                parse_group(name)
            except SurveyMLError as error:
                raise ValueError(error.message) from None
        return name

    @model_validator(mode="after")
    def _check_posterior(self) -> Card:
        if (self.kind == "head") != (self.base is not None):
            raise ValueError("a base belongs to a head, and to nothing else")
        if self.kind == "head" and (self.posterior is None or self.calibration is None):
            raise ValueError("a head has a posterior and a calibration")
        if self.posterior is None:
            if self.calibration is not None:
                raise ValueError("a calibration belongs to a posterior")
            return self
        method = self.posterior.method
        if self.kind == "forest" or (method in ("laplace", "deep-ensemble") and method != _OF[self.kind]):
            raise ValueError(f"there is no posterior of the method {method} for the kind {self.kind}")
        if (method == "deep-ensemble") != (self.posterior.members > 0):
            raise ValueError("members belong to a deep-ensemble, and it has one at least")
        return self

    @property
    def is_bayesian(self) -> bool:
        """Whether it is a network with a posterior over its own weights."""
        return self.posterior is not None and self.base is None

    def to_json(self) -> str:
        """Return the card as one line of JSON."""
        return self.model_dump_json()


def parse_card(text: str, source: str) -> Card:
    """Read a card of unknown origin.

    Parameters
    ----------
    text : str
        JSON.
    source : str
        Where it is from, for the message.

    Raises
    ------
    InputError
        When it is no card, with the first key that is wrong.
    """
    hint = "the file was damaged, or made by another version of survey_ml"
    if len(text) > LARGEST_TEXT:
        raise InputError(f"{source}: the card has {len(text)} characters", f"at most {LARGEST_TEXT} are read")
    try:
        return Card.model_validate(json.loads(text))
    except ValidationError as error:
        key, problem = first_problem(error)
        raise InputError(f"{source}: the card's {key or 'content'} is wrong: {problem}", hint) from None
    except SurveyMLError as error:
        raise InputError(f"{source}: the card is wrong: {error.message}", error.hint) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: the card is not JSON: {error}", hint) from None
