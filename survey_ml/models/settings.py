"""What the file of ``--config`` says of a training, looked through before anything is trained."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from survey_ml.errors import ConfigError, InputError
from survey_ml.explain import parse_settings
from survey_ml.models.card import PLAIN, Card
from survey_ml.models.kinds import parse_architecture, sketch_network
from survey_ml.models.semi_supervised import parse_fixmatch

if TYPE_CHECKING:
    from survey_ml.learning.networks import Architecture
    from survey_ml.learning.training import Recipe
    from survey_ml.models.fitting import Fitting

GATED = ("aggregation", "fields", "group", "normalisation", "size")
"""Settings of an architecture that networks without attention gates have no use for, and that their cards
have all the same; `pooled` and `turned` are refused in cards as well, where a network is made."""


def parse_recipe(fitting: Fitting) -> Recipe:
    """Return how a network is trained.

    Raises
    ------
    ConfigError
        When a setting is unknown or makes no sense.
    """
    from survey_ml.learning.observation import Observation
    from survey_ml.learning.training import Recipe

    given = dict(fitting.recipe)
    if isinstance(other := given.get("observation"), dict):
        given["observation"] = parse_settings(Observation, other, "recipe.observation")
    return parse_settings(Recipe, given, "recipe", seed=fitting.seed)


def check_fixmatch(fitting: Fitting, unlabelled: bool) -> None:
    """Refuse settings that mean nothing with, or without, unlabelled images."""
    if not unlabelled and fitting.fixmatch is not None:
        raise ConfigError("settings of fixmatch, and no unlabelled images", "give some: --semi-supervised")
    if not unlabelled:
        return
    if fitting.model == "forest":
        raise ConfigError("a forest cannot learn from unlabelled images", "choose a network: --model cnn")
    if fitting.posterior is not None:
        raise ConfigError("no posterior is fitted with unlabelled images", "leave posterior out")
    if fitting.recipe:
        raise ConfigError("the settings of recipe mean nothing with a pool", "give them under fixmatch")
    parse_fixmatch(fitting.fixmatch or {}, fitting.seed)


def make_card(fitting: Fitting, about: dict[str, Any]) -> tuple[Card, Architecture]:
    """Return the card and the architecture of a network, once they are known to be possible.

    Parameters
    ----------
    fitting : Fitting
    about : dict
        What the card says beside: name, classes, preprocessing, licence, use, limits.

    Raises
    ------
    ConfigError
        When a setting is unknown, or no network can be built with it.
    """
    group = fitting.group if fitting.model == "equivariant" else "C1"
    if fitting.architecture.get("group", group) != group:
        raise ConfigError(
            f"architecture.group is {fitting.architecture['group']}, the group of the network {group}",
            "say it once: `model: equivariant` and `group:` beside it",
        )
    given = {"n_classes": len(about["classes"]), "group": group, **fitting.architecture}
    card = Card(
        **about,
        kind=fitting.model if fitting.model in PLAIN else "attention",
        architecture=given,
        invariant_under=group if group in ("C4", "D4") else "",
    )
    try:
        architecture = parse_architecture(card)
    except InputError as error:
        raise ConfigError(error.message, "see docs/models.md") from None
    sketch_network(card.kind, architecture)
    posterior = fitting.posterior
    if posterior is not None and architecture.members:
        raise ConfigError(
            "members of the architecture, and a posterior over weights",
            "give one of them: the method deep-ensemble of a posterior keeps what each member says",
        )
    return card.model_copy(
        update={
            "architecture": json.loads(json.dumps(asdict(architecture))),
            "posterior": None if posterior is None else posterior.describe(architecture.dropout),
        }
    ), architecture


def refuse_idle(fitting: Fitting) -> None:
    """Refuse settings that a kind of model has no use for: whoever gives them expects something.

    Raises
    ------
    ConfigError
        With the first of them.
    """
    given = {f"architecture.{key}" for key in fitting.architecture}
    if "group" in fitting.model_fields_set:
        given.add("group")
    if fitting.model == "forest":
        idle = given
    elif fitting.model in PLAIN:
        idle = {"group", *(f"architecture.{key}" for key in GATED)}
    else:
        idle = {"group"} if fitting.model == "attention-gate" else set()
    if found := sorted(given & idle):
        raise ConfigError(
            f"{found[0]} means nothing to the model {fitting.model}",
            "leave it out, or take `model: equivariant`",
        )
