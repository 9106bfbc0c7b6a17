"""The kinds of models, and what arrays each is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from survey_ml.errors import ConfigError, InputError
from survey_ml.explain import first_problem, suggest
from survey_ml.models.calibration import list_held_out
from survey_ml.models.card import PLAIN, Card
from survey_ml.models.posterior import Shapes, list_weights

if TYPE_CHECKING:
    from survey_ml.learning.baselines import PlainNetwork
    from survey_ml.learning.committee import Committee
    from survey_ml.learning.networks import Architecture, AttentionNetwork
    from survey_ml.learning.tang import TangNetwork

    Network = AttentionNetwork | PlainNetwork | TangNetwork | Committee

MOST_FIELDS = 4096
LARGEST_FILTER = 31
LARGEST_SIDE = 4096
LARGEST_REDUCE = 64
MOST_MEMBERS = 64
LARGEST_WIDTH = 4096
LARGEST_HEAD = 8192
"""Limits of what is built for a file of unknown origin."""


@dataclass(frozen=True)
class ForestArchitecture:
    """What a forest is built from, beside its arrays.

    Parameters
    ----------
    n_classes : int
    measurements : tuple of str
        Names of what its trees look at, of `survey_ml.learning.measurements.NAMES`, in their order.
    n_trees, n_nodes : int
        Size of the forest.
    """

    n_classes: int
    measurements: tuple[str, ...]
    n_trees: int
    n_nodes: int


@dataclass(frozen=True)
class HeadArchitecture:
    """Of a posterior over a last layer: its classes, and the numbers that it reads.

    Parameters
    ----------
    n_classes, width : int
    """

    n_classes: int
    width: int


def parse_architecture(card: Card) -> Architecture:
    """Return the architecture of a network from its card.

    Raises
    ------
    InputError
        When a key is unknown, missing or out of range.
    """
    from survey_ml.learning.attention import Aggregation, Normalisation
    from survey_ml.learning.networks import Architecture, View

    views = card.architecture.get("members", ())
    for number, view in enumerate(views if isinstance(views, Sequence) else ()):
        _refuse_unknown(view, View, f"architecture.members.{number}")
    found = _parse(Architecture, card)
    for key, choices in (("normalisation", Normalisation), ("aggregation", Aggregation)):
        if getattr(found, key) not in (known := [str(one) for one in choices]):
            raise InputError(
                f"architecture.{key} is {getattr(found, key)}, none of {', '.join(known)}", "train it again"
            )
    sizes = {
        "fields": (max(found.fields), MOST_FIELDS),
        "size": (found.size, LARGEST_FILTER),
        "side": (found.side, LARGEST_SIDE),
        "reduce": (found.reduce, LARGEST_REDUCE),
    }
    for number, view in enumerate(found.members):
        sizes |= {
            f"members.{number}.side": (view.side, LARGEST_SIDE),
            f"members.{number}.reduce": (view.reduce, LARGEST_REDUCE),
        }
    if len(found.members) > MOST_MEMBERS:
        raise InputError(
            f"architecture.members are {len(found.members)}", f"at most {MOST_MEMBERS} are possible"
        )
    for key, (value, most) in sizes.items():
        if not 1 <= value <= most:
            raise InputError(f"architecture.{key} is {value}", f"1 to {most} are possible")
    ranges = {
        "fields": (min(found.fields) >= 1, "each at least 1"),
        "mean": (math.isfinite(found.mean), "any number"),
        "std": (0.0 < found.std < math.inf, "above 0"),
        "dropout": (0.0 <= found.dropout < 1.0, "from 0 up to 1, without 1"),
    }
    for key, (possible, wanted) in ranges.items():
        if not possible:
            raise InputError(f"architecture.{key} is {getattr(found, key)}", f"possible: {wanted}")
    return found


def parse_forest(card: Card) -> ForestArchitecture:
    """Return the architecture of a forest from its card.

    Raises
    ------
    InputError
        When a key is unknown, missing or out of range, or a measurement is unknown.
    """
    from survey_ml.learning.measurements import NAMES

    found = _parse(ForestArchitecture, card)
    for name in found.measurements:
        if name not in NAMES:
            raise InputError(
                f"the forest looks at {name!r}, which is not measured{suggest(name, NAMES)}",
                "it was made by another version of survey_ml",
            )
    if len(set(found.measurements)) < len(found.measurements) or not found.measurements:
        raise InputError("architecture.measurements are none, or some twice", "train it again")
    return found


def parse_head(card: Card) -> HeadArchitecture:
    """Return the size of a last layer from its card.

    Raises
    ------
    InputError
        When it is out of range.
    """
    found: HeadArchitecture = _parse(HeadArchitecture, card)
    if not 1 <= found.width <= LARGEST_WIDTH or found.n_classes * (found.width + 1) > LARGEST_HEAD:
        raise InputError(
            f"architecture.width is {found.width}, for {found.n_classes} classes",
            f"widths to {LARGEST_WIDTH} and {LARGEST_HEAD} weights are possible",
        )
    assert card.calibration is not None
    if card.calibration.width != found.width:
        raise InputError("architecture and calibration are of two widths", "fit it again")
    return found


def build_network(card: Card) -> Network:
    """Return the network of a card without memory for its weights, to be filled by ``assign``.

    Raises
    ------
    InputError
        When the architecture is not possible.
    """
    architecture = parse_architecture(card)
    try:
        return sketch_network(card.kind, architecture)
    except ConfigError as error:
        raise InputError(f"the architecture is not possible: {error.message}", "train it again") from None


def sketch_network(kind: str, architecture: Architecture) -> Network:
    """Return a network of a kind of model without memory for its weights.

    Raises
    ------
    ConfigError
        When the architecture is not possible.
    """
    import torch

    try:
        with torch.device("meta"):
            return make_network(kind, architecture)
    except ValueError as error:  # of a choice that there is not
        raise ConfigError(str(error), "see docs/models.md") from None


def make_network(kind: str, architecture: Architecture) -> Network:
    """Return a network of a kind of model with its first weights.

    Raises
    ------
    ConfigError
        When the architecture is not possible.
    """
    from survey_ml.learning.baselines import make_lenet, make_tang
    from survey_ml.learning.committee import Committee, list_members
    from survey_ml.learning.networks import AttentionNetwork
    from survey_ml.learning.tang import TangNetwork

    if architecture.members:
        return Committee(architecture, [make_network(kind, one) for one in list_members(architecture)])
    if kind not in PLAIN:
        return AttentionNetwork(architecture)
    for key in ("pooled", "turned"):
        if getattr(architecture, key):
            raise ConfigError(
                f"the network {kind} has no attention gates: {key} means nothing", "leave it out"
            )
    if kind == "tang":
        return TangNetwork(architecture)
    return {"cnn": make_tang, "lenet": make_lenet}[kind](architecture)


def list_arrays(card: Card) -> Shapes:
    """Return names, dtypes and shapes of the arrays that a model of this card is made of.

    Raises
    ------
    InputError
        When the architecture is not possible.
    """
    if card.kind == "forest":
        forest = parse_forest(card)
        nodes = (forest.n_nodes,)
        return {
            "start": ("int32", (forest.n_trees,)),
            "feature": ("int32", nodes),
            "threshold": ("float64", nodes),
            "left": ("int32", nodes),
            "right": ("int32", nodes),
            "value": ("float64", (forest.n_nodes, forest.n_classes)),
        }
    if card.kind == "head":
        head = parse_head(card)
        assert card.posterior is not None and card.calibration is not None
        size = head.n_classes * (head.width + 1)
        arrays = {"mean": ("float32", (head.n_classes, head.width + 1))}
        if card.posterior.method != "mc-dropout":
            arrays["factor"] = ("float32", (size, size))
        return arrays | list_held_out(card.calibration.n, head.n_classes, head.width)
    network = build_network(card)
    state = {
        name: (str(value.dtype).removeprefix("torch."), tuple(value.shape))
        for name, value in network.state_dict().items()
    }
    found = dict(list_weights(card.posterior, state, {name for name, _ in network.named_parameters()}))
    if card.calibration is not None:
        found |= list_held_out(card.calibration.n, len(card.classes), card.calibration.width)
    return found


def find_differences(given: Shapes, card: Card) -> str:
    """Say how arrays differ from those of a card; an empty string when they do not."""
    wanted = list_arrays(card)
    faults = []
    if missing := sorted(wanted.keys() - given.keys()):
        faults.append(f"{_shorten(missing)} missing")
    if extra := sorted(given.keys() - wanted.keys()):
        faults.append(f"{_shorten(extra)} not part of it")
    for name in sorted(wanted.keys() & given.keys()):
        for what, one, two in zip(("dtype", "shape"), given[name], wanted[name], strict=True):
            if one != two:
                faults.append(f"{name} has the {what} {one} instead of {two}")
    return "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")


def _parse(kind: type[Any], card: Card) -> Any:
    _refuse_unknown(card.architecture, kind, "the architecture")
    try:
        found = TypeAdapter(kind).validate_python(card.architecture)
    except ValidationError as error:
        key, problem = first_problem(error)
        raise InputError(f"architecture.{key} is wrong: {problem}", "train it again") from None
    if found.n_classes != len(card.classes):
        raise InputError(
            f"the card has {len(card.classes)} classes, its architecture {found.n_classes}", "train it again"
        )
    return found


def _refuse_unknown(given: Any, kind: type[Any], where: str) -> None:
    known = [item.name for item in fields(kind)]
    for key in given if isinstance(given, Mapping) else ():
        if key not in known:
            raise InputError(
                f"unknown key {key} in {where}{suggest(key, known)}",
                f"known: {', '.join(known)}; the model may be of a newer survey_ml",
            )


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more + (" is" if len(names) == 1 else " are")
